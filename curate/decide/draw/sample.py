"""A random sample of exactly N rows: those with the smallest hash(seed, uid), whatever the sharding.

In: hashes of the rows that are still in, whose uids differ. Out: which are taken, and of each a `draw` below 1 iff it is. Units count
hashes by their first 16 bits (65,536 counters), then give the few rows whose hash begins as that of the last one taken: two rounds,
and a share of 2⁻¹⁶ of the rows in one process. Rows of equal hash are told apart by their uid.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base import ids
from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.base.numeric.mix import GOLDEN, mix64

_BITS = 16
_BELOW_ONE = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class SampleKeys:
    """What rows are ordered by."""

    hashes: U64
    high: U64  # halves of the uid
    low: U64

    @classmethod
    def of(cls, uids: pa.Array, seed: int) -> Self:
        """Return those of rows by their uids (string of 32 hex digits), of which both halves take part."""
        high, low = ids.uid_halves(uids)
        seeded = mix64(np.array([(seed + 1) * int(GOLDEN) % (1 << 64)], np.uint64))
        return cls(np.asarray(mix64(mix64(low ^ mix64(high + GOLDEN)) ^ seeded)), high, low)

    @classmethod
    def none(cls) -> Self:
        """Return those of no rows."""
        nothing = np.zeros(0, np.uint64)
        return cls(nothing, nothing, nothing)

    def below(self, last: tuple[int, int, int] | None) -> Mask:
        """Return which rows come before a key (bool[rows]); all without one."""
        if last is None:
            return np.ones(len(self.hashes), bool)
        first, second, third = (np.uint64(part) for part in last)
        same = self.hashes == first
        ahead = (self.high < second) | ((self.high == second) & (self.low < third))
        return np.asarray((self.hashes < first) | (same & ahead))


@dataclass(frozen=True)
class SampleSearch:
    """The search for the first key that is not taken, between passes."""

    rows: int  # N
    survivors: int = 0  # rows that there are
    digit: int | None = None  # the first bits of the key; None where all are taken
    before: int = 0  # rows whose first bits are smaller

    def histogram(self, keys: SampleKeys) -> I64:
        """Count a unit's rows by their first bits (int64[65536])."""
        return np.bincount(self._digits(keys), minlength=1 << _BITS).astype(np.int64)

    def narrow(self, histogram: I64) -> Self:
        """Return the search after the first pass, by the counts of all units."""
        up_to = np.cumsum(histogram)
        total = int(up_to[-1])
        if total <= self.rows:
            return replace(self, survivors=total)
        digit = int(np.searchsorted(up_to, self.rows, side="right"))
        return replace(self, survivors=total, digit=digit, before=int(up_to[digit] - histogram[digit]))

    def inside(self, keys: SampleKeys) -> npt.NDArray[np.uint64]:
        """Return the keys of a unit's rows with the first bits that were found (uint64[rows, 3])."""
        chosen = self._digits(keys) == (-1 if self.digit is None else self.digit)
        return np.stack([keys.hashes[chosen], keys.high[chosen], keys.low[chosen]], axis=1)

    def cut(self, inside: npt.NDArray[np.uint64]) -> "SampleCut":
        """Return the sample, by the keys of `inside` of all units."""
        if self.digit is None:
            return SampleCut(min(self.rows, self.survivors), self.survivors, None)
        order = np.lexsort(inside.T[::-1])
        last = inside[order[self.rows - self.before]]
        return SampleCut(self.rows, self.survivors, (int(last[0]), int(last[1]), int(last[2])))

    def _digits(self, keys: SampleKeys) -> I64:
        return (keys.hashes >> np.uint64(64 - _BITS)).astype(np.int64)


@dataclass(frozen=True)
class SampleCut:
    """A sample: how many rows it has, of how many, and the first key that is not taken; None where all are."""

    rows: int
    survivors: int
    last: tuple[int, int, int] | None

    @property
    def probability(self) -> float:
        """The probability of each row: rows / survivors."""
        return self.rows / self.survivors if self.survivors else 0.0

    def draws(self, keys: SampleKeys) -> F64:
        """Return of each row its hash by that of the first row that is not taken (float64), below 1 iff the row is taken."""
        values = keys.hashes.astype(np.float64) / (2.0**64 if self.last is None else max(1, self.last[0]))
        return np.where(keys.below(self.last), np.minimum(values, _BELOW_ONE), np.maximum(values, 1.0))
