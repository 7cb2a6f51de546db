"""Near-duplicates: turns close pairs into groups, and groups into the key of a deduplication pass.

A group is a connected component of the pairs (single linkage). Nodes are uint64 numbers: perceptual hashes (`hamming`),
or rows of units (`row_ids`, for `cosine`). In: edges, uint64[e, 2], in any order. Out: the label of each node in a
group, the smallest node of the group, regardless of how the edges were found, split or ordered. A column of labels is a
key column of `dedup`. Any edges may be replaced by others with the same components, so a spanning forest is enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numba import njit

from curate.base.numeric.arrays import F32, I32, I64, U64, distinct

_ROW_BITS = np.uint64(32)
MAX_NODES = (2 << 30) // 16  # of 16 bytes each, in the 2 GiB limit of a message to a process
_MERGE = 1 << 20  # edges merged at a time


@dataclass(frozen=True)
class Groups:
    """The connected components of some edges."""

    nodes: U64  # ascending: every node with an edge to another
    labels: U64  # for each, the smallest node of its group
    nearest: F32 | None = None  # for each, the largest cosine of its edges; None if edges have none
    # Number of near pairs of a sample of rows, and how many of them were found (int64[2]); otherwise zeros
    recall: I64 = field(default_factory=lambda: np.zeros(2, np.int64))

    @classmethod
    def of(cls, edges: U64) -> Self:
        """Return the groups formed by edges (uint64[e, 2]); an edge from a node to itself is ignored."""
        edges = edges[edges[:, 0] != edges[:, 1]]
        nodes = distinct(edges.reshape(-1))
        parent = np.arange(len(nodes))
        _union(parent, np.searchsorted(nodes, edges[:, 0]), np.searchsorted(nodes, edges[:, 1]))
        return cls(nodes, nodes[parent])

    @classmethod
    def join(cls, parts: Iterable["Groups"]) -> "Groups":
        """Return the groups formed by the edges of all parts, merged incrementally; memory depends on nodes only."""
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
        joined = replace(joined, recall=sum((part.recall for part in parts), np.zeros(2, np.int64)))
        return joined.with_nearest((part.nodes, part.nearest) for part in parts if part.nearest is not None)

    def with_nearest(self, cosines: Iterable[tuple[U64, F32]]) -> "Groups":
        """Return the groups with `nearest`, the largest cosine of each node; nodes in no group are ignored."""
        nearest = None
        for nodes, values in cosines:
            nearest = np.zeros(len(self.nodes), np.float32) if nearest is None else nearest
            index = self.index(nodes)
            is_node = index >= 0
            np.maximum.at(nearest, index[is_node], values[is_node])
        return replace(self, nearest=nearest)

    def index(self, nodes: U64) -> I64:
        """Return the index of each node in `self.nodes`, or −1 if it is not there (int64[n])."""
        if not len(self.nodes):
            return np.full(len(nodes), -1, np.int64)
        index = np.minimum(np.searchsorted(self.nodes, nodes), len(self.nodes) - 1)
        return np.where(self.nodes[index] == nodes, index, -1)

    @property
    def edges(self) -> U64:
        """Edges that form these groups: one per node that is not its group's label (uint64[e, 2])."""
        changed = self.nodes != self.labels
        return np.stack([self.labels[changed], self.nodes[changed]], axis=1)

    def label(self, nodes: U64) -> U64:
        """Return the label of each node (uint64[n]); a node without edges is its own label."""
        index, labels = self.index(nodes), nodes.copy()
        labels[index >= 0] = self.labels[index[index >= 0]]
        return labels


def row_ids(unit: int, rows: I64 | I32) -> U64:
    """Return the node of each row of a unit (uint64[n]): the unit in the high 32 bits, the row in the low ones."""
    return np.uint64(unit) << _ROW_BITS | rows.astype(np.uint64)


def label_hashes(hashes: pa.Array, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close hashes: each hash's label (uint64[rows]; null for null hashes)."""
    null = hashes.is_null().to_numpy(zero_copy_only=False)
    return pa.array(groups.label(hashes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)), mask=null)


def row_keys(unit: int, n_rows: int, groups: Groups) -> pa.Array:
    """Return the key column of a pass by close rows: the label of each row (uint64[rows]), null without a group."""
    nodes = row_ids(unit, np.arange(n_rows))
    index = groups.index(nodes)
    return pa.array(groups.label(nodes), mask=index < 0)


def row_nearest(unit: int, n_rows: int, groups: Groups) -> F32:
    """Return `Groups.nearest` of each row of a unit (float32[rows]); 0 without a group."""
    cosines = np.zeros(n_rows, np.float32)
    if groups.nearest is not None:
        index = groups.index(row_ids(unit, np.arange(n_rows)))
        cosines[index >= 0] = groups.nearest[index[index >= 0]]
    return cosines


@njit(nogil=True, cache=True)
def find(parent: I64, node: int) -> int:
    """Return the root of a node's tree; shortens the path to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True)
def _union(parent: I64, left: I64, right: I64) -> None:
    for i in range(len(left)):
        a, b = find(parent, left[i]), find(parent, right[i])
        # The smaller root remains, so that a root is its component's smallest node.
        parent[max(a, b)] = min(a, b)
    for node in range(len(parent)):
        parent[node] = find(parent, node)
