"""The search for a target size: the largest t whose expected size Σπ is at most a number of rows, exactly.

In: fixed-point sums of π (`inclusion.fixed_point`) of the whole pool, at each round's t. Out: t, and sizes around it.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from curate.base.errors import RunError
from curate.base.numeric.arrays import I64
from curate.decide.draw.inclusion import ONE

ROUNDS = 3
_POINTS = 64  # of a round, at least, where there are as many


class Solution(NamedTuple):
    """A t that was solved; of a search for a target size also Σπ in rows, at t and at t + 1."""

    t: int
    expected: float | None = None
    above: float | None = None  # None where no larger t keeps more


@dataclass(frozen=True)
class Bracket:
    """The search for the largest t in [1, highest] with Σπ ≤ rows, between passes that sum π.

    Each round, `points` names values of t, a pass over the pool sums π at each (`expected_rows`), and `narrow` keeps
    the gap between them that holds the answer. Σπ in fixed point never falls as t grows, so the answer is unique,
    whatever the points. It takes at most ROUNDS rounds, of some 64 points, or later as many as that takes.
    """

    rows: int  # the target size
    lo: int  # the largest t known to give at most `rows`; 0 before any is known
    hi: int  # the smallest t known to give more than `rows`; the largest t + 1 before any is known
    hi_sum: int | None = None  # Σπ at hi in fixed point, where it is known
    lo_sum: int = 0  # likewise at lo
    left: int = ROUNDS  # rounds that may still be needed

    @classmethod
    def start(cls, highest: int, rows: int) -> Self:
        return cls(rows, 0, max(1, highest) + 1)

    @property
    def solution(self) -> Solution:
        """Return the answer, once solved. Raises RunError where even t = 1 keeps more than `rows` in expectation."""
        if self.lo == 0:
            smallest = self.hi_sum or 0
            minimum = f"even t = 1, the smallest, is expected to keep {smallest / ONE:.2f} rows"
            accepted = f"balance.rows of at least {-(-smallest // ONE)}, `balance: {{t: 1}}`, or stricter rules"
            raise RunError(f"balance.rows is {self.rows}, but {minimum}; accepted: {accepted} before balancing")
        return Solution(self.lo, self.lo_sum / ONE, None if self.hi_sum is None else self.hi_sum / ONE)

    @cached_property
    def points(self) -> I64:
        """Return values of t to sum π at, ascending (int64): none when solved, every integer once these are few."""
        inside = self.hi - self.lo - 1
        if inside <= _POINTS or self.left == 1:
            return np.arange(self.lo + 1, self.hi, dtype=np.int64)
        if self.hi > 2 * self.lo:  # geometric, for t is small beside the largest count
            low = max(self.lo, 1)
            steps = low * (self.hi / low) ** (np.arange(1, _POINTS + 1) / (_POINTS + 1))
            return np.unique(np.clip(steps.astype(np.int64), self.lo + 1, self.hi - 1))
        # Evenly spaced, as many as leave no more than the rounds that are left can search.
        k = max(_POINTS, math.ceil((inside + 1) ** (1 / self.left)))
        return np.array([self.lo + (self.hi - self.lo) * i // (k + 1) for i in range(1, k + 1)], np.int64)

    def narrow(self, ts: npt.NDArray[np.integer] | Sequence[int], sums: npt.NDArray | Sequence[int]) -> Self:
        """Return the bracket after a pass that computed the fixed-point `sums` (whole pool, any integers) at `ts`."""
        bracket = replace(self, left=max(1, self.left - 1))
        for t, total in zip(map(operator.index, ts), map(operator.index, sums), strict=True):
            if total <= self.rows * ONE:
                bracket = replace(bracket, lo=t, lo_sum=total) if t > bracket.lo else bracket
            elif t < bracket.hi or bracket.hi_sum is None:
                bracket = replace(bracket, hi=min(bracket.hi, t), hi_sum=total)
        return bracket
