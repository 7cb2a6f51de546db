"""The search for t finds what trying every t finds."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.errors import RunError
from curate.decide.draw import entry_sums, inclusion
from curate.decide.draw.bracket import ROUNDS, Bracket
from tests.decide.draw.matches import ROWS, N, Pool, list_array
from tests.kit.metaclip import expected_rows


@pytest.fixture(scope="module")
def pool():
    return Pool()


def solve_t(counts, matches, rows):
    bracket = Bracket.start(int(counts.max(initial=0)), rows)
    while len(bracket.points):
        bracket = bracket.narrow(bracket.points, inclusion.expected_rows(matches, counts, bracket.points[:, None]))
    return bracket.solution.t


@given(ROWS, st.integers(0, 31))
@settings(max_examples=50)
def test_solve_t_is_the_largest(rows, target):
    matches = list_array(rows)
    counts = entry_sums.sparse_counts(matches, N).dense(N)
    largest = max(1, int(counts.max()))
    lists = [row or [] for row in rows]
    possible = [t for t in range(1, largest + 1) if expected_rows(lists, counts.tolist(), t) <= target << 32]
    if not possible:
        least = math.ceil(expected_rows(lists, counts.tolist(), 1) / 2**32)
        with pytest.raises(RunError, match=f"balance.rows is {target}.*even t = 1.*balance.rows of at least {least},"):
            solve_t(counts, matches, target)
    else:
        assert solve_t(counts, matches, target) == max(possible)


@pytest.mark.parametrize("left", [1, 2, ROUNDS])
def test_bracket_over_partial_sums(pool, left):
    """Sums from 7 parts, added as integers, give the t whose neighbors enclose the target size."""
    parts = [pa.array(pool.lists[i::7], pa.list_(pa.int32())) for i in range(7)]
    target, bracket = 1500, replace(Bracket.start(pool.counts.max(), 1500), left=left)
    while len(ts := bracket.points):
        bracket = bracket.narrow(ts, sum(inclusion.expected_rows(part, pool.counts, ts[:, None]) for part in parts))
    solution = bracket.solution
    t = solution.t
    assert t == solve_t(pool.counts, pool.matches, target)
    below, above = inclusion.expected_rows(pool.matches, pool.counts, np.array([[t], [t + 1]])).tolist()
    assert below <= target << 32 < above
    assert (solution.expected, solution.above) == (below / inclusion.ONE, above / inclusion.ONE)
    assert replace(bracket.narrow([], []), left=bracket.left) == bracket and bracket.hi - bracket.lo == 1


def points(largest, answer):
    """The number of points of each round that finds `answer` where Σπ(t) is t rows."""
    bracket, done = Bracket(answer, 0, largest + 1), []
    while len(ts := bracket.points):
        assert bracket.lo < ts[0] and ts[-1] < bracket.hi and (np.diff(ts) > 0).all()
        bracket = bracket.narrow(ts, [int(t) << 32 for t in ts])
        done.append(len(ts))
    assert bracket.solution.t == min(answer, largest)
    return done


def widest(largest):
    """The same if the answer is always in the widest gap."""
    bracket, done = Bracket(0, 0, largest + 1), []
    while len(ts := bracket.points):
        edges = np.concatenate([[bracket.lo], ts, [bracket.hi]])
        gap = int(np.diff(edges).argmax())
        bracket = Bracket(0, int(edges[gap]), int(edges[gap + 1]), left=max(1, bracket.left - 1))
        done.append(len(ts))
    return done


@pytest.mark.thorough
@given(st.integers(1, (1 << 40) - 1), st.data())
@settings(max_examples=8)
def test_at_most_so_many_rounds(largest, data):
    assert len(points(largest, data.draw(st.integers(1, largest + 1)))) <= ROUNDS
    assert len(widest(largest)) <= ROUNDS


def test_points_of_rounds():
    assert max(points(120_000_000, 20_000)) <= 75  # MetaCLIP's 1.6B pool
    assert max(points(120_000_000, 1_000_000)) <= 600
    assert max(widest(100_000)) <= 150 and len(widest((1 << 40) - 1)) == ROUNDS  # the largest pool
