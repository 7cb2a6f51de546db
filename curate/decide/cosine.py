"""Image embeddings whose cosine is at least x: pairs found in cells, and each verified exactly.

Candidates: the space is cut into cells around centroids (spherical k-means of a sample; Sivic and Zisserman, "Video
Google", ICCV 2003, called IVF in index libraries; within clusters, as in Abbas et al., "SemDeDup", 2023). A row is at
home in the cell of its nearest centroid and visits those of the next ones; each cell compares its own rows with each
other and with all visitors, by blocked matrix products. A pair is missed only where neither row visits the other's
home; `recall_counts` measures how often. A pool of at most `WHOLE` rows is one cell, compared in full.

Nothing depends on the order of rows, on blocks, threads or processors, though float sums do:
- Cells. Embeddings and centroids are rounded to integers so small that every partial sum of a product is an integer
  below 2²⁴, which float32 holds: a matrix product of any library in any order is exact, and of equally near centroids
  the first counts. The sample is chosen and ordered by a hash of the rows' bytes.
- Edges. The float32 product screens with a margin above its largest possible error; what passes is decided by
  a·b / √(a·a · b·b) ≥ x in float64, summed in the order of dimensions (of float16 values this sum is exact).

In: vectors, float16 or float32[n, d], of length about 1, and the nodes that stand for them (`near.row_ids`). A row that
is null, NaN or infinite somewhere, or zero, has no edge. Out: a spanning forest of the edges found, uint64[e, 2].
"""

import itertools
import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import xxhash
from numba import njit

from curate.decide.near import I32, I64, U64, Mask, find, forest

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Block = TypeVar("Block", bound=npt.NDArray[np.generic])

WHOLE = 32_768  # rows up to which all are compared
VISITS = 8  # cells that a row is compared in, its home included
SAMPLED = 32  # rows of the sample for each cell

_MAX_CELLS = 1 << 14
_ROUNDS = 8
_BLOCK = 2048
_TINY, _HUGE = 1e-30, 1e30  # squared lengths between which a row is usable


def cell_count(rows: int) -> int:
    """How many cells a pool of so many usable rows is cut into: about √(VISITS · rows), as work is least there."""
    return 1 if rows <= WHOLE else min(_MAX_CELLS, 1 << round(math.log2(math.sqrt(VISITS * rows))))


def usable(vectors: Vectors) -> Mask:
    """Which rows can have edges (bool[n]): finite throughout, and not zero."""
    lengths = np.concatenate([np.zeros(0), *[_squares(block.astype(np.float32)) for block in _blocks(vectors)]])
    return (lengths > _TINY) & (lengths < _HUGE)  # false for NaN


def row_hashes(vectors: Vectors) -> U64:
    """xxh3-64 of each row's bytes (uint64[n])."""
    rows = np.ascontiguousarray(vectors)
    data, size = memoryview(rows.view(np.uint8).reshape(-1)), rows.shape[1] * rows.itemsize
    starts = range(0, len(data), size or 1)
    return np.fromiter((xxhash.xxh3_64_intdigest(data[i : i + size]) for i in starts), np.uint64, len(rows))


def sample_rows(vectors: Vectors, rows: int, cells: int) -> I64:
    """This part's rows of the sample that `train` wants (int64, ascending): of each distinct row, by its hash.

    Args:
        vectors: usable rows, of a unit or of all.
        rows: how many usable rows there are in all units.
        cells: `cell_count(rows)`.
    """
    limit = min(1.0, SAMPLED * cells / max(rows, 1)) * 2.0**64
    hashes, first = np.unique(row_hashes(vectors), return_index=True)
    return np.sort(first[hashes.astype(np.float64) < limit])


def train(sample: Vectors, cells: int) -> F32:
    """Centroids by spherical k-means of the sample's distinct rows, in any order.

    Returns:
        float32[c, d] of integers: min(cells, distinct rows) centroids, but at least one.
    """
    if cells == 1 or not len(sample):
        return np.zeros((1, sample.shape[1]), np.float32)
    points = _rounded(sample[np.unique(row_hashes(sample), return_index=True)[1]])
    centroids = points[:cells].copy()
    for _ in range(_ROUNDS):
        sums = np.zeros(centroids.shape)
        for block in _blocks(points):
            _add(block, _nearest_centroids(block, centroids, 1)[:, 0], sums)
        lengths = np.sqrt(_squares(sums))
        moved = lengths > 0
        centroids[moved] = np.rint(sums[moved] / lengths[moved, None] * _scale(sums.shape[1]))
    return centroids


