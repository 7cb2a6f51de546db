"""`sample: {mixture: {of, rows, shares}}`: N rows, of which each value of a column has a given share.

Of a group, the rows with the smallest hash(seed, uid) are taken, so larger draws hold the smaller ones; π is the part
of its group that is taken. Numbers of rows are rounded by largest remainders. A group with too few rows gives all that
it has, and no other one gives more for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64
from curate.decide.draw.groups import ColumnGroups, GroupsChoice, check_groups, group_keys
from curate.decide.draw.selection import Outcome, Selection, SelectionRun, required
from curate.decide.draw.smallest import Keys, Search, find_cut
from curate.recipe.deciding import Sample
from curate.run.units import Answer, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables

_SHOWN = 20  # groups of a text


def split_rows(rows: int, shares: Sequence[float]) -> I64:
    """Return how many rows each share has of the whole, exactly, by largest remainders, the first of equals (int64)."""
    parts = [Fraction(share) for share in shares]
    exact = [rows * part / sum(parts) for part in parts]
    floors = [int(part) for part in exact]
    for place in sorted(range(len(exact)), key=lambda place: floors[place] - exact[place])[: rows - sum(floors)]:
        floors[place] += 1
    return np.array(floors, np.int64)


@dataclass(frozen=True)
class MixtureChoice(GroupsChoice):
    """Which rows are taken of each value that has a share."""

    @property
    def lines(self) -> list[str]:
        """What each group has, wants and gives, in words."""
        names = self.groups.names.to_pylist()
        numbers = zip(names, *(of.tolist() for of in (self.cut.rows, self.cut.wanted, self.cut.taken)), strict=True)
        lines = [
            f"{self.groups.column} {name}: {rows:,} left, {wanted:,} wanted, {kept:,} kept"
            + (", all that it has" if kept < wanted else "")
            for name, rows, wanted, kept in numbers
        ]
        return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN:,} more"]

    @property
    def values(self) -> Mapping[str, Any]:
        """Return of each group the rows left, wanted and kept."""
        of_groups = zip(self.groups.names.to_pylist(), self.cut.rows, self.cut.wanted, self.cut.taken, strict=True)
        return {"groups": {name: {"left": int(n), "wanted": int(w), "kept": int(k)} for name, n, w, k in of_groups}}

    def shortfall(self, section: Sample) -> str:
        few = self.groups.names.filter(pa.array(self.cut.rows < self.cut.wanted)).to_pylist()
        named = ", ".join(map(repr, few[:_SHOWN]))
        of_them = f"{int(self.cut.taken.sum()):,} rows of {int(self.cut.wanted.sum()):,}"
        return f"sample.mixture: too few rows of {self.groups.column} {named}; it has {of_them}" if few else ""


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
        """Return what is taken of each group, by counts of keys' bits and the few keys that are left."""
        mixture = required(section.mixture)
        shares = dict(sorted(mixture.shares.items()))
        nothing = np.zeros(len(shares), np.int64)
        groups = ColumnGroups(mixture.of, pa.array(shares, pa.string()), nothing, nothing)

        def keys(tables: OpenTables, state: Any) -> Keys:
            return group_keys(run.rows_left(tables, state), groups)

        wanted = split_rows(mixture.rows, list(shares.values()))
        return units.get("Mixture: choose", MixtureChoice, groups, find_cut(units, "Mixture", Search(wanted), keys))

    def words(self, outcome: Outcome) -> SelectionWords:
        choice = outcome.choice
        return SelectionWords(
            kept=f": {choice.groups.column} {{value}}, of which {{probability}} are drawn at random",
            dropped=f"{choice.groups.column} {{value}}, of which {{probability}} are drawn at random",
            card=f"at random by {choice.groups.column}: {'; '.join(choice.lines)}; seed {outcome.seed}",
            summary=[f"mixture: {line}" for line in choice.lines],
            of=choice.groups.column,
        )
