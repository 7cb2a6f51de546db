"""Balancing against naive integers, and against the distribution that MetaCLIP defines."""

import itertools
import math
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base import ids
from curate.decide.draw import entry_sums, inclusion
from curate.decide.draw.balance import LimitsChoice
from curate.decide.draw.bracket import Solution
from curate.recipe.deciding import Balance
from tests.decide.draw.matches import KINDS, ROWS, N, Pool, list_array, uid_of
from tests.kit import metaclip
from tests.kit.metaclip import WORD, mix64


def unmix64(z):
    """The inverse of mix64, to plant any hash that a test wants."""
    z ^= z >> 31 ^ z >> 62
    z = z * pow(0x94D049BB133111EB, -1, WORD) % WORD
    z ^= z >> 27 ^ z >> 54
    z = z * pow(0xBF58476D1CE4E5B9, -1, WORD) % WORD
    return z ^ (z >> 30 ^ z >> 60)


COUNTS = st.lists(st.integers(0, 40) | st.integers(1, 1 << 33) | st.integers(1, (1 << 63) - 1), min_size=N, max_size=N)
TS = st.integers(1, 50) | st.integers(1, 1 << 34) | st.integers(1, (1 << 63) - 1)


@given(ROWS, COUNTS, TS, st.integers(-5, 1 << 65), KINDS)
@settings(max_examples=50)
def test_draw_is_the_naive_integer_decision(rows, counts, t, seed, kind):
    keys = [ids.hash64(f"entry {e}") for e in range(N)]
    uids, hashes = [uid_of(i) for i in range(len(rows))], np.array(keys, np.uint64)
    matches = list_array(rows, kind)
    got = inclusion.draw(pa.array(uids, pa.string()), matches, np.array(counts), np.array([t]), hashes, seed)
    assert got.dtype == np.float64
    for uid, row, value in zip(uids, rows, got, strict=True):
        assert (value < 1) == metaclip.is_kept(uid, row or [], counts, t, keys, seed)
        ratios = [metaclip.draw(uid, keys[e], seed) / WORD * max(counts[e], t) / t for e in row or []]
        assert value == pytest.approx(min(ratios, default=math.inf), rel=1e-12)


@given(st.integers(1, (1 << 63) - 1), st.data())
@settings(max_examples=80)
def test_draw_at_the_threshold(count, data):
    """Hashes just below, at, and above ⌊t·2⁶⁴ / count⌋, which are equal as floats."""
    t = data.draw(st.integers(1, count) | st.integers(max(1, count - 1000), count))
    threshold = t * WORD // count
    hashes = [min(max(threshold + d, 0), WORD - 1) for d in (-2, -1, 0, 1, 2)] + [WORD - 1, 0]
    inner = mix64(0x9E3779B97F4A7C15 * 7 % WORD)
    uids = pa.array([f"{0:016x}{unmix64(u) ^ inner:016x}" for u in hashes])
    matches = pa.array([[0]] * len(uids))
    got = inclusion.draw(uids, matches, np.array([count]), np.array([t]), np.array([7], np.uint64), 0)
    assert (got < 1).tolist() == [count <= t or u < threshold for u in hashes]


@given(ROWS, COUNTS, TS, KINDS)
def test_inclusion_is_naive(rows, counts, t, kind):
    p = inclusion.probabilities(np.array(counts), np.array([t]))
    got = inclusion.inclusion_probability(list_array(rows, kind), p)
    assert got.tolist() == [metaclip.inclusion(row or [], counts, t) for row in rows]
    for row, pi in zip(rows, got, strict=True):
        assert pi == 0 if not row else pi == 1 or not any(counts[e] <= t for e in row)


def test_fixed_point_rounds_half_to_even():
    steps = np.array([0, 0.5, 1.5, 2.5, 0.49999999999999994, 2.0**32])
    assert inclusion.fixed_point(steps * 2.0**-32).tolist() == [0, 0, 2, 2, 0, 1 << 32]


@given(ROWS, COUNTS, st.lists(TS, max_size=8), KINDS)
def test_expected_rows_are_the_rounded_sums(rows, counts, ts, kind):
    ts = sorted(ts)
    got = inclusion.expected_rows(list_array(rows, kind), np.array(counts), np.array(ts, np.int64)[:, None])
    naive = [metaclip.expected_rows([row or [] for row in rows], counts, t) for t in ts]
    assert (got.dtype, got.tolist()) == (np.uint64, naive)


@given(ROWS, KINDS, st.sampled_from([N, 1000 * N]), st.data())
def test_sums_and_counts_of_entries(rows, kind, entries, data):
    """Over few entries, in a dense array, and over many, which are sorted; sums wrap around at 2**64."""
    size, matches = len(rows), list_array(rows, kind)
    draw = st.lists(st.integers(0, (1 << 64) - 1), min_size=size, max_size=size)
    weights = [np.array(data.draw(draw), np.uint64) for _ in range(3)]
    sums = entry_sums.sparse_sums(matches, weights, entries)
    found = sorted({e for row in rows for e in row or []})
    assert (sums.entries.dtype, sums.entries.tolist()) == (np.int32, found)
    pairs = [list(zip(one.tolist(), rows, strict=True)) for one in weights]
    want = [[sum(w for w, row in of if e in (row or [])) % 2**64 for e in found] for of in pairs]
    assert (sums.values.dtype, sums.values.tolist()) == (np.uint64, want)
    counts = entry_sums.sparse_counts(matches, entries).dense(entries)
    assert counts.tolist() == [sum(e in (row or []) for row in rows) for e in range(entries)]