def visits(vectors: Vectors, centroids: F32) -> I32:
    """The cells of each row, home first (int32[n, min(VISITS, cells)]); −1 throughout where it is not usable."""
    out = np.full((len(vectors), min(VISITS, len(centroids))), -1, np.int32)
    good = np.flatnonzero(usable(vectors))
    for rows in _blocks(good):
        out[rows] = _nearest_centroids(_rounded(vectors[rows]), centroids, out.shape[1])
    return out


def edges_in_cell(nodes: U64, vectors: Vectors, home: Mask, cosine: float) -> U64:
    """A spanning forest of the pairs of a cell, at least one of them at home, whose cosine is at least `cosine`.

    Args:
        nodes: uint64[m], the rows that visit the cell.
        vectors: [m, d], their embeddings.
        home: bool[m], whether the cell is their home.
        cosine: x, above 0 and at most 1.

    Returns:
        uint64[e, 2]
    """
    good = usable(vectors)
    nodes, vectors, home = nodes[good], vectors[good], home[good]
    order = np.argsort(~home, kind="stable")
    nodes, vectors = nodes[order], vectors[order]
    same = _equals(vectors, cosine)
    first = np.flatnonzero(same == np.arange(len(nodes)))
    copies = np.flatnonzero(same != np.arange(len(nodes)))
    pairs = _close_pairs(vectors[first], int(np.count_nonzero(home[order][first])), cosine)
    return np.concatenate([nodes[first][pairs], np.stack([nodes[same[copies]], nodes[copies]], axis=1)])


def edges(nodes: U64, vectors: Vectors, cosine: float) -> U64:
    """A spanning forest of the pairs found, over all rows in one process (uint64[e, 2]).

    `vectors` may be mapped from a file: it is read in blocks, and cell by cell. Beyond it, memory is that of one cell
    and 16 bytes a row and visit.
    """
    good = np.flatnonzero(usable(vectors))
    cells = cell_count(len(good))
    if cells == 1:
        return edges_in_cell(nodes[good], vectors[good], np.ones(len(good), bool), cosine)
    chosen = [rows[sample_rows(vectors[rows], len(good), cells)] for rows in _blocks(good)]
    centroids = train(vectors[np.concatenate(chosen)], cells)
    cell_of = visits(vectors, centroids)
    return forest(edges_in_cell(nodes[rows], vectors[rows], home, cosine) for rows, home in cell_rows(cell_of))


def cell_rows(cell_of: I32) -> Iterator[tuple[I64, Mask]]:
    """For each cell that is some row's home, the rows that visit it (int64), and whether it is their home (bool)."""
    width = cell_of.shape[1]
    flat = cell_of.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(flat.max(initial=-1) + 2))
    for begin, end in itertools.pairwise(starts):
        places = order[begin:end]
        home = places % width == 0
        if home.any() and len(places) > 1:
            yield places // width, home


def nearest(vectors: Vectors, evaluation: Vectors, cosine: float) -> I64:
    """Of each row the nearest evaluation row whose cosine is at least `cosine`, by comparing all.

    Args:
        vectors: [n, d], of the pool.
        evaluation: [m, d].
        cosine: x, above 0 and at most 1.

    Returns:
        int64[n]: its index, the lowest of equally near ones; −1 where there is none.
    """
    _check(cosine)
    chosen = np.full(len(vectors), -1, np.int64)
    theirs = np.flatnonzero(usable(evaluation))
    for rows in _blocks(np.flatnonzero(usable(vectors))):
        a = vectors[rows].astype(np.float32)
        best, index = np.full(len(rows), cosine), np.full(len(rows), -1, np.int64)
        for targets in _blocks(theirs):
            b = evaluation[targets].astype(np.float32)
            _keep_nearest(a @ b.T, a, b, _squares(a), _squares(b), targets, best, index)
        chosen[rows] = index
    return chosen


