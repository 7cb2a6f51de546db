"""The last choice among the rows left, over all units: entries are counted, a choice is made, and each row is drawn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64
from curate.decide.draw import balance
from curate.decide.draw.balance import EntryVector, SparseSums
from curate.decide.draw.selection import Choice
from curate.decide.settings import DecideSettings
from curate.decide.unit_decisions import decide
from curate.decide.unit_matches import all_matches, count_entries, sum_entries
from curate.decide.unit_state import UnitState
from curate.pool.plan import Unit
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


class AddEntries(Fold):
    """Add up sums by entry, sparse ones of units, to a vector of all entries: int64[entries], or [sums, entries]."""

    def __init__(self, settings: DecideSettings) -> None:
        super().__init__()
        self._settings = settings

    def add(self, accumulator: I64 | None, part: SparseSums) -> I64:
        """Return the vector with a unit's sums."""
        if accumulator is None:
            return _travelling(part.dense(len(self._settings.entries.table)))
        accumulator[..., part.entries] += part.values
        return accumulator

    def result(self, accumulator: I64) -> I64:
        """Return the sums."""
        return _travelling(accumulator)


def _travelling(sums: Any) -> I64:
    """Return numbers of all entries as what travels small where few are other than 0."""
    return np.asarray(sums).view(EntryVector)


def count_matches(units: Units, settings: DecideSettings) -> Answer:
    """Count the rows that match each entry: int64[2, entries], all rows and those that reach deduplication."""
    return units.ask("Counts: matches", _count_all_and_alive, settings, combine=AddEntries(settings))


def _count_all_and_alive(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    weights = [np.ones(len(state.verdicts), np.int64), state.alive.astype(np.int64)]
    yield balance.sparse_sums(all_matches(tables), weights, len(settings.entries.table))


def pool_counts(matches: I64) -> I64:
    """Return the counts of all rows, of those of `count_matches`."""
    return _travelling(matches[0])


def count_survivors(units: Units, settings: DecideSettings, matches: Answer) -> Answer:
    """Count the rows left that match each entry: int64[entries].

    They are those of `matches` (of `count_matches`) less the duplicates: a unit that has none is not read again. With
    rules after deduplication all rows are counted again.
    """
    if settings.has_later_rules:
        return count_alive(units, settings)
    duplicates = units.ask("Counts: duplicates", _count_duplicates, settings, combine=AddEntries(settings))
    return units.get("Counts: less duplicates", _less_duplicates, matches, duplicates)


def _count_duplicates(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    if len(state.duplicates):
        lost = all_matches(tables).take(pa.array(state.duplicates))
        yield balance.sparse_counts(lost, None, len(settings.entries.table))
    else:
        yield SparseSums(np.zeros(0, np.int32), np.zeros(0, np.int64))


def _less_duplicates(matches: I64, duplicates: I64) -> I64:
    return _travelling(matches[1] - duplicates)


def count_alive(units: Units, settings: DecideSettings) -> Answer:
    """Count the rows left that match each entry, by reading all of them: int64[entries]."""
    return units.ask("Counts: survivors", _count_alive, settings, combine=AddEntries(settings))


def _count_alive(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    yield count_entries(settings, tables, state.alive)


def choose(units: Units, settings: DecideSettings, counts: Answer | None) -> Answer | None:
    """Ask all units what the recipe's selection goes by: a Choice; None where all rows that are left are kept.

    `counts` are of `count_survivors`, None without `match`.
    """
    if settings.selection is None:
        return None
    selection, section = settings.selection
    return selection.choose(units, section, settings, counts)


def draw_rows(
    units: Units, settings: DecideSettings, unread: Answer, choice: Answer | None, counts: Answer | None
) -> Answer | None:
    """Draw, and write `decisions` of each unit; states become units again.

    `unread` are the files of all units that could not be read, `choice` is of `choose`, and `counts` of
    `count_survivors`. Returns int64[2, entries], the expected (fixed point) and kept rows of each entry; None without
    `match`.
    """
    units.then("Decide: decisions", _draw, unread, choice, counts, settings)
    if counts is None:
        return None
    return units.ask("Decide: sum entries", _sum_entries, settings, combine=AddEntries(settings))


def _draw(
    tables: OpenTables,
    state: UnitState,
    unread: list[str],
    choice: Choice | None,
    counts: I64 | None,
    settings: DecideSettings,
) -> Unit:
    with time_step(settings.store, "decide", state.unit.name) as timer:
        timer.rows = len(state.verdicts)
        decide(settings, tables, state, choice, counts, unread)
        timer.idle = "decisions" not in tables.written
        return state.unit


def _sum_entries(tables: OpenTables, unit: Unit, settings: DecideSettings) -> Iterator[SparseSums]:
    yield sum_entries(tables, len(settings.entries.table))
