"""Finds pairs of image embeddings whose cosine is at least x, each verified exactly, and nearest evaluation images.

Candidates are the pairs that meet in one of the cells of `cells`. A float32 matrix product screens them with a margin
above its maximum error; the rest is decided by a·b / √(a·a · b·b) ≥ x in float64, summed in the order of dimensions. So
the found edges do not depend on the order of rows, blocks, threads or processors.

In: vectors, float16 or float32[n, d], of length about 1, and their nodes (`groups.row_ids`). Unusable rows (null, zero,
or with NaN or infinity) have no edges. Out: the groups formed by close pairs, with the largest cosine of each node's
pairs. A cosine of at least `ALIKE` counts as 1. Otherwise, a placeholder image that occurs a hundred thousand times,
with embeddings that differ by rounding, would be compared with all its copies to find the last digits.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from curate.base.numeric.arrays import F32, F64, I16, I64, U64, Mask, Vectors
from curate.base.numeric.spherical import blocks, split
from curate.base.numeric.vectors import dot, squares
from curate.decide.dedup import cells
from curate.decide.dedup.groups import Groups, find

ALIKE = 0.9999


def groups_in_cell(nodes: U64, vectors: Vectors, home: Mask, cosine: float) -> Groups:
    """Return the groups of close pairs among a cell's rows: its own and its visitors.

    At least one row of each pair has its home in this cell.
    """
    order = np.flatnonzero(cells.usable(vectors))
    order = order[np.argsort(~home[order], kind="stable")]
    nodes, vectors = nodes[order], vectors[order]
    first, copies = equal_rows(nodes, vectors)
    pairs, nearest = _close_pairs(vectors[first], int(np.count_nonzero(home[order][first])), cosine)
    groups = Groups.of(np.concatenate([nodes[first][pairs], copies]))
    return groups.with_nearest([(nodes[first], nearest), *_alike(copies)])


def groups_of_copies(copies: U64) -> Groups:
    """Return the groups of equal rows, by pairs of nodes (uint64[e, 2])."""
    return Groups.of(copies).with_nearest(_alike(copies))


def _alike(pairs: U64) -> list[tuple[U64, F32]]:
    return [(nodes, np.ones(len(nodes), np.float32)) for nodes in pairs.T]


def nearest(vectors: Vectors, evaluation: Vectors, cosine: float) -> I64:
    """Return the index of the evaluation row that is nearest to each row (int64[n]), or −1 if it is not near enough.

    Near enough means that the cosine is at least `cosine`. On a tie, the first wins.
    """
    chosen = np.full(len(vectors), -1, np.int64)
    others = split(np.flatnonzero(cells.usable(evaluation)))
    for rows in split(np.flatnonzero(cells.usable(vectors))):
        a = vectors[rows].astype(np.float32)
        best, index = np.full(len(rows), cosine), np.full(len(rows), -1, np.int64)
        for targets in others:
            b = evaluation[targets].astype(np.float32)
            _keep_nearest(a @ b.T, a, b, targets, best, index)
        chosen[rows] = index
    return chosen


def recall_counts(vectors: Vectors, cell_of: I16, sample: Vectors, sample_cells: I16, cosine: float) -> I64:
    """Return the number of close pairs of a sample with a part's rows, and how many of them meet in a cell (int64[2]).

    The sums over all parts give the recall of the candidates, because the sample is compared with everything. Pairs of
    equal rows, which always meet, are not counted; pairs within the sample are counted twice. `cell_of` and
    `sample_cells` are from `cells.visits`.
    """
    counts = np.zeros(2, np.int64)
    others = split(np.flatnonzero(sample_cells[:, 0] >= 0))
    for rows in split(np.flatnonzero(cell_of[:, 0] >= 0)):
        a = vectors[rows].astype(np.float32)
        for targets in others:
            b = sample[targets].astype(np.float32)
            i, j = _close(a @ b.T, a, b, cosine)
            differ = (a[i] != b[j]).any(axis=1)
            of_a, of_b = cell_of[rows[i[differ]]], sample_cells[targets[j[differ]]]
            met = (of_a == of_b[:, :1]).any(axis=1) | (of_b == of_a[:, :1]).any(axis=1)
            counts += np.array([len(met), np.count_nonzero(met)])
    return counts


def equal_rows(nodes: U64, vectors: Vectors) -> tuple[I64, U64]:
    """Return the first of each set of equal rows (int64), and edges from other rows to it (uint64[e, 2]).

    This way, a row that occurs a million times is compared once.
    """
    _, first, group = np.unique(cells.row_hashes(vectors), return_index=True, return_inverse=True)
    first_equal = first[group]
    for rows in split(np.flatnonzero(first_equal != np.arange(len(first_equal)))):
        differ = (vectors[rows] != vectors[first_equal[rows]]).any(axis=1)
        first_equal[rows[differ]] = rows[differ]  # same hash, different bytes: compared like other rows
    is_first = first_equal == np.arange(len(first_equal))
    copies = np.flatnonzero(~is_first)
    return np.flatnonzero(is_first), np.stack([nodes[first_equal[copies]], nodes[copies]], axis=1)


class _Forest(NamedTuple):
    parent: I64  # [n], see `groups.find`
    edges: I64  # [n, 2], a spanning forest
    joins: I64  # [1], the number of edges
    nearest: F64  # [n], the largest cosine of each row's pairs; 0 without pairs


def _close_pairs(vectors: Vectors, members: int, cosine: float) -> tuple[I64, F32]:
    """Return a spanning forest (int64[e, 2]) of the close pairs with at least one of the first `members` rows.

    Also returns the largest cosine of each row's close pairs (float32[n]), 1 from `ALIKE` on, 0 without pairs.
    """
    points, n = vectors.astype(np.float32), len(vectors)
    lengths = squares(points)
    forest = _Forest(np.arange(n), np.zeros((n, 2), np.int64), np.zeros(1, np.int64), np.zeros(n))
    for others in blocks(members):
        for rows in blocks(n):
            if rows.start >= others.start:
                _join(points[rows] @ points[others].T, (rows.start, others.start), points, lengths, cosine, forest)
    return forest.edges[: forest.joins[0]], np.where(forest.nearest >= ALIKE, 1, forest.nearest).astype(np.float32)


@njit(nogil=True, cache=True)
def _cosine(a: F32, b: F32, square_a: float, square_b: float) -> float:
    """Return the exact cosine, given a·a and b·b: 1 for equal rows, and the same for (a, b) and (b, a)."""
    return float(dot(a, b) / math.sqrt(square_a * square_b))


@njit(nogil=True, cache=True)
def _limit(cosine: float, square: float, dimensions: int) -> float:
    """Return f so that pairs with at least this cosine have a float32 product a·b above f·|b|. `square` is a·a."""
    # In any order of summation, the error is at most about d · 2⁻²⁴ · |a| · |b| (Higham, "Accuracy and Stability of
    # Numerical Algorithms", section 3.1).
    return (cosine - (dimensions + 8) * 2.0**-24) * math.sqrt(square)


@njit(nogil=True, cache=True)
def _join(scores: F32, corner: tuple[int, int], points: F32, lengths: F64, cosine: float, forest: _Forest) -> None:
    """Join the close pairs of the block at (i, j) = `corner`; joined pairs may still be the nearest of a row."""
    parent, nearest, joins = forest.parent, forest.nearest, forest.joins[0]
    columns = scores.shape[1]
    roots = np.sqrt(lengths[corner[1] : corner[1] + columns])
    for r in range(scores.shape[0]):
        i = corner[0] + r
        limit = _limit(cosine, lengths[i], points.shape[1])
        for c in range(min(columns, i - corner[1])):
            if scores[r, c] >= limit * roots[c]:
                j = corner[1] + c
                a, b = find(parent, i), find(parent, j)
                best = min(nearest[i], nearest[j])
                if a == b and (best >= ALIKE or scores[r, c] < _limit(best, lengths[i], points.shape[1]) * roots[c]):
                    continue
                value = _cosine(points[i], points[j], lengths[i], lengths[j])
                if value >= cosine:
                    nearest[i], nearest[j] = max(nearest[i], value), max(nearest[j], value)
                    if a != b:
                        parent[max(a, b)] = min(a, b)
                        forest.edges[joins, 0], forest.edges[joins, 1] = j, i  # a whole row takes 2 s more to compile
                        joins += 1
    forest.joins[0] = joins


@njit(nogil=True, cache=True)
def _close(scores: F32, a: F32, b: F32, cosine: float) -> I64:
    pairs = []
    lengths_a, lengths_b = squares(a), squares(b)
    roots = np.sqrt(lengths_b)
    for i in range(len(a)):
        limit = _limit(cosine, lengths_a[i], a.shape[1])
        for j in range(len(b)):
            if scores[i, j] >= limit * roots[j] and _cosine(a[i], b[j], lengths_a[i], lengths_b[j]) >= cosine:
                pairs.append((i, j))
    out = np.empty((2, len(pairs)), np.int64)
    for p in range(len(pairs)):
        out[0, p], out[1, p] = pairs[p]
    return out


@njit(nogil=True, cache=True)
def _keep_nearest(scores: F32, a: F32, b: F32, targets: I64, best: F64, index: I64) -> None:
    """Update rows that are nearer than `best`, initially the threshold, or equally near if there was none yet."""
    lengths_a, lengths_b = squares(a), squares(b)
    roots = np.sqrt(lengths_b)
    for i in range(len(a)):
        limit = _limit(best[i], lengths_a[i], a.shape[1])
        for j in range(len(b)):
            if scores[i, j] >= limit * roots[j]:
                cosine = _cosine(a[i], b[j], lengths_a[i], lengths_b[j])
                if cosine > best[i] or (index[i] < 0 and cosine == best[i]):
                    best[i], index[i] = cosine, targets[j]
                    limit = _limit(cosine, lengths_a[i], a.shape[1])
