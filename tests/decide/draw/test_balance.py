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

WORD = 1 << 64


def mix64(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def unmix64(z):
    """The inverse of mix64, to plant any hash that a test wants."""
    z ^= z >> 31 ^ z >> 62
    z = z * pow(0x94D049BB133111EB, -1, WORD) % WORD
    z ^= z >> 27 ^ z >> 54
    z = z * pow(0xBF58476D1CE4E5B9, -1, WORD) % WORD
    return z ^ (z >> 30 ^ z >> 60)


def unit_hash(uid, key, seed):
    return mix64(int(uid[16:], 16) ^ mix64((key * 0x9E3779B97F4A7C15 + seed) % WORD))


def naive_kept(uid, entries, counts, t, keys, seed):
    return any(counts[e] <= t or unit_hash(uid, keys[e], seed) < t * WORD // counts[e] for e in entries)


def naive_pi(entries, counts, t):
    miss = 1.0
    for e in entries:
        miss *= 1.0 - t / max(counts[e], t)
    return 1.0 - miss


def naive_sum(rows, counts, t):
    return sum(round(naive_pi(row or [], counts, t) * 2**32) for row in rows)


def uid_of(i):
    return f"{mix64(i):016x}{mix64(i + (1 << 40)):016x}"


def list_array(rows, kind="list"):
    """The rows as Arrow, also as the slice of a longer array, with int64 ids, or as a large list."""
    if kind == "sliced":
        return pa.array([[0], None, *rows, [0, 0]], pa.list_(pa.int32())).slice(2, len(rows))
    types = {"list": pa.list_(pa.int32()), "int64": pa.list_(pa.int64()), "large": pa.large_list(pa.int32())}
    return pa.array(rows, types[kind])


N = 6
KINDS = st.sampled_from(["list", "sliced", "int64", "large"])
ROWS = st.lists(st.none() | st.lists(st.integers(0, N - 1), unique=True, max_size=N).map(sorted), max_size=30)
COUNTS = st.lists(st.integers(0, 40) | st.integers(1, 1 << 33) | st.integers(1, (1 << 63) - 1), min_size=N, max_size=N)
TS = st.integers(1, 50) | st.integers(1, 1 << 34) | st.integers(1, (1 << 63) - 1)


@given(ROWS, COUNTS, TS, st.integers(-5, 1 << 65), KINDS)
@settings(max_examples=50)
def test_draw_is_the_naive_integer_decision(rows, counts, t, seed, kind):
    keys = [ids.hash64(f"entry {e}") for e in range(N)]
    uids = [uid_of(i) for i in range(len(rows))]
    got = inclusion.draw(
        pa.array(uids, pa.string()),
        list_array(rows, kind),
        np.array(counts),
        np.array([t]),
        np.array(keys, np.uint64),
        seed,
    )
    assert got.dtype == np.float64
    for uid, row, value in zip(uids, rows, got, strict=True):
        assert (value < 1) == naive_kept(uid, row or [], counts, t, keys, seed)
        ratios = [unit_hash(uid, keys[e], seed) / WORD * max(counts[e], t) / t for e in row or []]
        assert value == pytest.approx(min(ratios, default=math.inf), rel=1e-12)


@given(st.integers(1, (1 << 63) - 1), st.data())
@settings(max_examples=80)
def test_draw_at_the_threshold(count, data):
    """A hash of just below, at and above ⌊t·2⁶⁴ / count⌋, where floats cannot tell the sides apart."""
    t = data.draw(st.integers(1, count) | st.integers(max(1, count - 1000), count))
    threshold = t * WORD // count
    hashes = [min(max(threshold + d, 0), WORD - 1) for d in (-2, -1, 0, 1, 2)] + [WORD - 1, 0]
    inner = mix64(0x9E3779B97F4A7C15 * 7 % WORD)
    uids = [f"{0:016x}{unmix64(u) ^ inner:016x}" for u in hashes]
    got = inclusion.draw(
        pa.array(uids), pa.array([[0]] * len(uids)), np.array([count]), np.array([t]), np.array([7], np.uint64), 0
    )
    assert (got < 1).tolist() == [count <= t or u < threshold for u in hashes]


def test_threshold_is_exact_on_both_sides_of_2_to_the_32():
    for count in (2, 3, 7, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, (1 << 61) + 5, (1 << 63) - 1):
        for t in {1, 2, count // 3 or 1, count // 2, count - 1} - {count}:
            assert int(inclusion._threshold(t, count)) == t * WORD // count, (t, count)


@given(ROWS, COUNTS, TS, KINDS)
def test_inclusion_is_naive(rows, counts, t, kind):
    got = inclusion.inclusion_probability(
        list_array(rows, kind), inclusion.probabilities(np.array(counts), np.array([t]))
    )
    assert got.tolist() == [naive_pi(row or [], counts, t) for row in rows]
    for row, pi in zip(rows, got, strict=True):
        if not row:
            assert pi == 0
        elif any(counts[e] <= t for e in row):
            assert pi == 1


def test_fixed_point_rounds_half_to_even():
    steps = np.array([0, 0.5, 1.5, 2.5, 0.49999999999999994, 2.0**32])
    assert inclusion.fixed_point(steps * 2.0**-32).tolist() == [0, 0, 2, 2, 0, 1 << 32]


@given(ROWS, COUNTS, st.lists(TS, max_size=8), KINDS)
def test_expected_rows_are_the_rounded_sums(rows, counts, ts, kind):
    ts = sorted(ts)
    got = inclusion.expected_rows(list_array(rows, kind), np.array(counts), np.array(ts, np.int64)[:, None])
    assert got.dtype == np.uint64
    assert got.tolist() == [naive_sum(rows, counts, t) for t in ts]


@given(ROWS, KINDS, st.data())
def test_entry_sums_and_counts(rows, kind, data):
    size = len(rows)
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    weights = np.array(data.draw(st.lists(st.integers(0, 1 << 32), min_size=size, max_size=size)), np.uint64)
    matches = list_array(rows, kind)
    expected = [sum(e in (row or []) for row in rows) for e in range(N)]
    assert entry_sums.sparse_counts(matches, N).dense(N).tolist() == expected
    expected = [sum(bool(a) and e in (row or []) for row, a in zip(rows, alive, strict=True)) for e in range(N)]
    assert entry_sums.sparse_counts(matches.filter(pa.array(alive)), N).dense(N).tolist() == expected
    expected = [sum(int(w) for row, w in zip(rows, weights, strict=True) if e in (row or [])) for e in range(N)]
    sums = entry_sums.sparse_sums(matches, [weights], N).dense(N)[0]
    assert (sums.dtype, sums.tolist()) == (np.uint64, expected)


@given(ROWS, KINDS, st.sampled_from([N, 1000 * N]), st.data())
def test_several_sums_at_once_are_those_of_each(rows, kind, entries, data):
    """Over few entries, all of which have a place, and over many, which are sorted; weights of 2**64 - 1 wrap around."""
    size = len(rows)
    draw = st.lists(st.integers(0, (1 << 64) - 1), min_size=size, max_size=size)
    weights = [np.array(data.draw(draw), np.uint64) for _ in range(3)]
    matches = list_array(rows, kind)
    sums = entry_sums.sparse_sums(matches, weights, entries)
    found = sorted({e for row in rows for e in row or []})
    assert (sums.entries.dtype, sums.entries.tolist()) == (np.int32, found)
    want = [
        [sum(int(w) for w, row in zip(one, rows, strict=True) if e in (row or [])) % 2**64 for e in found]
        for one in weights
    ]
    assert (sums.values.dtype, sums.values.tolist()) == (np.uint64, want)


def test_a_null_row_may_cover_values():
    """Arrow lets a null slot have a length; such a row still matches nothing."""
    matches = pa.ListArray.from_arrays(
        pa.array([0, 2, 3], pa.int32()), pa.array([0, 1, 2]), mask=pa.array([True, False])
    )
    assert entry_sums.sparse_counts(matches, 3).dense(3).tolist() == [0, 0, 1]


def test_ids_out_of_range_are_refused():
    for bad in ([-1], [N]):
        with pytest.raises(ValueError, match=f"there are {N} entries"):
            entry_sums.sparse_counts(pa.array([[0], bad]), N).dense(N)


# A Zipf-like pool, the shape of real metadata matches: few entries hold most matches.


class Pool:
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
        self.pi = inclusion.inclusion_probability(
            self.matches, inclusion.probabilities(self.counts, np.array([self.t]))
        )

    def draws(self, seed, t=None):
        return inclusion.draw(self.uids, self.matches, self.counts, np.array([t or self.t]), self.keys, seed)


@pytest.fixture(scope="module")
def pool():
    return Pool()


@pytest.fixture(scope="module")
def kept(pool):
    """bool[seeds, rows]: who is kept under each of 400 seeds."""
    return np.stack([pool.draws(seed) < 1 for seed in range(400)])


def test_kept_totals_are_binomial(pool, kept):
    seeds, variance = len(kept), (pool.pi * (1 - pool.pi)).sum()
    totals = kept.sum(axis=1)
    assert abs(totals.sum() - seeds * pool.pi.sum()) < 5 * math.sqrt(seeds * variance)
    assert abs(totals - pool.pi.sum()).max() < 5 * math.sqrt(variance)
    # Rows are independent of each other: the totals spread as a sum of independent draws does.
    spread = ((totals - pool.pi.sum()) ** 2).mean() / variance
    assert abs(spread - 1) < 5 * math.sqrt(2 / seeds)


def test_kept_rows_are_binomial(pool, kept):
    """Chi-square by row, and by buckets of rows with alike π."""
    assert not kept[:, pool.pi == 0].any() and kept[:, pool.pi == 1].all()
    drawn = (pool.pi > 0.02) & (pool.pi < 0.98)
    pi, seeds = pool.pi[drawn], len(kept)
    assert drawn.sum() > 500
    scores = (kept[:, drawn].sum(axis=0) - seeds * pi) / np.sqrt(seeds * pi * (1 - pi))
    assert abs((scores**2).sum() - len(pi)) < 5 * math.sqrt(2 * len(pi))
    buckets = np.array_split(scores[np.argsort(pi)], 10)
    totals = [bucket.sum() ** 2 / len(bucket) for bucket in buckets]
    assert sum(totals) < 10 + 5 * math.sqrt(2 * 10)


def test_horvitz_thompson_estimates_the_rows_before_balancing(pool, kept):
    pi = pool.pi[pool.pi > 0]
    estimates = (kept[:, pool.pi > 0] / pi).sum(axis=1)
    variance = ((1 - pi) / pi).sum()
    assert abs(estimates.mean() - len(pi)) < 5 * math.sqrt(variance / len(kept))
    assert abs(estimates - len(pi)).max() < 5 * math.sqrt(variance)


def test_sets_nest_in_t(pool):
    ts = [1, 2, 3, 5, 12, 30, 100, int(pool.counts.max())]
    sets = [pool.draws(3, t) < 1 for t in ts]
    for smaller, larger in itertools.pairwise(sets):
        assert (smaller <= larger).all() and smaller.sum() < larger.sum()
    assert sets[-1].tolist() == [bool(row) for row in pool.lists]


def test_head_entries_keep_more_than_t(pool, kept):
    """Not a hard cap: rows of a head entry come in through their rarer entries too."""
    head = int(pool.counts.argmax())
    assert entry_sums.sparse_counts(pool.matches.filter(pa.array(kept[0])), pool.n).dense(pool.n)[head] > 2 * pool.t


def test_draws_do_not_depend_on_order_or_sharding(pool):
    whole = pool.draws(5)
    order = np.random.default_rng(2).permutation(pool.rows)
    for shards in (1, 7, 40):
        out = np.empty(pool.rows)
        for part in np.array_split(order, shards):
            out[part] = inclusion.draw(
                pool.uids.take(pa.array(part)),
                pool.matches.take(pa.array(part)),
                pool.counts,
                np.array([pool.t]),
                pool.keys,
                5,
            )
        assert (out == whole).all()


def test_draws_follow_the_entry_not_its_id(pool):
    """Renumbered metadata draws the same."""
    new_id = np.random.default_rng(3).permutation(pool.n)
    counts, keys = np.empty_like(pool.counts), np.empty_like(pool.keys)
    counts[new_id], keys[new_id] = pool.counts, pool.keys
    lists = pa.array([sorted(new_id[row].tolist()) for row in pool.lists], pa.list_(pa.int32()))
    assert (inclusion.draw(pool.uids, lists, counts, np.array([pool.t]), keys, 0) == pool.draws(0)).all()


def test_seeds_differ(pool, kept):
    assert len({row.tobytes() for row in kept}) == len(kept)


@pytest.mark.parametrize("shape", [(1000,), (2, 1000)])
@pytest.mark.parametrize("places", [[], [3, 998], range(1000)])
def test_a_vector_of_entries_arrives_as_it_was(shape, places):
    plain = np.zeros(shape, np.int64)
    plain[..., list(places)] = np.arange(1, len(places) + 1)
    sent = pickle.dumps(plain.view(entry_sums.EntryVector), protocol=5)
    found = pickle.loads(sent)
    assert found.dtype == plain.dtype and np.array_equal(found, plain)
    assert len(sent) < (1000 if len(places) < 3 else plain.nbytes + 1000)
    found[..., 0] += 1  # sums go on where they arrive
    assert len(pickle.dumps(found - 0, protocol=5)) < len(sent) + 100  # and are as small where they are sent on


def test_the_t_of_a_share_of_the_tail_is_the_first_of_the_nearest_counts():
    counts = np.array([0, 5, 1, 5, 3, 90, 0, 1], np.int64)
    assert [array.tolist() for array in inclusion.tail_shares(counts)] == [
        [1, 3, 5, 90],
        [0, 2 / 105, 5 / 105, 15 / 105],
    ]
    shares = np.linspace(0.001, 0.5, 200)
    for share in shares:
        found = {int(t): counts[counts < t].sum() / counts.sum() for t in np.unique(counts[counts > 0])}
        nearest = min(abs(below - share) for below in found.values())
        expected = next(t for t, below in found.items() if abs(below - share) == nearest)
        assert inclusion.tail_share_t(counts, share) == expected
    assert inclusion.tail_share_t(np.array([2, 4, 2], np.int64), 0.25) == 2  # 0 and 0.5 are as near
    assert inclusion.tail_share_t(np.zeros(3, np.int64), 0.06) == 1


@pytest.mark.parametrize(
    ("share", "near"),
    [
        (0.01, "0 (t = 1) and 0.01905 (t = 3)"),
        (0.0195, ""),  # 0.019 is within 5 %
        (0.1, "0.04762 (t = 5) and 0.1429 (t = 90)"),
        (0.5, "0.1429 (t = 90)"),
    ],
)
def test_a_share_that_no_t_comes_near_is_named_with_its_neighbours(share, near):
    counts = np.array([0, 5, 1, 5, 3, 90, 0, 1], np.int64)
    t = np.array([inclusion.tail_share_t(counts, share)])
    choice = LimitsChoice(Solution(int(t[0])), counts, t)
    shown = f"balance.tail_share {share} is out of reach; the nearest: {near}"
    assert choice.shortfall(Balance(tail_share=share)) == (shown if near else "")
    assert choice.shortfall(Balance(t=3)) == choice.shortfall(Balance(rows=2)) == ""


def test_it_inverts_the_share_of_metaclip_2_and_not_by_its_inverse():
    """Its shares of a t lead back to this t; its own inverse counts the entries with t rows too, and leads elsewhere."""
    counts = np.array([1, 5, 1, 5, 3, 90], np.int64)
    for t in np.unique(counts):
        assert inclusion.tail_share_t(counts, counts[counts < t].sum() / counts.sum()) == t
    ascending = np.sort(counts)
    with_t = ascending[np.argmin(np.abs(np.cumsum(ascending) / counts.sum() - 15 / 105))]
    assert (int(with_t), inclusion.tail_share_t(counts, 15 / 105)) == (5, 90)
