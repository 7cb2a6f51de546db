"""Directions of embeddings, rounded to integers so that sums and products are exact, and products in blocks of rows.

Rounded rows consist of small integers: every partial sum of a product of two rows is below 2²⁴, which float32
represents exactly. So such products and sums are exact in any order. Rows that are not rounded are multiplied in blocks
of one shape, because a library always uses the same order of summation for one shape. So a row's product does not
depend on its neighbors.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from curate.base.numeric.arrays import F32, F64, I32, I64, Vectors
from curate.base.numeric.vectors import dot, squares

_BLOCK = 2048
_PRODUCTS = 1 << 23  # maximum number of products in a block: 64 MB


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover [0, size). They are so small that the product of two blocks fits into the cache."""
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))


def split(rows: I64) -> list[I64]:
    """Return rows in blocks."""
    return [rows[block] for block in blocks(len(rows))]


def scale(dimensions: int) -> int:
    """Return the length to which rows are rounded: at most 4095 after rounding, so that products are below 2²⁴."""
    return math.floor(4095 - math.sqrt(dimensions) / 2)


def rounded(vectors: Vectors) -> F32:
    """Return the directions of nonzero rows as integers (float32[n, d])."""
    out = np.empty(vectors.shape, np.float32)
    for block in blocks(len(vectors)):
        rows = vectors[block].astype(np.float64)
        out[block] = np.rint(rows / np.sqrt(squares(rows))[:, None] * scale(vectors.shape[1]))
    return out


def mean_directions(centroids: F32, sums: F64) -> F32:
    """Return the new centroids, rounded like the rows.

    `sums` has each cluster's sum of rounded rows. A cluster without rows keeps its centroid.
    """
    lengths = np.sqrt(squares(sums))
    moved, out = lengths > 0, centroids.copy()
    out[moved] = np.rint(sums[moved] / lengths[moved, None] * scale(centroids.shape[1]))
    return out


@njit(nogil=True, cache=True)
def add_points(points: F32, cells: Any, sums: F64) -> None:
    """Add each point to the sum of its cell. The sums are exact, because they are integers."""
    for i in range(len(points)):
        for k in range(points.shape[1]):
            sums[cells[i], k] += points[i, k]


@njit(nogil=True, cache=True)
def cosine_distances(rows: F32, centroids: F32, cells: I32) -> F64:
    """Return 1 − cos between each row and its centroid (float64[n]), added up in the order of dimensions."""
    out = np.empty(len(rows))
    for i in range(len(rows)):
        row, centroid = rows[i], centroids[cells[i]]
        out[i] = 1.0 - dot(row, centroid) / np.sqrt(dot(row, row) * dot(centroid, centroid))
    return out


def padded(rows: npt.NDArray[Any], others: int) -> Iterator[tuple[slice, F32]]:
    """Yield float32 blocks of one shape, each with the slice of its rows. The last block is padded with zeros.

    `others` determines the shape. The next block uses the same memory again.
    """
    size = min(_BLOCK, max(64, 1 << (_PRODUCTS // max(1, others)).bit_length() - 1))
    block = np.zeros((size, rows.shape[1]), np.float32)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        block[: len(part)] = part
        block[len(part) :] = 0
        yield slice(start, start + len(part)), block
