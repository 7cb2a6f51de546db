"""`balance: {of: COLUMN}`: balancing over the values of a column (clusters, tags), as over metadata entries.

The values are the entries: each row has just one, and π is its p. Rows without a value are never drawn. Counts, the
search for t, limits and draws are `balance`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import F64, I64
from curate.decide.draw.balance import BalanceSelection, LimitsChoice
from curate.decide.draw.groups import ColumnGroups, check_groups, find_groups
from curate.decide.draw.selection import FindRows, Outcome, RowsLeft, Selection, SelectionRun, required
from curate.match.unit import Entries
from curate.recipe.deciding import Balance
from curate.run.units import Answer, Units
from curate.store.facts import RunFacts, SelectionWords
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class Values:
    """The values of a column, as entries."""

    groups: ColumnGroups

    @cached_property
    def entries(self) -> Entries:
        none = pa.nulls(len(self.groups), pa.string())
        return Entries(pa.table({"entry": self.groups.names, "source": none, "language": none}))

    def of_rows(self, rows: RowsLeft) -> RowsLeft:
        """Return rows whose entries are their values."""
        return ValuedRows(
            **{field.name: getattr(rows, field.name) for field in fields(RowsLeft)} | {"entries": self.entries},
            groups=self.groups,
        )


@dataclass(frozen=True)
class ValuedRows(RowsLeft):
    """Rows whose entries are the values of a column."""

    groups: ColumnGroups = field(kw_only=True)

    @cached_property
    def matches(self) -> pa.ListArray:
        """The number of each row's value (list<int32>), none where it has no value."""
        places = self.groups.places(self)
        ends = pa.array(np.concatenate([[0], np.cumsum(places >= 0)]), pa.int32())
        matches: pa.ListArray = pa.ListArray.from_arrays(ends, pa.array(places[places >= 0], pa.int32()))
        return matches


@dataclass(frozen=True)
class ValuedRun(SelectionRun):
    """A run whose entries are the values of a column."""

    values: Values = field(kw_only=True)

    @classmethod
    def of(cls, run: SelectionRun, groups: ColumnGroups) -> "ValuedRun":
        values = Values(groups)
        return cls(**vars(run) | {"rows_left": partial(_rows_left, run.rows_left, values), "values": values})

    @property
    def entries(self) -> Entries:
        return self.values.entries


@dataclass(frozen=True)
class ValuesChoice(LimitsChoice):
    """Limits of values."""

    values_of: Values = field(kw_only=True)

    def rows(self, rows: RowsLeft) -> RowsLeft:
        return self.values_of.of_rows(rows)

    def entry_probabilities(self) -> F64 | None:
        """Return None: metadata's entries, if there are any, draw no rows."""
        return None

    def shares(self, survivors: I64, kept: I64 | F64) -> Mapping[str, float | None]:
        """Return the share of the tail, and the smallest above 0: not of metadata's entries."""
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
        groups = find_groups(units, "Balance", run, required(section.of))
        valued = units.get("Balance: run", ValuedRun.of, run, groups)
        # In a part of the pool, counts are those that the whole would have.
        counts = units.get("Balance: counts", lambda of: np.rint(of.rows / run.fraction).astype(np.int64), groups)
        limits = self.search(units, section, valued, counts)
        return units.get("Balance: of values", _of_values, limits, groups)

    def recorded(self, section: Balance, facts: RunFacts, run: SelectionRun, counts: I64) -> LimitsChoice | None:
        """Return None: the counts of values are not recorded."""
        return None

    def words(self, outcome: Outcome) -> SelectionWords:
        words, of = super().words(outcome), outcome.section.of
        label = f"values of {of} with more than {outcome.choice.label} samples are downsampled to t, in expectation"
        changed = {"kept": f": its {of} is {{value}}, and{words.kept[1:]}", "of": of, "by_entries": False}
        changed |= {"dropped": f"its {of} is {{value}}, and {words.dropped}", "card": f"{label}; seed {outcome.seed}"}
        return words.model_copy(update=changed)


class Balances(BalanceSelection):
    """What `balance` says: over metadata entries, or over the values of a column."""

    def form(self, section: Balance) -> Selection:
        return ValuesBalance() if section.of else self


def _rows_left(find: FindRows, values: Values, tables: UnitTables, state: Any) -> RowsLeft:
    return values.of_rows(find(tables, state))


def _of_values(choice: LimitsChoice, groups: ColumnGroups) -> ValuesChoice:
    return ValuesChoice(choice.solution, choice.counts, choice.limits, values_of=Values(groups))
