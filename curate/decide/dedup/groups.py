"""Near-duplicates: from pairs that are close to groups, and from groups to the key of a deduplication pass.

A group is a connected component of the pairs (single linkage): whatever is joined by a chain of close pairs is one
group. What is joined are nodes, uint64 numbers: perceptual hashes themselves (`hamming`), or rows of units
(`row_ids`, for `cosine`). In: edges, uint64[e, 2], in any order, each verified where it was found. Out: of each node in
a group its label, the group's smallest node; so labels depend on the set of edges only, and not on how they were found,
split or ordered. A column of labels is a key column of `dedup`, which then chooses the survivor as it does between
equal keys: the best by `prefer`, then the smallest uid, then by content.

Any part of the edges may be replaced by another set with the same components: `edges_in_bucket` returns a spanning
forest, so n equal hashes give n - 1 edges; merged groups take 16 bytes a node. Of close embeddings each node's
`nearest` is kept too, 4 bytes: the largest cosine of its edges, by which it is joined first, from the closest on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numba import njit

from curate.base.numeric.arrays import F32, I32, I64, U64, distinct

_ROW_BITS = np.uint64(32)
MAX_NODES = (2 << 30) // 16  # of 16 bytes each, in the 2 GiB that one message to a process may have
_MERGE = 1 << 20  # edges that wait to be merged


@dataclass(frozen=True)
class Groups:
    """The connected components of some edges."""

    nodes: U64  # ascending: every node that has an edge to another
    labels: U64  # of each, the smallest node of its group
    nearest: F32 | None = None  # of each, the largest cosine of its edges; None where edges have none

    @classmethod
    def of(cls, edges: U64) -> Self:
        """Return the groups that the edges (uint64[e, 2]) make; an edge of a node to itself makes none."""
        edges = edges[edges[:, 0] != edges[:, 1]]
        nodes = distinct(edges.reshape(-1))
        parent = np.arange(len(nodes))
        _union(parent, np.searchsorted(nodes, edges[:, 0]), np.searchsorted(nodes, edges[:, 1]))
        return cls(nodes, nodes[parent])

    @classmethod
    def join(cls, parts: Iterable["Groups"]) -> "Groups":
        """Return the groups that the edges of all parts make, merged as they come: memory is that of the nodes."""
        merged, waiting, size = cls.of(np.zeros((0, 2), np.uint64)), [], 0
        for part in parts:
            waiting.append(part)
            size += len(part.nodes)
            if size > _MERGE + len(merged.nodes):
                merged, waiting, size = cls._of_all([merged, *waiting]), [], 0
        return cls._of_all([merged, *waiting])

    @classmethod
    def _of_all(cls, parts: Sequence["Groups"]) -> "Groups":
        joined = cls.of(np.concatenate([part.edges for part in parts]))
        return joined.with_nearest((part.nodes, part.nearest) for part in parts if part.nearest is not None)

    def with_nearest(self, cosines: Iterable[tuple[U64, F32]]) -> "Groups":
        """Return the groups with `nearest`, the largest cosine of each node; of nodes in no group they are ignored."""
        nearest = None
        for nodes, values in cosines:
            nearest = np.zeros(len(self.nodes), np.float32) if nearest is None else nearest
            if len(self.nodes):
                places = np.minimum(np.searchsorted(self.nodes, nodes), len(self.nodes) - 1)
                known = self.nodes[places] == nodes
                np.maximum.at(nearest, places[known], values[known])
        return replace(self, nearest=nearest)

    @property
    def edges(self) -> U64:
        """Edges with these components, one a node that is not its group's label (uint64[e, 2])."""
        changed = self.nodes != self.labels
        return np.stack([self.labels[changed], self.nodes[changed]], axis=1)

    def label(self, nodes: U64) -> U64:
        """Return the label of each node (uint64[n]); of one without an edge, itself."""
        if not len(self.nodes):
            return nodes.copy()
        places = np.minimum(np.searchsorted(self.nodes, nodes), len(self.nodes) - 1)
        return np.where(self.nodes[places] == nodes, self.labels[places], nodes)


def row_ids(unit: int, rows: I64 | I32) -> U64:
    """Return the node of each row of a unit (uint64[n]): the unit in the high 32 bits, the row in the low ones."""
    return np.uint64(unit) << _ROW_BITS | rows.astype(np.uint64)


def rows_of(nodes: U64) -> tuple[I32, I32]:
    """Return the unit and the row of each node: the inverse of `row_ids` (int32[n] each)."""
    return (nodes >> _ROW_BITS).astype(np.int32), (nodes & np.uint64(0xFFFFFFFF)).astype(np.int32)


def label_hashes(hashes: pa.Array, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close hashes: each hash's label (uint64[rows]; null where the hash is)."""
    null = hashes.is_null().to_numpy(zero_copy_only=False)
    return pa.array(groups.label(hashes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)), mask=null)


def row_keys(unit: int, n_rows: int, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close rows: the label of each row (uint64[rows]), null in no group."""
    nodes, rows = _of_unit(unit, n_rows, groups)
    keys, null = np.zeros(n_rows, np.uint64), np.ones(n_rows, bool)
    keys[rows], null[rows] = groups.labels[nodes], False
    return pa.array(keys, mask=null)


def row_nearest(unit: int, n_rows: int, groups: Groups) -> F32:
    """Return `Groups.nearest` of each row of a unit (float32[rows]); 0 of rows that are in none."""
    nodes, rows = _of_unit(unit, n_rows, groups)
    cosines = np.zeros(n_rows, np.float32)
    if groups.nearest is not None:
        cosines[rows] = groups.nearest[nodes]
    return cosines


def _of_unit(unit: int, n_rows: int, groups: Groups) -> tuple[slice, I32]:
    """Return where the nodes of a unit are, which ascend as all do, and their rows."""
    ends = np.array([unit << 32, (unit << 32) + n_rows], np.uint64)
    nodes = slice(*np.searchsorted(groups.nodes, ends))
    return nodes, rows_of(groups.nodes[nodes])[1]


@njit(nogil=True, cache=True)
def find(parent: I64, node: int) -> int:
    """Return the root of a node's tree; shortens the path to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True)
def _union(parent: I64, left: I64, right: I64) -> None:
    """Join each pair; afterwards every node's parent is the smallest node of its component."""
    for i in range(len(left)):
        a, b = find(parent, left[i]), find(parent, right[i])
        # The smaller root stays one, so that a root is its component's smallest node.
        parent[max(a, b)] = min(a, b)
    for node in range(len(parent)):
        parent[node] = find(parent, node)
