"""`sample: {weights: SQL, rows: N}`: N rows without replacement, likelier by weight: those with the smallest E/w.

E is an exponential number from hash(seed, uid), so this is successive sampling (numpy's `choice` without replacement
and with `p`). Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006). With τ the first key
that is not taken, π = 1 − e^(−wτ), so 1/π weights estimate (Cohen and Kaplan, "Summarizing data using bottom-k
sketches", 2007). A weight that is null, NaN, infinite or not positive is never drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64
from curate.base.numeric.elementary import exponentials, one_minus_exp
from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun, required
from curate.decide.draw.smallest import Cut, Keys, Search, find_cut
from curate.expressions.check import CheckedExpression, check_expression
from curate.expressions.evaluate import compute
from curate.recipe.deciding import Sample
from curate.run.units import Answer, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables


def read_weights(rows: RowsLeft, weight: CheckedExpression) -> F64:
    """Return the weight of each row, 0 where it is never drawn (float64[n])."""
    values = np.asarray(compute(weight.sql, pa.float64(), rows.read(list(weight.columns) or ["row"])).to_numpy())
    return np.where(np.isfinite(values) & (values > 0), values, 0.0)


def weighted_keys(uids: pa.Array, weights: F64, seed: int) -> Keys:
    """Return what rows are ordered by: the bits of E/w, which ascend with it, the hash that gives E, and half a uid."""
    hashes = ids.hash_uids(uids, seed)
    with np.errstate(divide="ignore", over="ignore"):
        order = (exponentials(hashes) / weights).view(np.uint64)
    # A hash and the low half of a uid give its high half: no two rows are equal.
    return Keys(np.stack([order, hashes, ids.uid_halves(uids)[1]], axis=1), np.where(weights > 0, 0, -1))


@dataclass(frozen=True)
class WeightedChoice(Choice):
    """Which rows are taken, by E/w."""

    weight: CheckedExpression
    cut: Cut

    @property
    def threshold(self) -> float:
        """The first key that is not taken, τ; infinite where all are."""
        return float(self.cut.last[0, :1].view(np.float64)[0]) if self.cut.is_cut[0] else np.inf

    def inclusion(self, rows: RowsLeft) -> F64:
        """Return π = 1 − e^(−wτ)."""
        weights = read_weights(rows, self.weight)
        if not self.cut.is_cut[0]:
            return (weights > 0).astype(np.float64)
        return np.asarray(one_minus_exp(weights * self.threshold))

    def draws(self, rows: RowsLeft) -> F64:
        """Return each row's key over τ, below 1 iff it is taken."""
        keys = weighted_keys(rows.uids, read_weights(rows, self.weight), rows.seed)
        with np.errstate(invalid="ignore"):
            return self.cut.draws(keys, keys.values[:, 0].copy().view(np.float64) / self.threshold)

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        return float(self.cut.taken[0]), 0.0

    @property
    def label(self) -> str:
        """Return how many rows have a weight, where these are fewer than the sample is to have."""
        wanted, rows = int(self.cut.wanted[0]), int(self.cut.rows[0])
        return f"sample: {wanted:,} wanted, {rows:,} left with a positive weight" if rows < wanted else ""


class WeightedSample(Selection):
    """A random sample of a fixed number of rows, which are likelier by weight."""

    key, section = "sample", Sample
    meaning = "not in the weighted sample"
    sizes_of = ("rows",)

    def check(self, section: Sample, columns: pa.Schema, recipe: Any) -> None:
        weight = _checked(section, columns)
        if not (weight.kind.startswith(("FLOAT", "DOUBLE", "DECIMAL")) or weight.kind.endswith(("INT", "INTEGER"))):
            accepted = "accepted: a number, such as exp(clip_score / 0.05)"
            raise RecipeError(f"sample.weights: {section.weights!r} is of type {weight.kind}; {accepted}")

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        """Return the sample of the rows left, by counts of the keys' bits and the few keys that are left."""
        weight = _checked(section, run.columns)

        def keys(tables: OpenTables, state: Any) -> Keys:
            rows = run.rows_left(tables, state)
            return weighted_keys(rows.uids, read_weights(rows, weight), run.seed)

        cut = find_cut(units, "Sample", Search(np.array([section.rows])), keys, rounds=2)
        return units.get("Sample: choose", WeightedChoice, weight, cut)

    def words(self, outcome: Outcome) -> SelectionWords:
        rows = f"the {outcome.kept:,} rows that `sample` drew of {outcome.kept + outcome.dropped:,} by weight"
        return SelectionWords(
            kept=f": its draw {{draw}} is below 1 (probability {{probability}}), among {rows}",
            dropped=f"its draw {{draw}} is not below 1 (probability {{probability}}), not among {rows}",
            card=f"{outcome.section.rows:,} rows at random without replacement, by the weight "
            f"`{outcome.section.weights}`; seed {outcome.seed}",
            summary=[outcome.choice.label] if outcome.choice.label else [],
        )


def _checked(section: Sample, columns: pa.Schema) -> CheckedExpression:
    return check_expression("sample.weights", required(section.weights), columns)