def recall_counts(vectors: Vectors, cell_of: I32, sample: Vectors, sample_cells: I32, cosine: float) -> I64:
    """How many close pairs of a sample row and a row there are, and how many of them meet in a cell (int64[2]).

    The sums over all units give the recall of the candidates, by exact comparison of the sample with everything.
    Equal rows always meet, and are not counted.

    Args:
        vectors, cell_of: the unit's embeddings and their `visits`.
        sample, sample_cells: likewise of the sample, some rows chosen by hash.
        cosine: x, above 0 and at most 1.
    """
    _check(cosine)
    counts = np.zeros(2, np.int64)
    theirs = np.flatnonzero(sample_cells[:, 0] >= 0)
    for rows in _blocks(np.flatnonzero(cell_of[:, 0] >= 0)):
        a = vectors[rows].astype(np.float32)
        for targets in _blocks(theirs):
            b = sample[targets].astype(np.float32)
            i, j = _close(a @ b.T, a, b, _squares(a), _squares(b), cosine)
            differ = (a[i] != b[j]).any(axis=1)
            i, j = i[differ], j[differ]
            one, other = cell_of[rows[i]], sample_cells[targets[j]]
            met = (one == other[:, :1]).any(axis=1) | (other == one[:, :1]).any(axis=1)
            counts += [len(met), np.count_nonzero(met)]
    return counts


def _blocks(values: Block) -> Iterator[Block]:
    for start in range(0, len(values), _BLOCK):
        yield values[start : start + _BLOCK]


def _check(cosine: float) -> None:
    if not 0 < cosine <= 1:
        raise ValueError(f"the cosine is {cosine}; accepted: above 0, at most 1")


def _scale(dimensions: int) -> float:
    """The length to which embeddings are rounded: with the rounding at most 4095, so products stay below 2²⁴."""
    return math.floor(4095 - math.sqrt(dimensions) / 2)


def _rounded(vectors: Vectors) -> F32:
    """Usable rows as integers: their directions, rounded at length `_scale` (float32[n, d])."""
    out = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)
        lengths = np.sqrt(_squares(block))
        out[start : start + _BLOCK] = np.rint(block / lengths[:, None] * _scale(vectors.shape[1]))
    return out


def _nearest_centroids(points: F32, centroids: F32, count: int) -> I32:
    """The `count` centroids with the largest product with each rounded point, best first (int32[n, count])."""
    out = np.zeros((len(points), count), np.int32)
    for start in range(0, len(points), _BLOCK):
        _best_columns(points[start : start + _BLOCK] @ centroids.T, out[start : start + _BLOCK])
    return out


def _equals(vectors: Vectors, cosine: float) -> I64:
    """Of each row the first one with the same bytes (int64[n]), so that what is pasted a million times is compared once."""
    _, first, inverse = np.unique(row_hashes(vectors), return_index=True, return_inverse=True)
    same = first[inverse]
    copies = np.flatnonzero(same != np.arange(len(same)))
    for rows in _blocks(copies):
        if (vectors[rows] != vectors[same[rows]]).any():  # two rows of one hash: each is its own
            differ = (vectors[rows] != vectors[same[rows]]).any(axis=1)
            same[rows[differ]] = rows[differ]
    return same


def _close_pairs(vectors: Vectors, members: int, cosine: float) -> I64:
    """A spanning forest of the close pairs of which at least one is among the first `members` rows (int64[e, 2])."""
    _check(cosine)
    points = vectors.astype(np.float32)
    squares = _squares(points)
    parent, tree = np.arange(len(points)), np.zeros((len(points), 2), np.int64)
    found = 0
    for j in range(0, members, _BLOCK):
        theirs = slice(j, min(j + _BLOCK, members))
        for i in range(j, len(points), _BLOCK):
            ours = slice(i, i + _BLOCK)
            scores = points[ours] @ points[theirs].T
            found = _join(scores, points, squares, (i, j), cosine, parent, tree, found)
    return tree[:found]


