"""`balance: {of: COLUMN}`: balancing over the values of a column (clusters, tags), as over metadata entries.

The values are the entries: each row has just one, and π is its p. Rows without a value are never drawn. Counts, the
search for t, limits and draws are `balance`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import F64, I64
from curate.decide.draw.balance import BalanceSelection, LimitsChoice
from curate.decide.draw.groups import ColumnGroups, check_groups, find_groups
from curate.decide.draw.selection import FindRows, Outcome, RowsLeft, Selection, SelectionRun, required
from curate.recipe.deciding import Balance
from curate.run.units import Answer, Units
from curate.store.facts import RunFacts, SelectionWords
from curate.store.tables import UnitTables


def with_values(rows: RowsLeft, groups: ColumnGroups) -> RowsLeft:
    """Return rows whose entries are their values."""
    return replace(rows, entries=groups.entries, find_matches=groups.matches)


def _rows_left(find: FindRows, groups: ColumnGroups, tables: UnitTables, state: Any) -> RowsLeft:
    return with_values(find(tables, state), groups)


@dataclass(frozen=True)
class ValuesChoice(LimitsChoice):
    """Limits of values."""

    groups: ColumnGroups = field(kw_only=True)

    def rows(self, rows: RowsLeft) -> RowsLeft:
        return with_values(rows, self.groups)

    def entry_probabilities(self) -> F64 | None:
        return None

    def shares(self, survivors: I64, kept: I64 | F64) -> Mapping[str, float | None]:
        shares = super().shares(self.counts, self.counts)
        return {name: shares[name] for name in ("tail_share", "smallest_tail_share")}


class ValuesBalance(BalanceSelection):
    """Balanced sampling over the values of a column."""

    needs_match = False
    meaning = "not drawn: its value is frequent"

    def columns(self, section: Balance) -> list[str]:
        return [required(section.of)]

    def check(self, section: Balance, columns: pa.Schema, recipe: Any) -> None:
        super().check(section, columns, recipe)
        check_groups("balance.of", required(section.of), columns)

    def choose(self, units: Units, section: Balance, run: SelectionRun, counts: Answer | None) -> Answer:
        def valued(groups: ColumnGroups) -> SelectionRun:
            return replace(run, rows_left=partial(_rows_left, run.rows_left, groups), groups=groups)

        def of_values(choice: LimitsChoice, groups: ColumnGroups) -> ValuesChoice:
            return ValuesChoice(choice.solution, choice.counts, choice.limits, groups=groups)

        groups = find_groups(units, "Balance", run, required(section.of))
        # In a part of the pool, counts are those that the whole would have.
        counts = units.get("Balance: counts", lambda groups: np.rint(groups.rows / run.fraction).astype("i8"), groups)
        limits = self.search(units, section, units.get("Balance: run", valued, groups), counts)
        return units.get("Balance: of values", of_values, limits, groups)

    def recorded(self, section: Balance, facts: RunFacts, run: SelectionRun, counts: I64) -> LimitsChoice | None:
        return None

    def words(self, outcome: Outcome) -> SelectionWords:
        words, column = super().words(outcome), outcome.section.of
        label = f"values of {column} with more than {outcome.choice.label} samples are downsampled to t, in expectation"
        changed = {
            "kept": f": its {column} is {{value}}, and{words.kept[1:]}",
            "dropped": f"its {column} is {{value}}, and {words.dropped}",
            "card": f"{label}; seed {outcome.seed}",
            "of": column,
            "by_entries": False,
        }
        return words.model_copy(update=changed)


class Balances(BalanceSelection):
    """What `balance` says: over metadata entries, or over the values of a column."""

    def form(self, section: Balance) -> Selection:
        return ValuesBalance() if section.of else self
