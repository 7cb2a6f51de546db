"""`sample`: exactly N rows, those with the smallest hash(seed, uid), whatever the sharding; and its other forms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.base import ids
from curate.base.numeric.arrays import F64
from curate.decide.draw.mixture import MixtureSample
from curate.decide.draw.quotas import QuotasSample
from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun
from curate.decide.draw.smallest import Cut, Keys, Search, find_cut
from curate.decide.draw.soft_cap import SoftCapSample
from curate.decide.draw.weighted import WeightedSample
from curate.recipe.deciding import Sample
from curate.run.units import Answer, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables


def sample_keys(uids: pa.Array, seed: int) -> Keys:
    """Return what rows are ordered by: a hash of the uid (32 hex digits) and seed, and the uid's halves."""
    values = np.stack([ids.hash_uids(uids, seed), *ids.uid_halves(uids)], axis=1)
    return Keys(values, np.zeros(len(values), np.int64))


@dataclass(frozen=True)
class SampleChoice(Choice):
    """Which rows are taken, of one group."""

    cut: Cut

    is_uniform = True

    def inclusion(self, rows: RowsLeft) -> F64:
        """Return the probability of each row, which is the same: rows taken / rows left."""
        return np.full(len(rows), self.cut.shares[0])

    def draws(self, rows: RowsLeft) -> F64:
        """Return each row's hash over that of the first row that is not taken (float64), below 1 iff it is taken."""
        keys = sample_keys(rows.uids, rows.seed)
        of = max(1.0, float(self.cut.last[0, 0])) if self.cut.is_cut[0] else 2.0**64
        return self.cut.draws(keys, keys.values[:, 0] / of)

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        return float(self.cut.taken[0]), 0.0

    def say(self, section: Sample, fraction: float) -> str:
        """Return where fewer rows are left than the sample is to have; empty where there are as many."""
        return say_shortage(section.rows or 0, round(int(self.cut.rows[0]) / fraction))


class UniformSample(Selection):
    """A random sample of a fixed number of rows."""

    key, section = "sample", Sample
    meaning = "not in the random sample"
    sizes_of = ("rows",)

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        """Return the sample of the rows left, by two questions: counts by first bits, then the keys of one count."""

        def keys(tables: OpenTables, state: Any) -> Keys:
            return sample_keys(run.rows_left(tables, state).uids, run.seed)

        cut = find_cut(units, "Sample", Search(np.array([section.rows])), keys)
        return units.get("Sample: choose", SampleChoice, cut)

    def words(self, outcome: Outcome) -> SelectionWords:
        of_them = f"{outcome.kept:,} rows that `sample` drew of {outcome.kept + outcome.dropped:,} at random"
        return SelectionWords(
            kept=f": among the {of_them}",
            dropped=f"not among the {of_them}",
            card=f"a random sample of {outcome.section.rows:,}, or all if there are fewer; seed {outcome.seed}",
            summary=[line] if (line := say_shortage(outcome.section.rows, outcome.kept + outcome.dropped)) else [],
        )


def say_shortage(wanted: int, left: int) -> str:
    """Return that fewer rows are left than a sample is to have; empty where there are as many."""
    return f"sample: {wanted:,} wanted, {left:,} left" if left < wanted else ""


class SampleSelection(UniformSample):
    """What `sample` says: one of its forms."""

    forms: ClassVar[Mapping[str, Selection]] = {
        "weights": WeightedSample(),
        "mixture": MixtureSample(),
        "quotas": QuotasSample(),
        "soft_cap": SoftCapSample(),
    }

    def form(self, section: Sample) -> Selection:
        return self.forms.get(section.form, self)
