"""CLIP scores of whole runs, against open_clip's own loop over the same files; which changes reuse them."""

import io
import re
import shutil
import tarfile
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.base import process
from curate.base.errors import RecipeError
from curate.models import open_clip_encoder
from curate.models.open_clip_encoder import OpenClipEncoder, _Net
from pipelines.prepare import prepare
from tests import kit
from tests.kit.clips import write_model

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_model(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture
def encoded(monkeypatch):
    """How many images each forward pass got, from now on."""
    sizes = []
    whole = OpenClipEncoder.start_images

    def counting(self, views):
        sizes.append(len(views))
        return whole(self, views)

    monkeypatch.setattr(OpenClipEncoder, "start_images", counting)
    return sizes


def cosines(name, pairs):
    """open_clip's README: one image and its text at a time."""
    import open_clip
    import torch

    net, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    net.eval()
    found = []
    for image, text in pairs:
        with torch.no_grad(), Image.open(io.BytesIO(image)) as opened:
            features = net.encode_image(transform(opened).unsqueeze(0)), net.encode_text(tokenizer([text]))
            one, two = (feature / feature.norm(dim=-1, keepdim=True) for feature in features)
            found.append(float((one * two).sum()))
    return found


def read_photos(path, count):
    """The first photos of a tar, each with its caption."""
    with tarfile.open(path) as tar:
        names = sorted({member.name.partition(".")[0] for member in tar})[:count]
        return [(tar.extractfile(f"{n}.jpg").read(), tar.extractfile(f"{n}.txt").read().decode()) for n in names]


def test_scores_of_photos_equal_a_plain_loop(models, shared, tmp_path):
    """Two models side by side, each its own columns."""
    pairs = read_photos(shared / "photos.tar", 48)
    samples = [kit.Sample(f"{i:03}", image, text) for i, (image, text) in enumerate(pairs)]
    clip = [{"model": models[0], "batch": 20}, {"model": models[1], "name": "other"}]
    asked = kit.recipe_of(kit.write_tars(tmp_path / "tars", samples, 1), measure={"clip": clip})
    scores = kit.run_local(asked, tmp_path / "out").table("scores")
    assert scores.column_names[3:] == [
        "clip_score", "tokens", "truncated", "other_score", "other_tokens", "other_truncated",
    ]  # fmt: skip
    for name, column in zip(models, ("clip_score", "other_score"), strict=True):
        assert np.abs(scores[column].to_numpy() - cosines(name, pairs)).max() <= 1e-5
    assert np.std(scores["clip_score"].to_numpy()) > 0.01


def test_scores_of_every_mode_equal_a_plain_loop(models, shared, tmp_path):
    """CMYK, palettes, 16 bits, gray, transparency, EXIF rotation, animations, AVIF; unreadable images have no score."""
    files = sorted((shared / "bad/images").iterdir())
    table = pa.table({"image": [file.read_bytes() for file in files], "caption": [file.stem for file in files]})
    pq.write_table(table, tmp_path / "x.parquet")
    recipe = kit.recipe_of(str(tmp_path / "x.parquet"), "parquet", measure={"clip": {"model": models[0]}})
    done = kit.run_local(recipe, tmp_path / "out")
    ok = np.array(done.table("samples")["status"]) == "ok"
    scores, good = done.table("scores")["clip_score"], [file for file, good in zip(files, ok, strict=True) if good]
    assert (scores.is_valid().to_numpy() == ok).all()
    assert ok.sum() >= 14 and {"gray16", "cmyk", "animated", "exif_rotated"} <= {file.stem for file in good}
    expected = cosines(models[0], [(file.read_bytes(), file.stem) for file in good])
    assert np.abs(scores.filter(pa.array(ok)).to_numpy() - expected).max() <= 1e-5


def test_tokens_and_embeddings(models, tmp_path):
    captions = ["red dog", "a " * 200, " "]
    samples = [kit.Sample(str(i), kit.encode(kit.picture(i)), text) for i, text in enumerate(captions)]
    path = kit.write_tar(tmp_path / "x.tar", samples)
    clip = {"model": models[0], "embeddings": True, "name": "small"}
    done = kit.run_local(kit.recipe_of(str(path), measure={"clip": clip}), tmp_path / "out")
    scores = done.table("scores").to_pylist()
    assert [row["small_tokens"] for row in scores] == [4, 202, None]
    assert [row["small_truncated"] for row in scores] == [False, True, None]
    kept = done.table("embeddings")
    assert kept.column_names == ["unit", "row", "uid", "small_image", "small_text"]
    assert kept.schema.field("small_image").type == pa.list_(pa.float16(), 32)
    assert [sum(map(abs, kept[f"small_{side}"][2].as_py())) for side in ("image", "text")] == [0, 0]
    image, text = (np.array(kept[f"small_{side}"][0].as_py(), np.float64) for side in ("image", "text"))
    assert abs(image @ text - scores[0]["small_score"]) < 1e-3
    assert abs(image @ image - 1) < 1e-2


def recipe(path, clip, **sections):
    measure = {**sections.pop("measure", {}), **({"clip": clip} if clip else {})}
    return kit.recipe_of(path, measure=measure, **sections)


RERUNS = {  # The score is reused: other rules, other signals, and where it runs
    False: [
        {"rules": {"best": {"top": 0.3, "of": "clip_score"}}}, {"measure": {"image": {"phash": True}}},
        {"measure": {"language": {}}}, {"clip": {"batch": 3, "device": "cpu", "precision": "fp32"}},
    ],
    True: [{"clip": {"precision": "bf16"}}, {"clip": {"embeddings": True}}, {"clip": {"name": "other"}, "model": 1}],
}  # fmt: skip


@pytest.mark.parametrize("is_encoded", RERUNS)
def test_what_is_encoded_again(is_encoded, models, tmp_path, encoded):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    old = kit.run_local(recipe(path, {"model": models[0]}), tmp_path / "old")
    for number, change in enumerate(RERUNS[is_encoded]):
        encoded.clear()
        asked = recipe(path, {"model": models[change.pop("model", 0)], **change.pop("clip", {})}, **change)
        new = kit.run_local(asked, tmp_path / f"new{number}", reuse=old.folder)
        assert bool(encoded) == is_encoded
        if is_encoded:
            fresh = kit.run_local(asked, tmp_path / f"fresh{number}")
            assert all(new.table(table) == fresh.table(table) for table in ("scores", "samples"))
        else:
            assert new.table("scores")["clip_score"] == old.table("scores")["clip_score"]


def test_a_moved_model_is_the_same_and_a_second_one_encodes_alone(models, tmp_path, encoded):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    moved = shutil.copytree(models[0].removeprefix("local-dir:"), tmp_path / "elsewhere")
    one, two = {"model": models[0]}, {"model": models[1], "name": "other"}
    old = kit.run_local(recipe(path, [one]), tmp_path / "old")
    first = sum(encoded)
    encoded.clear()
    other = recipe(path, {"model": f"local-dir:{moved}"})
    assert prepare(other, str(old.folder)).context.models["clip"]["weights"]  # the same recipe
    new = kit.run_local(other, tmp_path / "new", reuse=old.folder)
    assert encoded == [] and new.table("scores").equals(old.table("scores"))
    with pytest.raises(RecipeError, match=r"changed: measure\.clip"):
        prepare(recipe(path, {"model": models[1]}), str(old.folder))
    both = kit.run_local(recipe(path, [one, two]), tmp_path / "both", reuse=old.folder)
    assert sum(encoded) == first
    encoded.clear()
    kept = kit.run_local(recipe(path, [two]), tmp_path / "two", reuse=both.folder)
    assert encoded == [] and kept.table("scores").column_names[3:] == ["other_score", "other_tokens", "other_truncated"]


def test_two_devices_give_the_same_run(models, tmp_path, monkeypatch):
    """Units in hand go to both, each with its own model; no GPU is needed: the CPU by two names."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    asked = recipe(path, {"model": models[0], "batch": 8}, rules={"best": {"top": 0.5, "of": "clip_score"}})
    one = kit.run_local(asked, tmp_path / "one")
    used, both, encode = set(), threading.Event(), _Net.encode_images

    def meeting(self, views):
        used.add((self.device, id(self.net)))
        if len(used) == 2:
            both.set()
        assert both.wait(300), "units wait for one device"
        return encode(self, views)

    monkeypatch.setattr(open_clip_encoder, "each_device", lambda _: ["cpu", "cpu:0"])
    monkeypatch.setattr(_Net, "encode_images", meeting)
    monkeypatch.setattr(process, "_shared", process.Cache())
    two = kit.run_beam(asked, tmp_path / "two")
    assert {device for device, _ in used} == {"cpu", "cpu:0"} and len({net for _, net in used}) == 2
    # Models' scores agree to 1e-5 only; they are in table `scores` and in the shards' Parquet.
    files = (kit.lasting_files(run.folder) for run in (one, two))
    scored = re.compile(r"scores|shards/.*\.parquet")
    first, second = ({path: found for path, found in of.items() if not scored.search(path)} for of in files)
    assert first == second and (one.run["models"], one.run["keys"]) == (two.run["models"], two.run["keys"])
    scores = (run.table("scores")["clip_score"].to_numpy() for run in (one, two))
    assert np.allclose(*scores, atol=1e-5, equal_nan=True)


def test_what_is_refused_before_the_run(models, tmp_path):
    rows = kit.make_rows(20)  # brings a column clip_score, and has no images
    path = kit.write_parquets(tmp_path / "rows", rows, 1)
    with pytest.raises(RecipeError, match="clip needs images, and the pool has none"):
        prepare(kit.recipe_of(path, "parquet", measure={"clip": {"model": models[0]}}), str(tmp_path / "out"))
    table = pa.table({"image": [b"x"], "caption": ["x"], "clip_score": [0.5]})
    pq.write_table(table, tmp_path / "x.parquet")
    asked = kit.recipe_of(str(tmp_path / "x.parquet"), "parquet", measure={"clip": {"model": models[0]}})
    with pytest.raises(RecipeError, match="signal 'clip' and the pool both have a column clip_score"):
        prepare(asked, str(tmp_path / "out"))
    with pytest.raises(RecipeError, match="two models are named 'clip'"):
        kit.recipe_of(path, measure={"clip": [{"model": "a"}, {"model": "b"}]})
    with pytest.raises(RecipeError, match=r"measure.clip.*did you mean 'pretrained'"):
        kit.recipe_of(path, measure={"clip": {"model": "a", "pretraned": "b"}})
