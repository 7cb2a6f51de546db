"""Captioned shards can train: open_clip's loader reads the chosen texts, and the README's code draws texts as LaCLIP does."""

import csv
import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from tests import kit
from tests.kit import llm_server as servers
from tests.kit.captioned import caption_recipe, faithful, kept_samples
from tests.kit.llm_server import FaultServer
from tests.kit.loaders import loader

pytestmark = pytest.mark.thorough

README = Path(__file__).resolve().parents[2] / "curate/captions/README.md"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioned")
    forms = [("jpg", "JPEG"), ("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")]
    samples = [
        replace(sample, image=kit.encode(kit.picture(i), form), suffix=suffix)
        for i, sample in enumerate(kit.make_samples(20)[:20])
        for suffix, form in [forms[i % 4]]
    ]
    path = kit.write_tars(folder / "tars", samples, 2)
    with FaultServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "echo", faithful)
        captions = {"output": {"mix": {"rewrite": 0.5}}, "gates": {"off": ["names", "numbers"]}}
        asked = caption_recipe(path, server, captions, output={"rows_per_shard": 5})
        return kit.run_beam(asked, folder / "run")


def test_open_clips_loader_reads_the_chosen_texts(captioned):
    files = kept_samples(captioned.folder)
    texts = sorted(text for _, batch in loader(captioned, 4, False).dataloader for text in batch)
    assert texts == sorted(members["txt"].decode() for members in files.values())
    originals = {json.loads(members["json"])["captions"]["original"] for members in files.values()}
    assert 0 < sum(text not in originals for text in texts) < len(texts)


def code_of_readme(words):
    """The one block of Python with these words."""
    [code] = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if words in block]
    return str(code)


def test_the_readmes_lines_draw_uniformly(captioned):
    """On every format of images."""
    code = code_of_readme("def draw")
    assert "run/shards/{00000..00003}.tar" in code
    shards = sorted(str(path) for path in captioned.folder.glob("shards/*.tar"))
    code = code.replace('"run/shards/{00000..00003}.tar"', "SHARDS")
    random.seed(0)
    names = {"wds": webdataset, "random": random, "SHARDS": shards}
    exec(code, names)
    drawn = {}
    for _ in range(60):
        for number, (picture, text) in enumerate(names["dataset"]):
            assert picture.size[0] > 10
            drawn.setdefault(str(number), Counter())[text] += 1
    fields = [json.loads(members["json"])["captions"] for members in kept_samples(captioned.folder).values()]
    assert len(drawn) == len(fields)
    choices = Counter(len({field["original"], *field["rewrite"].values()}) for field in fields)
    assert Counter(len(counter) for counter in drawn.values()) == choices and max(choices) == 2
    assert all(min(counter.values()) > 5 for counter in drawn.values())


def test_the_readmes_lines_write_laclips_files(captioned, tmp_path, monkeypatch):
    """LaCLIP's loader reads the rows with image suffixes, and the original if a text has fewer than two words."""
    (tmp_path / "run").symlink_to(captioned.folder)
    monkeypatch.chdir(tmp_path)
    exec(code_of_readme("laclip/train.csv"), {})
    with open("laclip/train.csv") as file:
        rows = [row for row in csv.reader(file) if row[0].endswith((".png", ".jpg", ".jpeg"))]
    styles = ("chat_a", "chat_b", "human", "coco")
    lines = {style: Path(f"laclip/{style}.txt").read_text().splitlines(keepends=True) for style in styles}
    samples = kept_samples(captioned.folder)
    assert len(samples) == len(rows) and {len(of) for of in lines.values()} == {len(rows)}
    for place, (name, original) in enumerate(rows):
        members = samples[name.removesuffix(".jpg")]
        with Image.open(f"laclip/images/{name}") as image:
            assert image.convert("RGB").size[0] > 10
        assert Path(f"laclip/images/{name}").read_bytes() in members.values()
        fields = json.loads(members["json"])["captions"]
        assert original == fields["original"]
        for style, of in lines.items():
            text = of[place].replace("\n", "")
            read = text if len(text.split(" ")) >= 2 else original
            assert read == fields["rewrite"].get(style, original)
    assert sum(line != "\n" for of in lines.values() for line in of) > len(rows) / 2
