"""The perceptual hash of images, bit for bit imagehash's `phash`, without Python's lock for nearly all of its time.

Images of mode RGB or L become 32 x 32 grey pixels, as Pillow's `convert("L").resize((32, 32), LANCZOS)` gives them, and
these uint64: the signs of the 8 x 8 lowest DCT coefficients against their median. Pillow and imagehash hold the lock
for weights and small arrays; where the kernel does not apply (several blocks of memory, a side of 32), Pillow shrinks.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numba import config, njit
from PIL import Image

from curate.base.numeric.arrays import U64

SIDE = 32
_LOW = 8  # coefficients a side
_TOGETHER = 64  # images at a time: larger arrays are new pages each time, at more than twice the cost
_BITS = 22  # of the weights' fractions
_RADIUS = 3.0  # of the filter, in output pixels
_USUAL = 16_384  # pixels of a side, up to which weights are kept: each pixel takes 24 bytes
_MAX_ASPECT = 100  # of height to width, where Pillow begins to shrink in two steps


def shrink(image: Image.Image) -> bytes:
    """Return the image in grey and small: 1,024 bytes, row by row."""
    width, height = image.size
    is_plain = SIDE not in image.size and height <= _MAX_ASPECT * width and image.mode in ("RGB", "L")
    is_plain = is_plain and not config.DISABLE_JIT  # an interpreted loop over pixels takes a second
    if is_plain and not image.readonly:  # Pillow 12 crashes on one that lies on other memory than its own
        with suppress(ValueError):  # of an image that lies in several blocks
            memory = pa.array(image)  # type: ignore[call-overload] # it has Arrow's interface
            pixels = np.frombuffer(memory.buffers()[-1], np.uint8 if image.mode == "L" else np.uint32)
            across, down = (_weights(side) if side <= _USUAL else _weights.__wrapped__(side) for side in image.size)
            return bytes(_shrink(pixels, width, height, *across, *down))
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS).tobytes()


def hash_small(small: Sequence[bytes]) -> U64:
    """Return uint64[n], the hashes of images that `shrink` returned."""
    from scipy.fftpack import dct  # here: it takes 0.5 s to load, which a run without phash need not spend

    hashes = np.empty(len(small), np.uint64)
    for first in range(0, len(small), _TOGETHER):
        batch = slice(first, first + _TOGETHER)
        pixels = np.frombuffer(b"".join(small[batch]), np.uint8).reshape(-1, SIDE, SIDE)
        low = dct(dct(pixels, axis=1), axis=2)[:, :_LOW, :_LOW].reshape(-1, _LOW * _LOW)
        hashes[batch] = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1).view(">u8").ravel()
    return hashes


@njit(nogil=True, cache=True)
def _lanczos(x: Any) -> Any:
    return np.sinc(x) * np.sinc(x / _RADIUS) if -_RADIUS <= x < _RADIUS else 0.0


@lru_cache(256)  # of some 20 kB
@njit(nogil=True, cache=True)
def _weights(side: Any) -> Any:
    """Return how a side becomes 32 pixels: first input and number of inputs, int64[32, 2], and weights, int32[32, ...].

    Computed in the order of Pillow's Resample.c, and rounded as there.
    """
    scale = side / SIDE
    stretch = max(scale, 1.0)
    support = _RADIUS * stretch
    bounds = np.empty((SIDE, 2), np.int64)
    weights = np.zeros((SIDE, math.ceil(support) * 2 + 1), np.int32)
    raw = np.empty(weights.shape[1])
    for i in range(SIDE):
        center = (i + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        count = min(int(center + support + 0.5), side) - first
        total = 0.0
        for x in range(count):
            raw[x] = _lanczos((x + first - center + 0.5) * (1.0 / stretch))
            total += raw[x]
        for x in range(count):
            weight = (raw[x] / total if total != 0.0 else raw[x]) * (1 << _BITS)
            weights[i, x] = int(weight - 0.5 if weight < 0 else weight + 0.5)
        bounds[i, 0], bounds[i, 1] = first, count
    return bounds, weights


@njit(nogil=True, cache=True)
def _weigh(line: Any, weights: Any) -> Any:
    total = np.int32(1 << (_BITS - 1))
    for i in range(len(line)):
        total = np.int32(total + line[i] * weights[i])
    return min(max(total >> _BITS, 0), 255)


@njit(nogil=True, cache=True)
def _shrink(image: Any, width: Any, height: Any, across: Any, across_weights: Any, down: Any, down_weights: Any) -> Any:
    """Return grey image, uint8[32, 32], of uint8 or (colours) uint32[height * width]: rows first, as Pillow does."""
    narrow = np.empty((SIDE, height), np.int32)  # columns of it are what the second step adds up
    line = np.empty(width, np.int32)
    for y in range(height):
        row = image[y * width : (y + 1) * width]
        for x in range(width):
            pixel = row[x]
            if image.itemsize == 4:
                red, green, blue = np.int32(pixel & 255), np.int32(pixel >> 8 & 255), np.int32(pixel >> 16 & 255)
                line[x] = np.int32(red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
            else:
                line[x] = pixel
        for i in range(SIDE):
            first, count = across[i]
            narrow[i, y] = _weigh(line[first : first + count], across_weights[i])
    small = np.empty((SIDE, SIDE), np.uint8)
    for i in range(SIDE):
        first, count = down[i]
        for j in range(SIDE):
            small[i, j] = _weigh(narrow[j, first : first + count], down_weights[i])
    return small
