"""Divides embeddings into cells. Only rows that meet in a cell are compared: nearly all close pairs, and few others.

The space is divided around centroids by spherical k-means on a sample (IVF: Sivic and Zisserman, "Video Google", ICCV
2003; SemDeDup: Abbas et al., 2023). A row's home is the cell of its nearest centroid, and it visits the cells of the
next ones. A cell compares its own rows with each other and with its visitors, so a pair is missed only if neither row
visits the other's home. `VISITS` trades work for recall, which `cosine.recall_counts` measures.

Cells do not depend on the order of rows, blocks, threads, the processor or the matrix library: embeddings and centroids
are rounded to integers whose products float32 sums exactly (`spherical`), and of equally near centroids the first
counts. The sample is chosen and ordered by a hash of its rows' bytes.

In: vectors, float16 or float32[n, d]. Out: int16[n, VISITS] cells, home first; −1 where a row is not `usable`.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import xxhash
from numba import njit

from curate.base.numeric.arrays import F32, I16, I64, U64, Mask, Vectors, split_by
from curate.base.numeric.spherical import add_points, blocks, mean_directions, rounded, split
from curate.base.numeric.vectors import squares

WHOLE = 32_768  # up to this many rows, all pairs are compared
VISITS = 8  # cells in which a row is compared, including its home

PROBED = 16  # the `sample_rows` for this many cells are compared with all rows to estimate the recall: 512

_MAX_CELLS = 1 << 14  # so that int16 holds twice their number
_SAMPLED = 32  # sample rows per cell
_ROUNDS = 8
_TINY, _HUGE = 1e-30, 1e30  # bounds on the squared length of usable rows


def cell_count(rows: int) -> int:
    """Return the number of cells for usable rows: about √(VISITS · rows), which minimizes the work."""
    return 1 if rows <= WHOLE else min(_MAX_CELLS, 1 << round(math.log2(VISITS * rows) / 2))


def sample_rows(vectors: Vectors, rows: int, cells: int) -> I64:
    """Return a part's usable rows that are in the sample (int64, ascending), chosen by their bytes, without repeats.

    The sample has about 32 rows per cell, for `train`; `rows` is the number of usable rows in all parts.
    """
    hashes, first = np.unique(row_hashes(vectors), return_index=True)
    return np.sort(first[hashes < 2.0**64 * min(1.0, _SAMPLED * cells / max(rows, 1))])


def train(sample: Vectors, cells: int) -> F32:
    """Return centroids by spherical k-means on the sample's distinct rows, in any order.

    They are integers (float32[c, d]); their number is `cells`, or that of distinct rows if smaller, but at least 1.
    """
    if cells == 1 or not len(sample):
        return np.zeros((1, sample.shape[1]), np.float32)
    points = rounded(sample[np.unique(row_hashes(sample), return_index=True)[1]])
    centroids = points[:cells].copy()
    for _ in range(_ROUNDS):
        sums = np.zeros(centroids.shape)
        add_points(points, _nearest_centroids(points, centroids, 1)[:, 0], sums)
        centroids = mean_directions(centroids, sums)
    return centroids


def visits(vectors: Vectors, centroids: F32, among: Mask | None = None) -> I16:
    """Return the cells of each row, home first (int16[n, min(VISITS, centroids)]); −1 for rows not in `among`."""
    out = np.full((len(vectors), min(VISITS, len(centroids))), -1, np.int16)
    for rows in split(np.flatnonzero(usable(vectors) if among is None else usable(vectors) & among)):
        out[rows] = _nearest_centroids(rounded(vectors[rows]), centroids, out.shape[1])
    return out


def cell_rows(cell_of: I16) -> Iterator[tuple[int, I64, int]]:
    """Yield each visited cell: its number, its rows, and how many of them have their home there.

    Rows (int64) are ascending, home rows first. Memory is about 32 bytes per row, as cells are processed in ranges.
    """
    cells, visited = int(cell_of.max(initial=-1)) + 1, cell_of.shape[1]
    by_visit = [np.bincount(column + 1, minlength=cells + 1) for column in cell_of.T]
    ends = np.cumsum(np.sum(by_visit, axis=0)[1:])
    ranges = np.flatnonzero(np.diff(ends // (len(cell_of) // 2 + 1), prepend=-1))  # about half a visit per row
    for first, last in pairwise([*ranges.tolist(), cells]):
        visits = np.flatnonzero((cell_of >= first) & (cell_of < last))
        numbers = 2 * (cell_of.ravel()[visits] - first) + (visits % visited > 0)
        parts = split_by(visits // visited, numbers, 2 * (last - first))
        for cell, (home, away) in enumerate(zip(parts[::2], parts[1::2], strict=True), first):
            if len(home) or len(away):
                yield cell, np.concatenate([home, away]), len(home)


def usable(vectors: Vectors) -> Mask:
    """Return which rows have a direction (bool[n]): all values finite, and not zero."""
    lengths = np.concatenate([np.zeros(0), *(squares(vectors[b].astype(np.float32)) for b in blocks(len(vectors)))])
    return np.asarray((lengths > _TINY) & (lengths < _HUGE))  # false for NaN


def row_hashes(vectors: Vectors) -> U64:
    """Return xxh3-64 of each row's bytes (uint64[n])."""
    size, digest = vectors.shape[1] * vectors.itemsize, xxhash.xxh3_64_intdigest
    out = np.empty(len(vectors), np.uint64)
    for block in blocks(len(vectors)):
        view = memoryview(np.ascontiguousarray(vectors[block]).tobytes())
        out[block] = [digest(view[at : at + size]) for at in range(0, len(view), size)]
    return out


def _nearest_centroids(points: F32, centroids: F32, count: int) -> I16:
    """Return the `count` centroids with the largest product with each rounded point, best first (int16[n, count])."""
    out = np.zeros((len(points), count), np.int16)
    for block in blocks(len(points)):
        _best_columns(points[block] @ centroids.T, out[block])
    return out


@njit(nogil=True, cache=True)
def _best_columns(scores: F32, out: I16) -> None:
    """Return the columns of the largest scores of each row, best first; of ties the first column first."""
    count = out.shape[1]
    best = np.empty(count, scores.dtype)
    for i in range(scores.shape[0]):
        best[:] = -np.inf
        for c in range(scores.shape[1]):
            score = scores[i, c]
            if score > best[count - 1]:
                k = count - 1
                while k > 0 and best[k - 1] < score:
                    best[k], out[i, k] = best[k - 1], out[i, k - 1]
                    k -= 1
                best[k], out[i, k] = score, c
