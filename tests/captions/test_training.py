"""Captioned shards train: open_clip's loader reads the chosen texts, and the README's lines draw among them as LaCLIP does."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import webdataset

from tests.captions.test_unit import faithful, kept_samples, recipe
from tests.engines import server as servers
from tests.engines.server import FaultServer
from tests.laws import pools
from tests.test_readers import loader_args, open_clip_data, to_tensor

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> pools.Ran:
    folder = tmp_path_factory.mktemp("captioned")
    path = pools.write_tars(folder / "tars", [s for s in pools.make_samples(40)[:40] if s.suffix == "jpg"], 2)
    with FaultServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "echo", faithful)
        captions = {"output": {"mix": {"rewrite": 0.5}}, "gates": {"off": ["names", "numbers"]}}
        asked = recipe(path, server, captions=captions, output={"rows_per_shard": 5})
        return pools.run_beam(asked, folder / "run")


def test_open_clips_loader_reads_the_chosen_texts(captioned: pools.Ran) -> None:
    files = kept_samples(captioned.folder)
    data: Any = open_clip_data.get_wds_dataset(
        loader_args(captioned, 4), to_tensor, is_train=False, tokenizer=lambda text: [text]
    )
    texts = sorted(text for _, batch in data.dataloader for text in batch)
    assert texts == sorted(members["txt"].decode() for members in files.values())
    originals = {json.loads(members["json"])["captions"]["original"] for members in files.values()}
    assert 0 < sum(text not in originals for text in texts) < len(texts)


def test_the_readmes_lines_draw_uniformly(captioned: pools.Ran) -> None:
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "def draw" in block
    ]
    assert "run/shards/{00000..00003}.tar" in code
    shards = sorted(str(path) for path in captioned.folder.glob("shards/*.tar"))
    code = code.replace('"run/shards/{00000..00003}.tar"', "SHARDS")
    random.seed(0)
    names: dict[str, Any] = {"wds": webdataset, "random": random, "SHARDS": shards}
    exec(code, names)
    drawn: dict[str, Counter[str]] = {}
    for _ in range(60):
        for number, (picture, text) in enumerate(names["dataset"]):
            assert picture.size[0] > 10
            drawn.setdefault(str(number), Counter())[text] += 1
    fields = [json.loads(members["json"])["captions"] for members in kept_samples(captioned.folder).values()]
    assert len(drawn) == len(fields)
    choices = Counter(len({field["original"], *field["rewrite"].values()}) for field in fields)
    assert Counter(len(counter) for counter in drawn.values()) == choices and max(choices) == 2
    assert all(min(counter.values()) > 5 for counter in drawn.values())