def test_a_null_row_may_cover_values_and_ids_out_of_range_are_refused():
    """Arrow lets a null slot have a length; such a row still matches nothing."""
    offsets, mask = pa.array([0, 2, 3], pa.int32()), pa.array([True, False])
    matches = pa.ListArray.from_arrays(offsets, pa.array([0, 1, 2]), mask=mask)
    assert entry_sums.sparse_counts(matches, 3).dense(3).tolist() == [0, 0, 1]
    for bad in ([-1], [N]):
        with pytest.raises(ValueError, match=f"there are {N} entries"):
            entry_sums.sparse_counts(pa.array([[0], bad]), N).dense(N)


@pytest.fixture(scope="module")
def pool():
    return Pool()


@pytest.fixture(scope="module")
def kept(pool):
    """bool[seeds, rows]: which rows are kept under each of 400 seeds."""
    return np.stack([pool.draws(seed) < 1 for seed in range(400)])


def test_kept_rows_are_binomial(pool, kept):
    """Checks the number of kept rows, whose variance shows that rows are independent, and chi-square by row and by buckets of π."""
    seeds, variance = len(kept), (pool.pi * (1 - pool.pi)).sum()
    totals = kept.sum(axis=1)
    assert abs(totals.sum() - seeds * pool.pi.sum()) < 5 * math.sqrt(seeds * variance)
    spread = ((totals - pool.pi.sum()) ** 2).mean() / variance
    assert abs(spread - 1) < 5 * math.sqrt(2 / seeds)
    assert not kept[:, pool.pi == 0].any() and kept[:, pool.pi == 1].all()
    drawn = (pool.pi > 0.02) & (pool.pi < 0.98)
    pi = pool.pi[drawn]
    assert drawn.sum() > 500
    scores = (kept[:, drawn].sum(axis=0) - seeds * pi) / np.sqrt(seeds * pi * (1 - pi))
    assert abs((scores**2).sum() - len(pi)) < 5 * math.sqrt(2 * len(pi))
    buckets = np.array_split(scores[np.argsort(pi)], 10)
    assert sum(bucket.sum() ** 2 / len(bucket) for bucket in buckets) < 10 + 5 * math.sqrt(2 * 10)


def test_horvitz_thompson_estimates_the_rows_before_balancing(pool, kept):
    pi = pool.pi[pool.pi > 0]
    estimates = (kept[:, pool.pi > 0] / pi).sum(axis=1)
    variance = ((1 - pi) / pi).sum()
    assert abs(estimates.mean() - len(pi)) < 5 * math.sqrt(variance / len(kept))
    assert abs(estimates - len(pi)).max() < 5 * math.sqrt(variance)


def test_sets_nest_in_t(pool):
    sets = [pool.draws(3, t) < 1 for t in (1, 2, 3, 5, 12, 30, 100, int(pool.counts.max()))]
    for smaller, larger in itertools.pairwise(sets):
        assert (smaller <= larger).all() and smaller.sum() < larger.sum()
    assert sets[-1].tolist() == [bool(row) for row in pool.lists]


def test_a_vector_of_entries_arrives_as_it_was():
    for shape, places in itertools.product([(1000,), (2, 1000)], [[], [3, 998], range(1000)]):
        plain = np.zeros(shape, np.int64)
        plain[..., list(places)] = np.arange(1, len(places) + 1)
        sent = pickle.dumps(plain.view(entry_sums.EntryVector), protocol=5)
        found = pickle.loads(sent)
        assert found.dtype == plain.dtype and np.array_equal(found, plain)
        assert len(sent) < (1000 if len(places) < 3 else plain.nbytes + 1000)
        found[..., 0] += 1  # the receiver adds to it
        assert len(pickle.dumps(found - 0, protocol=5)) < len(sent) + 100  # and sends the sums on


TAIL = np.array([0, 5, 1, 5, 3, 90, 0, 1], np.int64)


def test_the_t_of_a_share_of_the_tail_is_the_first_of_the_nearest_counts():
    values, shares = ([1, 3, 5, 90], [0, 2 / 105, 5 / 105, 15 / 105])
    assert [array.tolist() for array in inclusion.tail_shares(TAIL)] == [values, shares]
    for share in np.linspace(0.001, 0.5, 200):
        distances = [abs(below - share) for below in shares]
        assert inclusion.tail_share_t(TAIL, share) == values[distances.index(min(distances))]
    assert inclusion.tail_share_t(np.array([2, 4, 2], np.int64), 0.25) == 2  # 0 and 0.5 are as near
    assert inclusion.tail_share_t(np.zeros(3, np.int64), 0.06) == 1


def test_a_share_that_no_t_comes_near_is_named_with_its_neighbors():
    for share, near in (
        (0.01, "0 (t = 1) and 0.01905 (t = 3)"), (0.1, "0.04762 (t = 5) and 0.1429 (t = 90)"), (0.5, "0.1429 (t = 90)"),
        (0.0195, ""),
    ):  # fmt: skip
        t = np.array([inclusion.tail_share_t(TAIL, share)])
        choice = LimitsChoice(Solution(int(t[0])), TAIL, t)
        shown = f"balance.tail_share {share} is out of reach; the nearest possible shares: {near}"
        assert choice.shortfall(Balance(tail_share=share)) == (shown if near else "")  # within 5% there is none
        assert choice.shortfall(Balance(t=3)) == choice.shortfall(Balance(rows=2)) == ""
