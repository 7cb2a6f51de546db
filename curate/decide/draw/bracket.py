"""Searches exactly for the largest t whose expected size Σπ is at most a target number of rows.

In: fixed-point sums of π (`inclusion.fixed_point`) over the whole pool, at each round's t. Out: t, and its sizes.
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
_POINTS = 64  # minimum points of a round, if there are as many


class Solution(NamedTuple):
    """A solved t; for a target size also Σπ in rows, at t and at t + 1."""

    t: int
    expected: float | None = None
    above: float | None = None  # None if no larger t keeps more


@dataclass(frozen=True)
class Bracket:
    """The search for the largest t in [1, highest] with Σπ ≤ rows, between passes that sum π.

    In each round, `points` returns values of t, a pass over the pool sums π at each (`expected_rows`), and `narrow`
    keeps the gap that contains the answer. Σπ in fixed point does not decrease as t grows, so the answer is unique for
    any points. There are at most ROUNDS rounds of about 64 points, or more in later rounds if needed.
    """

    rows: int  # the target size
    lo: int  # the largest t known to give at most `rows`; 0 before any is known
    hi: int  # the smallest t known to give more than `rows`; the largest t + 1 before any is known
    hi_sum: int | None = None  # Σπ at hi in fixed point, if known
    lo_sum: int = 0  # likewise at lo
    left: int = ROUNDS  # rounds left

    @classmethod
    def start(cls, highest: int, rows: int) -> Self:
        return cls(rows, 0, max(1, highest) + 1)

    @property
    def solution(self) -> Solution:
        """Return the largest t found, after the search. Raises RunError if t = 1 is expected to keep over `rows`."""
        if self.lo == 0:
            smallest = self.hi_sum or 0
            minimum = f"even t = 1, the smallest, is expected to keep {smallest / ONE:.2f} rows"
            accepted = f"balance.rows of at least {-(-smallest // ONE)}, `balance: {{t: 1}}`, or stricter rules"
            raise RunError(f"balance.rows is {self.rows}, but {minimum}; accepted: {accepted} before balancing")
        return Solution(self.lo, self.lo_sum / ONE, None if self.hi_sum is None else self.hi_sum / ONE)

    @cached_property
    def points(self) -> I64:
        """Return the values of t for the next sums of π, ascending (int64): none when solved, all once they are few."""
        inside = self.hi - self.lo - 1
        if inside <= _POINTS or self.left == 1:
            return np.arange(self.lo + 1, self.hi, dtype=np.int64)
        if self.hi > 2 * self.lo:  # geometric, because t is small compared with the largest count
            low = max(self.lo, 1)
            steps = low * (self.hi / low) ** (np.arange(1, _POINTS + 1) / (_POINTS + 1))
            return np.unique(np.clip(steps.astype(np.int64), self.lo + 1, self.hi - 1))
        # Evenly spaced, with enough points that the remaining rounds suffice.
        k = max(_POINTS, math.ceil((inside + 1) ** (1 / self.left)))
        return np.array([self.lo + (self.hi - self.lo) * i // (k + 1) for i in range(1, k + 1)], np.int64)

    def narrow(self, ts: npt.NDArray[np.integer] | Sequence[int], sums: npt.NDArray | Sequence[int]) -> Self:
        """Return the bracket after a pass with the fixed-point `sums` (whole pool, any integers) at `ts`."""
        bracket = replace(self, left=max(1, self.left - 1))
        for t, total in zip(map(operator.index, ts), map(operator.index, sums), strict=True):
            if total <= self.rows * ONE:
                bracket = replace(bracket, lo=t, lo_sum=total) if t > bracket.lo else bracket
            elif t < bracket.hi or bracket.hi_sum is None:
                bracket = replace(bracket, hi=min(bracket.hi, t), hi_sum=total)
        return bracket
