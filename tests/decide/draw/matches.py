"""Matches of rows for tests of draws: strategies for small ones, and a pool whose matches are distributed like real ones."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from curate.base import ids
from curate.decide.draw import entry_sums, inclusion
from tests.kit.metaclip import mix64

N = 6
KINDS = st.sampled_from(["list", "sliced", "int64", "large"])
ROWS = st.lists(st.none() | st.lists(st.integers(0, N - 1), unique=True, max_size=N).map(sorted), max_size=30)


def uid_of(i):
    return f"{mix64(i):016x}{mix64(i + (1 << 40)):016x}"


def list_array(rows, kind="list"):
    """The rows as an Arrow array: a list, a slice of a longer array, with int64 ids, or a large list."""
    if kind == "sliced":
        return pa.array([[0], None, *rows, [0, 0]], pa.list_(pa.int32())).slice(2, len(rows))
    types = {"list": pa.list_(pa.int32()), "int64": pa.list_(pa.int64()), "large": pa.large_list(pa.int32())}
    return pa.array(rows, types[kind])


class Pool:
    """A Zipf-like pool: few entries have most matches."""

    rows, n, t = 4000, 600, 12

    def __init__(self):
        rng = np.random.default_rng(1)
        weights = 1 / np.arange(1, self.n + 1)
        sizes = rng.poisson(2.5, self.rows)
        self.lists = [sorted(set(rng.choice(self.n, k, p=weights / weights.sum()).tolist())) for k in sizes]
        self.matches = pa.array(self.lists, pa.list_(pa.int32()))
        self.counts = entry_sums.sparse_counts(self.matches, self.n).dense(self.n)
        self.uids = pa.array([uid_of(i) for i in range(self.rows)])
        self.keys = ids.entry_keys(pa.array([f"entry {e}" for e in range(self.n)]))
        p = inclusion.probabilities(self.counts, np.array([self.t]))
        self.pi = inclusion.inclusion_probability(self.matches, p)

    def draws(self, seed, t=None):
        return inclusion.draw(self.uids, self.matches, self.counts, np.array([t or self.t]), self.keys, seed)
