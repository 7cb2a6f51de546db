"""Near-duplicates: from pairs that are close to groups, and from groups to the key of a deduplication pass.

A group is a connected component of the pairs (single linkage): whatever is joined by a chain of close pairs is one
group. What is joined are nodes, uint64 numbers: perceptual hashes themselves (`hamming`), or rows of units
(`row_ids`, for `cosine`). In: edges, uint64[e, 2], found anywhere and in any order, each verified where it was found.
Out: of each node in a group its label, the group's smallest node; so labels depend on the set of edges only, and not
on how they were found, split or ordered. A column of labels is a key column of `dedup`, which then chooses the
survivor as it does between equal keys: the best by `prefer`, then the smallest uid, then by content.

Any part of the edges may be replaced by another set with the same components: `edges_in_bucket` and `edges_in_cell`
return spanning forests, so n equal rows give n − 1 edges; merged groups take 16 bytes a node.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numba import njit

from curate.numeric.arrays import I32, I64, U64, distinct

_ROW_BITS = np.uint64(32)
_MERGE = 1 << 20  # edges that wait to be merged


@dataclass(frozen=True)
class Groups:
    """The connected components of some edges."""

    nodes: U64  # ascending: every node that has an edge to another
    labels: U64  # of each, the smallest node of its group

    @classmethod
    def of(cls, edges: U64) -> Self:
        """Return the groups that the edges (uint64[e, 2]) make; an edge of a node to itself makes none."""
        edges = edges[edges[:, 0] != edges[:, 1]]
        nodes = distinct(edges.reshape(-1))
        parent = np.arange(len(nodes))
        _union(parent, np.searchsorted(nodes, edges[:, 0]), np.searchsorted(nodes, edges[:, 1]))
        return cls(nodes, nodes[parent])

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


def forest(parts: Iterable[U64]) -> U64:
    """Return edges with the same components as all parts together, at most one a node (all uint64[e, 2]).

    Parts are merged as they come, so that memory is that of the nodes.
    """
    merged, waiting, size = np.zeros((0, 2), np.uint64), [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size > _MERGE + len(merged):
            merged, waiting, size = Groups.of(np.concatenate([merged, *waiting])).edges, [], 0
    return Groups.of(np.concatenate([merged, *waiting])).edges


def row_ids(unit: int, rows: I64 | I32) -> U64:
    """Return the node of each row of a unit: the unit's number in the high 32 bits, the row in the low ones (uint64[n])."""
    return np.uint64(unit) << _ROW_BITS | rows.astype(np.uint64)


def rows_of(nodes: U64) -> tuple[I32, I32]:
    """Return the unit and the row of each node: the inverse of `row_ids` (int32[n] each)."""
    return (nodes >> _ROW_BITS).astype(np.int32), (nodes & np.uint64(0xFFFFFFFF)).astype(np.int32)


def hash_keys(hashes: pa.Array, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close hashes: each hash's label (uint64[rows]; null where the hash is)."""
    if isinstance(hashes, pa.ChunkedArray):
        hashes = hashes.combine_chunks()
    null = hashes.is_null().to_numpy(zero_copy_only=False)
    numbers = hashes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    return pa.array(groups.label(numbers), mask=null)


def row_keys(unit: int, n_rows: int, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close rows: the label of each row in a group (uint64[rows]), null for the others."""
    ends = np.array([unit << 32, (unit << 32) + n_rows], np.uint64)
    mine = slice(*np.searchsorted(groups.nodes, ends))  # nodes are ascending: no other unit's are looked at
    rows = rows_of(groups.nodes[mine])[1]
    keys, null = np.zeros(n_rows, np.uint64), np.ones(n_rows, bool)
    keys[rows], null[rows] = groups.labels[mine], False
    return pa.array(keys, mask=null)


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
