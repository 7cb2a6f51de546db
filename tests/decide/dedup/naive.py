"""Near-duplicates by definition: all pairs compared one by one, groups by a search through a graph, and pools that have some."""

import itertools
import math

import numpy as np

from curate.decide.dedup import cells
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes.embedding import EmbeddingNearness
from curate.decide.dedup.passes.phash import PhashNearness

FULL = (1 << 64) - 1


def naive_groups(nodes, pairs):
    """The components with at least two nodes, by breadth."""
    beside = {int(node): set() for node in nodes}
    for a, b in pairs:
        beside[int(a)].add(int(b))
        beside[int(b)].add(int(a))
    out, seen = set(), set()
    for node in beside:
        group, waiting = set(), [node]
        while waiting:
            here = waiting.pop()
            if here not in group:
                group.add(here)
                waiting.extend(beside[here])
        if node not in seen and len(group) > 1:
            out.add(frozenset(group))
        seen |= group
    return out


def groups_of(edges):
    groups = edges if isinstance(edges, Groups) else Groups.of(edges)
    assert (np.diff(groups.nodes.astype(object)) > 0).all()
    out = {}
    for node, label in zip(groups.nodes.tolist(), groups.labels.tolist(), strict=True):
        out.setdefault(label, set()).add(node)
    assert all(label == min(group) for label, group in out.items())
    return {frozenset(group) for group in out.values()}


def assert_forest(edges):
    """No cycles: one edge less than nodes in each group."""
    found = groups_of(edges)
    assert len(edges) == sum(map(len, found)) - len(found)


def naive_cosine(a, b):
    """In float64, which holds all products and sums of float16 values near length 1."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def naive_near(vectors, x):
    good = [i for i, v in enumerate(vectors) if np.isfinite(v).all() and v.any()]
    return [(a, b) for a, b in itertools.combinations(good, 2) if naive_cosine(vectors[a], vectors[b]) >= x]


def injected(n, d, seed, kind=np.float16):
    """Rows of which a third is a copy of an earlier one, turned by some angle; a few are equal."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) * (1 + np.arange(d)) ** -0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    copies, originals = rng.choice(n, n // 3, replace=False), rng.integers(0, n, n // 3)
    rows[copies] = rows[originals] + rng.normal(size=(n // 3, d)) * rng.choice([0, 0.1, 0.4], (n // 3, 1)) / d**0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(kind)


def ids(n):
    return np.arange(n, dtype=np.uint64)


def hamming_groups(hashes, distance):
    """As one process searches all hashes."""
    return PhashNearness(distance).search(hashes, hashes)


def cosine_groups(nodes, vectors, x):
    """As one process searches all rows, of which a pass reads the usable ones."""
    rows = np.flatnonzero(cells.usable(vectors))
    whole = vectors if len(rows) == len(vectors) else vectors[rows]
    return EmbeddingNearness(x, "image", None).search(nodes[rows], whole)
