"""A random sample of exactly N rows: those with the smallest hash(seed, uid), whatever the sharding.

In: hashes of the rows that are still in, whose uids differ. Out: which are taken, and of each a `draw` below 1 iff it
is. Units count hashes by their first 16 bits (65,536 counters), then answer the few rows whose hash begins as that of
the last one taken: two rounds, and a share of 2⁻¹⁶ of the rows in one process. Rows of equal hash are told apart by
their uid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base import ids
from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun, hash_uids
from curate.recipe.deciding import Sample
from curate.run.units import Answer, Fold, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables

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
        return cls(hash_uids(uids, seed), *ids.uid_halves(uids))

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
class SampleCut(Choice):
    """A sample: how many rows it has, of how many, and the first key that is not taken; None where all are."""

    rows: int
    survivors: int
    last: tuple[int, int, int] | None

    is_uniform = True

    @property
    def probability(self) -> float:
        """The probability of each row: rows / survivors."""
        return self.rows / self.survivors if self.survivors else 0.0

    def inclusion(self, rows: RowsLeft) -> F64:
        """Return the probability of each row, which is the same."""
        return np.full(len(rows), self.probability)

    def draws(self, rows: RowsLeft) -> F64:
        """Return each row's hash over that of the first row that is not taken (float64), below 1 iff it is taken."""
        return self.draws_of(SampleKeys.of(rows.uids, rows.seed))

    def draws_of(self, keys: SampleKeys) -> F64:
        """Return the draws of rows with these keys."""
        values = keys.hashes.astype(np.float64) / (2.0**64 if self.last is None else max(1, self.last[0]))
        return np.where(keys.below(self.last), np.minimum(values, _BELOW_ONE), np.maximum(values, 1.0))

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        """Return the number of rows, which is exact."""
        return float(self.rows), 0.0


class SampleSelection(Selection):
    """A random sample of a fixed number of rows."""

    key, section = "sample", Sample
    meaning = "not in the random sample"
    sizes_of = ("rows",)

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        """Return the sample of the rows left, by two questions: counts by first bits, then the keys of one count."""
        begin = SampleSearch(section.rows)
        histogram = units.ask("Sample: count", _count, begin, run, combine=Fold())
        search = units.get("Sample: narrow", begin.narrow, histogram)
        keys = units.ask("Sample: inside", _inside, search, run, combine=Fold(_append))
        return units.get("Sample: cut", SampleSearch.cut, search, keys)

    def words(self, outcome: Outcome) -> SelectionWords:
        """Return what people are told of it."""
        of_them = f"{outcome.kept:,} rows that `sample` drew of {outcome.kept + outcome.dropped:,} at random"
        return SelectionWords(
            kept=f": among the {of_them}",
            dropped=f"not among the {of_them}",
            card=f"a random sample of {outcome.section.rows:,}, or all if there are fewer; seed {outcome.seed}",
        )


def _count(tables: OpenTables, state: Any, search: SampleSearch, run: SelectionRun) -> Iterator[I64]:
    yield search.histogram(SampleKeys.of(run.rows_left(tables, state).uids, run.seed))


def _inside(tables: OpenTables, state: Any, search: SampleSearch, run: SelectionRun) -> Iterator[Any]:
    yield search.inside(SampleKeys.of(run.rows_left(tables, state).uids, run.seed))


def _append(left: Any, right: Any) -> Any:
    return np.concatenate([left, right])
