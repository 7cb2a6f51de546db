"""Compute the perceptual hash of images, mostly without the GIL. It equals imagehash's `phash` bit for bit.

Images of mode RGB or L become 32 x 32 gray pixels, equal to Pillow's `convert("L").resize((32, 32), LANCZOS)`. The
hash, a uint64, has a bit for each of the 8 x 8 lowest DCT coefficients, which says whether it is above their median.
Pillow and imagehash keep the GIL while they compute weights and small arrays. Pillow shrinks the images that the kernel
cannot read (several blocks of memory, a side of 32).
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
_LOW = 8  # coefficients per side
_TOGETHER = 64  # images at a time; larger arrays would need new memory pages each time, which costs twice as much
_BITS = 22  # fractional bits of the weights
_RADIUS = 3.0  # radius of the filter, in output pixels
_USUAL = 16_384  # weights are cached for sides up to this length: each pixel needs 24 bytes
_MAX_ASPECT = 100  # ratio of height to width above which Pillow shrinks in two steps


def shrink(image: Image.Image) -> bytes:
    """Return the image as 32 x 32 gray pixels: 1,024 bytes, row by row."""
    width, height = image.size
    is_plain = SIDE not in image.size and height <= _MAX_ASPECT * width and image.mode in ("RGB", "L")
    is_plain = is_plain and not config.DISABLE_JIT  # an interpreted loop over pixels takes a second
    if is_plain and not image.readonly:  # Pillow 12 crashes if the image does not own its memory
        with suppress(ValueError):  # raised if the image has several blocks of memory
            memory = pa.array(image)  # type: ignore[call-overload] # it has Arrow's interface
            pixels = np.frombuffer(memory.buffers()[-1], np.uint8 if image.mode == "L" else np.uint32)
            across, down = (_weights(side) if side <= _USUAL else _weights.__wrapped__(side) for side in image.size)
            return bytes(_shrink(pixels, width, height, *across, *down))
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS).tobytes()


def hash_small(small: Sequence[bytes]) -> U64:
    """Return uint64[n], the hashes of images that `shrink` returned."""
    from scipy.fftpack import dct  # imported here, because it takes 0.5 s, which a run without phash need not spend

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


@lru_cache(256)  # about 20 kB each
@njit(nogil=True, cache=True)
def _weights(side: Any) -> Any:
    """Return for each of 32 pixels its first input and number of inputs, int64[32, 2], and the weights, int32[32, ...].

    The order of operations and the rounding are the same as in Pillow's Resample.c.
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
    """Return a gray image, uint8[32, 32], from uint8 or (colors) uint32[height * width].

    Like Pillow, it shrinks rows first.
    """
    narrow = np.empty((SIDE, height), np.int32)  # the second step sums its columns
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