@njit(nogil=True, cache=True)
def _squares(points: F32 | F64) -> F64:
    """a·a of each row, in float64 and in the order of dimensions."""
    out = np.empty(len(points))
    for i in range(len(points)):
        out[i] = _dot(points[i], points[i])
    return out


@njit(nogil=True, cache=True)
def _dot(a: F32 | F64, b: F32 | F64) -> float:
    total = 0.0
    for k in range(len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    return total


@njit(nogil=True, cache=True)
def _cosine(a: F32, b: F32, square_a: float, square_b: float) -> float:
    """The cosine that decides: 1 for equal rows, and the same for (a, b) and (b, a)."""
    return _dot(a, b) / math.sqrt(square_a * square_b)


@njit(nogil=True, cache=True)
def _limit(cosine: float, square: float, dimensions: int) -> float:
    """What |b| times it is below every float32 product a·b of a pair with at least this cosine; `square` is a·a.

    However a product is summed, its error is at most about d · 2⁻²⁴ · |a| · |b| (Higham, "Accuracy and Stability of
    Numerical Algorithms", section 3.1).
    """
    return (cosine - (dimensions + 8) * 2.0**-24) * math.sqrt(square)


@njit(nogil=True, cache=True)
def _join(
    scores: F32, points: F32, squares: F64, block: tuple[int, int], cosine: float, parent: I64, tree: I64, found: int
) -> int:
    """Joins the close pairs of the block of rows that begins at (i, j) which are not joined yet; counts all joins."""
    first, second = block
    columns = scores.shape[1]
    roots = np.sqrt(squares[second : second + columns])
    for r in range(scores.shape[0]):
        i = first + r
        limit = _limit(cosine, squares[i], points.shape[1])
        for c in range(min(columns, i - second)):
            # Not "at least": what is not a number, after an overflow, is left to float64.
            if not scores[r, c] < limit * roots[c]:
                j = second + c
                a, b = find(parent, i), find(parent, j)
                if a != b and _cosine(points[i], points[j], squares[i], squares[j]) >= cosine:
                    parent[max(a, b)] = min(a, b)
                    tree[found, 0], tree[found, 1] = j, i
                    found += 1
    return found


@njit(nogil=True, cache=True)
def _close(scores: F32, a: F32, b: F32, squares_a: F64, squares_b: F64, cosine: float) -> I64:
    """All close pairs of a block (int64[2, p])."""
    pairs = []
    roots = np.sqrt(squares_b)
    for i in range(len(a)):
        limit = _limit(cosine, squares_a[i], a.shape[1])
        for j in range(len(b)):
            if not scores[i, j] < limit * roots[j] and _cosine(a[i], b[j], squares_a[i], squares_b[j]) >= cosine:
                pairs.append((i, j))
    out = np.empty((2, len(pairs)), np.int64)
    for p in range(len(pairs)):
        out[0, p], out[1, p] = pairs[p]
    return out


@njit(nogil=True, cache=True)
def _keep_nearest(
    scores: F32, a: F32, b: F32, squares_a: F64, squares_b: F64, targets: I64, best: F64, index: I64
) -> None:
    """Takes over what is nearer than `best`, the threshold at first, or as near where there was nothing yet."""
    roots = np.sqrt(squares_b)
    for i in range(len(a)):
        limit = _limit(best[i], squares_a[i], a.shape[1])
        for j in range(len(b)):
            if not scores[i, j] < limit * roots[j]:
                cosine = _cosine(a[i], b[j], squares_a[i], squares_b[j])
                if cosine > best[i] or (index[i] < 0 and cosine == best[i]):
                    best[i], index[i] = cosine, targets[j]
                    limit = _limit(cosine, squares_a[i], a.shape[1])


@njit(nogil=True, cache=True)
def _best_columns(scores: F32, out: I32) -> None:
    """The columns of the largest scores of each row, best first; of equal ones the first column first."""
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


@njit(nogil=True, cache=True)
def _add(points: F32, cells: I32, sums: F64) -> None:
    for i in range(len(points)):
        for k in range(points.shape[1]):
            sums[cells[i], k] += points[i, k]
