"""The perceptual hash against imagehash and Pillow, bit for bit."""

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.read.phash import SIDE, hash_small, shrink

sides = st.one_of(st.integers(1, 120), st.integers(1, 3000))


def small_by_pillow(image):
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS).tobytes()


def noise(width, height, mode, seed, levels=256):
    """A picture of some levels, evenly from black to white, in memory of its own."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray((rng.integers(0, levels, shape) * (255 // (levels - 1))).astype(np.uint8)).copy()


modes, levels = st.sampled_from(["L", "RGB"]), st.sampled_from([2, 256])


@given(sides, st.integers(1, 200), st.booleans(), modes, levels, st.integers(0, 99))
def test_shrunk_as_pillow_does(long, short, is_high, mode, levels, seed):
    width, height = (short, long) if is_high else (long, short)
    image = noise(width, height, mode, seed, levels)
    assert shrink(image) == small_by_pillow(image)


@pytest.mark.parametrize("size", [(32, 500), (500, 32), (32, 32), (7, 701), (7, 700), (3000, 1000)])
def test_where_the_kernel_does_not_apply(size):
    """A side of 32, heights of over 100 widths, several blocks of memory, and images on memory that is not their own."""
    for mode in ("L", "RGB"):
        image = noise(*size, mode, 0)
        assert shrink(image) == shrink(Image.fromarray(np.asarray(image))) == small_by_pillow(image)


def flat_and_regular():
    """Pictures with many nearly equal coefficients, so that the last bit of each counts."""
    grid = np.indices((64, 96))
    found = [np.full((64, 96), level) for level in (0, 1, 77, 128, 255)]
    found += [grid[axis] // step % 2 * 255 for axis in (0, 1) for step in (1, 2, 3, 4, 8, 16, 32)]
    found += [grid.sum(axis=0) // step % 2 * 255 for step in (1, 2, 8, 32)]
    found += [grid[0] * 4, grid[1] * 2, grid[0] * 2 + grid[1]]
    return [Image.fromarray(np.clip(one, 0, 255).astype(np.uint8)).copy() for one in found]


def test_hashes_are_imagehashs():
    rng = np.random.default_rng(0)
    images = flat_and_regular()
    for seed in range(300):
        width, height = rng.integers(1, 150, 2).tolist()
        images.append(noise(width, height, ("L", "RGB")[seed % 2], seed, (2, 3, 256)[seed % 3]))
    small = [shrink(image) for image in images]
    expected = [int(str(imagehash.phash(image)), 16) for image in images]
    assert hash_small(small).tolist() == expected
    assert [int(hash_small([one])[0]) for one in small] == expected  # the others in a batch do not matter
    assert hash_small([]).tolist() == []
