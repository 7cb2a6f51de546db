"""`sample` keeps exactly N rows, those with the smallest hash(seed, uid), however the pool is sharded; or other forms.

`weights` draws N rows without replacement, in proportion to weights: those with the smallest E/w, where E is an
exponential number from hash(seed, uid). Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir"
(2006). If τ is the first key that is not taken, π = 1 − e^(−wτ) (Cohen and Kaplan, "Summarizing data using bottom-k
sketches", 2007). Rows whose weight is null, NaN, infinite or not positive are never drawn.

`mixture` gives each value of a column a share of N rows. A group with too few rows is kept whole, and other groups do
not make up for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64, I64
from curate.base.numeric.elementary import exponentials, one_minus_exp
from curate.decide.draw.groups import ColumnGroups, CutChoice, GroupsChoice, check_groups, random_keys
from curate.decide.draw.selection import Outcome, RowsLeft, Selection, SelectionRun, required
from curate.decide.draw.smallest import Cut, Keys, find_cut
from curate.expressions.check import CheckedExpression, check_expression
from curate.expressions.evaluate import compute
from curate.recipe.deciding import FORMS, Sample
from curate.recipe.section import AnyColumn, Section
from curate.run.units import Answer, Units
from curate.store.facts import SelectionWords

_SHOWN = 20  # groups named in a text


def read_weights(rows: RowsLeft, weight: CheckedExpression) -> F64:
    """Return the weight of each row, 0 if it is never drawn (float64[n])."""
    values = np.asarray(compute(weight.sql, pa.float64(), rows.read(list(weight.columns) or ["row"])).to_numpy())
    return np.where(np.isfinite(values) & (values > 0), values, 0.0)


def weighted_keys(uids: pa.Array, weights: F64, seed: int) -> Keys:
    """Return keys that order rows: the bits of E/w, which increase with it, the hash behind E, and half of the uid."""
    hashes = ids.hash_uids(uids, seed)
    with np.errstate(divide="ignore", over="ignore"):
        order = (exponentials(hashes) / weights).view(np.uint64)
    # The hash and the low half of a uid determine its high half, so no two uids are equal.
    return Keys(np.stack([order, hashes, ids.uid_halves(uids)[1]], axis=1), np.where(weights > 0, 0, -1))


@dataclass(frozen=True)
class WeightedChoice(CutChoice):
    """Takes rows by E/w."""

    weight: CheckedExpression

    def keys(self, rows: RowsLeft) -> Keys:
        return weighted_keys(rows.uids, read_weights(rows, self.weight), rows.seed)

    @property
    def threshold(self) -> float:
        """The first key that is not taken, τ; infinite if all are taken."""
        return float(self.cut.last[0, :1].view(np.float64)[0]) if self.cut.is_cut[0] else np.inf

    def inclusion(self, rows: RowsLeft) -> F64:
        weights = read_weights(rows, self.weight)
        if not self.cut.is_cut[0]:
            return (weights > 0).astype(np.float64)
        return np.asarray(one_minus_exp(weights * self.threshold))

    def draws(self, rows: RowsLeft) -> F64:
        keys = self.keys(rows)
        with np.errstate(invalid="ignore"):
            return self.cut.draws(keys, keys.values[:, 0].copy().view(np.float64) / self.threshold)

    @property
    def label(self) -> str:
        wanted, rows = int(self.cut.wanted[0]), int(self.cut.rows[0])
        return f"sample: {wanted:,} rows wanted, but only {rows:,} have a positive weight" if rows < wanted else ""


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
        choice = WeightedChoice(Cut.wanting(np.array([section.rows])), _checked(section, run.columns))
        return find_cut(units, "Sample", run, choice, rounds=2)

    def words(self, outcome: Outcome) -> SelectionWords:
        rows = f"the {outcome.kept:,} rows that `sample` drew by weight from {outcome.kept + outcome.dropped:,}"
        return SelectionWords(
            kept=f": its draw {{draw}} is below 1 (probability {{probability}}), so it is among {rows}",
            dropped=f"its draw {{draw}} is not below 1 (probability {{probability}}), so it is not among {rows}",
            card=f"{outcome.section.rows:,} rows at random without replacement, by the weight "
            f"`{outcome.section.weights}`; seed {outcome.seed}",
            summary=[outcome.choice.label] if outcome.choice.label else [],
        )


def _checked(section: Sample, columns: pa.Schema) -> CheckedExpression:
    return check_expression("sample.weights", required(section.weights), columns)


class Mixture(Section):
    """Draws a sample in which each value of a column has a fixed share.

    The rows with the same value are a group. curate draws from each group at random, and `probability` is the fraction
    that it draws. It rounds the number of rows in each group by the method of largest remainders. If a group has too
    few rows, curate takes all of them, and the run reports this. Rows with null, or with a value that `shares` does not
    list, are not drawn. With the same shares, a smaller mixture is part of a larger one.
    """

    example: ClassVar[Any] = {"of": "source", "rows": 100000, "shares": {"cc12m": 0.7, "web": 0.3}}

    of: AnyColumn = Field(examples=["source"])
    """Column of integers, texts, or booleans, such as source, language, or clusters."""
    rows: int = Field(examples=[100000], ge=1, lt=2**53, strict=True)
    """Total number of rows."""
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(
        examples=[{"cc12m": 0.7, "web": 0.3}], min_length=1, max_length=1000
    )
    """Share of each value, relative to the others: 0.7 and 0.3 mean the same as 7 and 3."""

    @field_validator("shares", mode="before")
    @classmethod
    def _names(cls, shares: Any) -> Any:
        if not isinstance(shares, dict):
            return shares
        return {str(key).lower() if isinstance(key, bool) else str(key): share for key, share in shares.items()}


def split_rows(rows: int, shares: Sequence[float]) -> I64:
    """Return the number of rows for each share, exactly, by largest remainders, the first of ties (int64)."""
    parts = [Fraction(share) for share in shares]
    exact = [rows * part / sum(parts) for part in parts]
    floors = [int(part) for part in exact]
    for i in sorted(range(len(exact)), key=lambda i: floors[i] - exact[i])[: rows - sum(floors)]:
        floors[i] += 1
    return np.array(floors, np.int64)


@dataclass(frozen=True)
class MixtureChoice(GroupsChoice):
    """Takes rows of each value with a share."""

    @property
    def lines(self) -> list[str]:
        lines = [
            f"{self.groups.column} {name}: {rows:,} left, {wanted:,} wanted, {kept:,} kept"
            + (" (all of them)" if kept < wanted else "")
            for name, rows, wanted, kept in self._numbers
        ]
        return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN:,} more"]

    @property
    def values(self) -> Mapping[str, Any]:
        return {"groups": {name: {"left": n, "wanted": w, "kept": k} for name, n, w, k in self._numbers}}

    @property
    def _numbers(self) -> Iterator[tuple[Any, ...]]:
        counts = (self.cut.rows, self.cut.wanted, self.cut.taken)
        return zip(self.groups.names.to_pylist(), *(numbers.tolist() for numbers in counts), strict=True)

    def shortfall(self, section: Sample) -> str:
        few = self.groups.names.filter(pa.array(self.cut.rows < self.cut.wanted)).to_pylist()
        named = ", ".join(map(repr, few[:_SHOWN]))
        of_them = f"{int(self.cut.taken.sum()):,} of {int(self.cut.wanted.sum()):,} rows"
        return f"sample.mixture: too few rows with {self.groups.column} {named}: it has {of_them}" if few else ""


class MixtureSample(Selection):
    """A sample in which each value of a column has a share."""

    key, section = "sample", Sample
    meaning = "not in the mixture"
    sizes_of = ("mixture.rows",)

    def columns(self, section: Sample) -> Sequence[str]:
        return [required(section.mixture).of]

    def check(self, section: Sample, columns: pa.Schema, recipe: Any) -> None:
        check_groups("sample.mixture.of", required(section.mixture).of, columns)

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        mixture = required(section.mixture)
        shares = dict(sorted(mixture.shares.items()))
        nothing = np.zeros(len(shares), np.int64)
        groups = ColumnGroups(mixture.of, pa.array(shares, pa.string()), nothing, nothing)
        wanted = split_rows(mixture.rows, list(shares.values()))
        return find_cut(units, "Mixture", run, MixtureChoice(Cut.wanting(wanted), groups))

    def words(self, outcome: Outcome) -> SelectionWords:
        choice = outcome.choice
        return SelectionWords(
            kept=f": its {choice.groups.column} is {{value}}; it was drawn with probability {{probability}}",
            dropped=f"its {choice.groups.column} is {{value}}; it was not drawn (probability {{probability}})",
            card=f"at random by {choice.groups.column}: {'; '.join(choice.lines)}; seed {outcome.seed}",
            summary=[f"mixture: {line}" for line in choice.lines],
            of=choice.groups.column,
        )


@dataclass(frozen=True)
class SampleChoice(CutChoice):
    """Takes rows of the whole pool, as a single group."""

    is_uniform = True

    def keys(self, rows: RowsLeft) -> Keys:
        return random_keys(rows.uids, rows.seed, np.zeros(len(rows), np.int64))

    def inclusion(self, rows: RowsLeft) -> F64:
        return np.full(len(rows), self.cut.shares[0])

    def say(self, section: Sample, fraction: float) -> str:
        return format_shortage(section.rows or 0, round(int(self.cut.rows[0]) / fraction))


def format_shortage(wanted: int, left: int) -> str:
    """Return a warning if fewer rows are left than the sample needs; otherwise empty."""
    return f"sample: {wanted:,} rows wanted, but only {left:,} left" if left < wanted else ""


class SampleSelection(Selection):
    """The selection of section `sample`: with only `rows`, a random sample of that size; otherwise another form."""

    key, section = "sample", Sample
    meaning = "not in the random sample"
    sizes_of = ("rows",)

    @property
    def forms(self) -> Mapping[str, Selection]:
        return {"weights": WeightedSample()} | {key: form.selection for key, form in FORMS.kinds().items()}

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        return find_cut(units, "Sample", run, SampleChoice(Cut.wanting(np.array([section.rows]))))

    def words(self, outcome: Outcome) -> SelectionWords:
        of_them = f"{outcome.kept:,} rows that `sample` drew at random from {outcome.kept + outcome.dropped:,}"
        return SelectionWords(
            kept=f": it is among the {of_them}",
            dropped=f"it is not among the {of_them}",
            card=f"a random sample of {outcome.section.rows:,}, or all if there are fewer; seed {outcome.seed}",
            summary=[line] if (line := format_shortage(outcome.section.rows, outcome.kept + outcome.dropped)) else [],
        )

    def form(self, section: Sample) -> Selection:
        return self.forms.get(section.form, self)
