"""A random sample of exactly N rows: those with the smallest hash(seed, uid), whatever the sharding.

In: hashes of the rows that are still in, whose uids differ. Out: which are taken, and of each a `draw` below 1 iff it
is. Units count hashes by their first 16 bits (65,536 counters), then answer the few rows whose hash begins as that of
the last one taken: two rounds, and a share of 2⁻¹⁶ of the rows in one process. Uids tell equal hashes apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa

from curate.base import ids
from curate.base.numeric.arrays import F64, I64, U64
from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun, hash_uids
from curate.recipe.deciding import Sample
from curate.run.units import Answer, Fold, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables

_BITS = 16
_SHIFT = np.uint64(64 - _BITS)
_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def sample_keys(uids: pa.Array, seed: int) -> U64:
    """Return what rows are ordered by (uint64[n, 3]): a hash of the uid (32 hex digits) and seed, and its halves."""
    return np.stack([hash_uids(uids, seed), *ids.uid_halves(uids)], axis=1)


def count_keys(keys: U64) -> I64:
    """Count rows by the first bits of their keys (int64[65536])."""
    return np.bincount((keys[:, 0] >> _SHIFT).astype(np.int64), minlength=1 << _BITS).astype(np.int64)


@dataclass(frozen=True)
class SampleSearch:
    """The search for the first key that is not taken, between passes."""

    rows: int  # N
    survivors: int = 0  # rows that there are
    digit: int | None = None  # the first bits of the key; None where all are taken
    before: int = 0  # rows whose first bits are smaller

    def narrow(self, histogram: I64) -> Self:
        """Return the search after the first pass, by the counts of all units."""
        up_to = np.cumsum(histogram)
        total = int(up_to[-1])
        if total <= self.rows:
            return replace(self, survivors=total)
        digit = int(np.searchsorted(up_to, self.rows, side="right"))
        return replace(self, survivors=total, digit=digit, before=int(up_to[digit] - histogram[digit]))

    def inside(self, keys: U64) -> U64:
        """Return the keys of a unit's rows with the first bits that were found."""
        return keys[:0] if self.digit is None else keys[keys[:, 0] >> _SHIFT == np.uint64(self.digit)]

    def cut(self, parts: Sequence[U64]) -> "SampleCut":
        """Return the sample, by the keys of `inside` of all units."""
        if self.digit is None:
            return SampleCut(min(self.rows, self.survivors), self.survivors, None)
        inside = np.concatenate(parts)
        last = inside[np.lexsort(inside.T[::-1])[self.rows - self.before]]
        return SampleCut(self.rows, self.survivors, (int(last[0]), int(last[1]), int(last[2])))


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
        return self.draws_of(sample_keys(rows.uids, rows.seed))

    def draws_of(self, keys: U64) -> F64:
        """Return the draws of rows with these keys."""
        hashes, high, low = keys.T
        if self.last is None:
            return np.asarray(np.minimum(hashes.astype(np.float64) / 2.0**64, _BELOW_ONE))
        first, second, third = (np.uint64(part) for part in self.last)
        is_ahead = (high < second) | ((high == second) & (low < third))
        values = hashes.astype(np.float64) / max(1, self.last[0])
        is_taken = (hashes < first) | ((hashes == first) & is_ahead)
        return np.asarray(np.where(is_taken, np.minimum(values, _BELOW_ONE), np.maximum(values, 1.0)))

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        """Return the number of rows, which is exact."""
        return float(self.rows), 0.0

    def say(self, section: Sample, fraction: float) -> str:
        """Return where fewer rows are left than the sample is to have; empty where there are as many."""
        return _shortage(section, round(self.survivors / fraction))


class SampleSelection(Selection):
    """A random sample of a fixed number of rows."""

    key, section = "sample", Sample
    meaning = "not in the random sample"
    sizes_of = ("rows",)

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        """Return the sample of the rows left, by two questions: counts by first bits, then the keys of one count."""

        def keys(tables: OpenTables, state: Any) -> U64:
            return sample_keys(run.rows_left(tables, state).uids, run.seed)

        histogram = units.ask("Sample: count", lambda *of: [count_keys(keys(*of))], combine=Fold[I64](large=True))
        search = units.get("Sample: narrow", SampleSearch(section.rows).narrow, histogram)

        def inside(tables: OpenTables, state: Any, at: SampleSearch) -> Iterable[U64]:
            return filter(len, [at.inside(keys(tables, state))])

        return units.get("Sample: cut", SampleSearch.cut, search, units.ask("Sample: inside", inside, search))

    def words(self, outcome: Outcome) -> SelectionWords:
        """Return what people are told of it."""
        of_them = f"{outcome.kept:,} rows that `sample` drew of {outcome.kept + outcome.dropped:,} at random"
        return SelectionWords(
            kept=f": among the {of_them}",
            dropped=f"not among the {of_them}",
            card=f"a random sample of {outcome.section.rows:,}, or all if there are fewer; seed {outcome.seed}",
            summary=[line] if (line := _shortage(outcome.section, outcome.kept + outcome.dropped)) else [],
        )


def _shortage(section: Sample, left: int) -> str:
    return f"sample: {section.rows:,} wanted, {left:,} left" if left < section.rows else ""
