"""What copying does to a picture: encodings that keep its hash, and changes that alter it."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from curate.demo.drawing import ALTER, alter, decode, draw, encode, phash, reencode
from curate.demo.scenes import compose


def rng(seed):
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def pictures():
    states = map(rng, range(20))
    return [encode(draw(compose(state, 260, 240), state), "jpg", 85) for state in states]


def test_a_reencoded_picture_is_another_file_with_the_same_hash(pictures):
    suffixes = set()
    for seed, image in enumerate(pictures):
        assert f"{phash(image):016x}" == str(imagehash.phash(Image.open(io.BytesIO(image))))
        if (found := reencode(image, rng(seed))) is not None:
            recoded, suffix = found
            assert recoded != image and phash(recoded) == phash(image)
            assert (Image.open(io.BytesIO(recoded)).format or "").lower() == {"jpg": "jpeg"}.get(suffix, suffix)
            suffixes.add(suffix)
    assert suffixes == {"jpg", "webp", "png"}


@pytest.mark.parametrize("change", ALTER)
def test_an_altered_picture_is_a_jpeg_with_another_hash_and_the_same_from_the_same_state(change, pictures):
    made = 0
    for seed, image in enumerate(pictures[:8]):
        altered = alter(change, image, rng(seed))
        assert altered == alter(change, image, rng(seed))
        if altered is not None:
            made += 1
            assert Image.open(io.BytesIO(altered)).format == "JPEG" and phash(altered) != phash(image)
            assert (decode(altered).size == (260, 240)) == (change == "compressed")
    assert made >= 3
