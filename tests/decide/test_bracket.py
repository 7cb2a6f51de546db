"""The search for t, against trying all of them."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide import balance
from curate.decide import bracket as search
from curate.decide.bracket import Bracket
from curate.errors import RunError
from tests.decide.test_balance import ROWS, N, Pool, list_array, naive_sum


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool()


def solve_t(counts, matches, rows):
    highest = int(counts.max(initial=0))
    return search.solve_t(highest, rows, lambda ts: balance.expected_rows(matches, counts, ts[:, None]))


@given(ROWS, st.integers(0, 31))
@settings(max_examples=150, deadline=None)
def test_solve_t_is_the_largest(rows, target):
    matches = list_array(rows)
    counts = balance.entry_counts(matches, None, N)
    largest = max(1, int(counts.max()))
    possible = [t for t in range(1, largest + 1) if naive_sum(rows, counts.tolist(), t) <= target << 32]
    if not possible:
        with pytest.raises(RunError, match=f"balance.rows is {target}.*even t = 1.*at least [1-9]"):
            solve_t(counts, matches, target)
    else:
        assert solve_t(counts, matches, target) == max(possible)


@pytest.mark.parametrize("k", [1, 2, 3, 64])
def test_bracket_over_partial_sums(pool, k):
    """Sums from 7 parts, added as integers, give the t whose neighbours enclose the target size."""
    parts = [pa.array(pool.lists[i::7], pa.list_(pa.int32())) for i in range(7)]
    target, bracket = 1500, Bracket.start(pool.counts.max(), 1500)
    while len(ts := bracket.points(k)):
        bracket = bracket.narrow(ts, sum(balance.expected_rows(part, pool.counts, ts[:, None]) for part in parts))
    t = bracket.t
    assert t == solve_t(pool.counts, pool.matches, target)
    below, above = balance.expected_rows(pool.matches, pool.counts, np.array([[t], [t + 1]])).tolist()
    assert below <= target << 32 < above
    assert bracket.narrow([], []) == bracket and bracket.solved


def test_all_survive_when_the_wish_is_larger_than_the_pool(pool):
    assert solve_t(pool.counts, pool.matches, pool.rows) == pool.counts.max()


def test_too_small_a_wish_says_what_is_accepted(pool):
    least = math.ceil(naive_sum(pool.lists, pool.counts.tolist(), 1) / 2**32)
    with pytest.raises(RunError, match=f"balance.rows of at least {least},"):
        solve_t(pool.counts, pool.matches, least - 1)
    assert solve_t(pool.counts, pool.matches, least) >= 1


def rounds(largest: int, answer: int, k: int = 64) -> int:
    """Rounds to find `answer` where Σπ(t) is t rows."""
    bracket, done = Bracket(answer, 0, largest + 1), 0
    while len(ts := bracket.points(k)):
        assert len(ts) <= k and bracket.lo < ts[0] and ts[-1] < bracket.hi and (np.diff(ts) > 0).all()
        bracket, done = bracket.narrow(ts, [int(t) << 32 for t in ts]), done + 1
    assert bracket.t == min(answer, largest)
    return done


def widest(largest: int) -> int:
    """Rounds where the answer is always in the widest gap."""
    bracket, done = Bracket(0, 0, largest + 1), 0
    while len(ts := bracket.points()):
        edges = np.concatenate([[bracket.lo], ts, [bracket.hi]])
        gap = int(np.diff(edges).argmax())
        bracket, done = Bracket(0, int(edges[gap]), int(edges[gap + 1])), done + 1
    return done


@given(st.integers(1, (1 << 40) - 1), st.data())
@settings(max_examples=200, deadline=None)
def test_at_most_8_rounds(largest, data):
    assert rounds(largest, data.draw(st.integers(1, largest + 1))) <= 8
    assert widest(largest) <= 8


def test_rounds_at_the_largest_pool():
    assert widest((1 << 40) - 1) == 8
    assert rounds(120_000_000, 20_000) <= 4  # MetaCLIP's 1.6B pool
    assert rounds((1 << 62), 12345, k=2) < 150  # far past the guarantee it still ends


def test_contradicting_sums_are_refused():
    with pytest.raises(ValueError, match="at t = 3 but not at t = 5"):
        Bracket(10, 0, 9).narrow([3, 5], [11 << 32, 9 << 32])
    with pytest.raises(ValueError, match="only known to be in"):
        Bracket(10, 0, 9).t
