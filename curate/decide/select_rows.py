"""The selection among the remaining rows: counts entries, makes a choice, draws each row, and writes `decisions`."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema, stages
from curate.base.numeric.arrays import F64, I32, I64
from curate.base.stages import CODES
from curate.decide.draw.entry_sums import EntryVector, SparseSums, sparse_counts, sparse_sums
from curate.decide.draw.inclusion import fixed_point
from curate.decide.draw.selection import Choice, FindRows
from curate.decide.rules.row_counts import RowFacts, count_rows
from curate.decide.settings import DecideSettings, has_cosines
from curate.decide.unit_state import UnitState, name_verdicts
from curate.match.unit import read_matches
from curate.pool.plan import Unit
from curate.recipe.output import MAX_REPEATS
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import time_step


class AddEntries(Fold):
    """Add sparse sums of units to a vector of all entries: int64[entries], or [sums, entries]."""

    tree = Fold[I64]()

    def add(self, accumulator: I64 | None, part: SparseSums) -> I64:
        if accumulator is None:
            return EntryVector.of(part.dense(part.size))
        accumulator[..., part.entries] += part.values
        return accumulator


def count_matches(units: Units, settings: DecideSettings) -> Answer[I64]:
    """Count the rows that match each entry: int64[2, entries], for all rows and for those that reach deduplication."""

    def count(tables: OpenTables, state: UnitState) -> list[SparseSums]:
        weights = [np.ones(len(state.verdicts), np.int64), state.surviving.astype(np.int64)]
        return [sparse_sums(read_matches(tables), weights, settings.n_entries)]

    return units.ask("Counts: matches", count, combine=AddEntries())


def count_survivors(units: Units, settings: DecideSettings, matches: Answer[I64]) -> Answer[I64]:
    """Count the remaining rows that match each entry: int64[entries].

    These are the counts of `count_matches` without duplicates, so units without duplicates are not read again; with
    rules after deduplication all rows are counted again.
    """
    if settings.has_later_rules:
        return count_alive(units, settings)
    duplicates = units.ask("Counts: duplicates", _count_duplicates, settings, combine=AddEntries())
    return units.get("Counts: less duplicates", lambda before, lost: before[1] - lost, matches, duplicates)


def _count_duplicates(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    if state.duplicates:
        lost = read_matches(tables).take(pa.array(state.duplicates.rows, pa.int64()))
        yield sparse_counts(lost, settings.n_entries)
    else:
        yield SparseSums(np.zeros(0, np.int32), np.zeros(0, np.int64), settings.n_entries)


def count_alive(units: Units, settings: DecideSettings, rows_left: FindRows | None = None) -> Answer[I64]:
    """Count all remaining rows that match each entry: int64[entries]. `rows_left` may find a unit's rows in memory."""
    find = rows_left or settings.rows_left

    def count(tables: OpenTables, state: UnitState) -> list[SparseSums]:
        return [sparse_counts(find(tables, state).matches, settings.n_entries)]

    return units.ask("Counts: survivors", count, combine=AddEntries())


def choose(units: Units, settings: DecideSettings, counts: Answer[I64] | None) -> Answer[Choice] | None:
    """Let the selection ask all units, with the `counts` of remaining rows, if any; None if all rows are kept."""
    if settings.selection is None:
        return None
    selection, section = settings.selection
    return selection.choose(units, section, settings.selection_run, counts)


def draw_rows(
    units: Units, settings: DecideSettings, unread: Answer, choice: Answer[Choice] | None, counts: Answer[I64] | None
) -> Answer[I64] | None:
    """Draw rows, and write `decisions` of each unit; states become units again. See `decide` for the values.

    Returns int64[2, entries], the expected (fixed point) and kept rows of each entry; None without `match`.
    """
    units.then("Decide: decisions", decide, settings, choice, counts, unread)
    if counts is None:
        return None
    return units.ask("Decide: sum entries", sum_entries, settings, combine=AddEntries())


def sum_entries(tables: UnitTables, unit: Unit, settings: DecideSettings) -> Iterator[SparseSums]:
    """Yield the expected rows of each entry in a decided unit in fixed point (2⁻³²), and the kept rows."""
    table = tables.read("decisions", ["kept", "probability"])
    kept = table["kept"].to_numpy()
    expected = fixed_point(expected_kept(table)).astype(np.int64)
    yield sparse_sums(read_matches(tables), [expected, kept.astype(np.int64)], settings.n_entries)


def expected_kept(decisions: pa.Table) -> F64:
    """Return the probability of each row of `decisions` (float64[rows]); 1 or 0 for rows without one."""
    kept: Any = pc.cast(decisions["kept"], pa.float64())
    return np.asarray(pc.coalesce(decisions["probability"], kept).to_numpy(), np.float64)


def decide(
    tables: OpenTables,
    state: UnitState,
    settings: DecideSettings,
    choice: Choice | None,
    counts: I64 | None,
    unread: Sequence[str] = (),
) -> Unit:
    """Draw rows, and write the unit's `decisions`, and `derived` if the recipe has derived columns, unless current.

    `choice` is the choice of the recipe's selection, None if all remaining rows are kept. `counts` (int64[entries]) are
    the remaining rows of all units that match each entry, None without `match`. `unread` are the files of all units
    that could not be read, in any order; if other files are missing, everything is decided again.
    """
    with time_step(settings.store, "decide", state.unit.name) as timer:
        timer.rows, key = len(state.verdicts), settings.key_without(unread)
        # Not adopted from other runs, because they are cheap.
        if not tables.is_done("decisions", key, adopt=False):
            tables.write("decisions", _decisions(tables, state, settings, choice, counts), key)
        if settings.derived and not tables.is_done("derived", key, adopt=False):
            tables.write("derived", _derived(tables, state, settings), key)
        timer.idle = "decisions" not in tables.written
        return state.unit


def _derived(tables: OpenTables, state: UnitState, settings: DecideSettings) -> pa.Table:
    base = tables.read("samples", [field.name for field in schema.ALIGNED])
    table = settings.read(tables, state, list(settings.derived))
    is_there = pa.array(state.verdicts != CODES[stages.FORGOTTEN])
    for column in settings.derived.values():  # null, as `forget` leaves them, whatever the expression does with nulls
        values = pc.if_else(is_there, table[column.name], pa.scalar(None, column.kind))
        base = base.append_column(pa.field(column.name, column.kind), values)
    return base


def _decisions(
    tables: OpenTables, state: UnitState, settings: DecideSettings, choice: Choice | None, counts: I64 | None
) -> pa.Table:
    base = tables.read("samples", ["unit", "row", "uid"])
    eligible = state.eligible
    probability = eligible.astype(np.float64)
    draws = np.full(len(base), np.nan)
    repeats = np.zeros(len(base), np.int32)
    if choice is not None and eligible.any():
        rows = settings.rows_left(tables, state)
        draws[eligible] = choice.draws(rows)
        probability[eligible] = choice.inclusion(rows) if choice.is_random else np.nan
        draws[~state.surviving] = np.nan
        times = choice.repeats(draws[eligible])
        repeats[eligible] = draws[eligible] < 1 if times is None else times
        state = state.drop(eligible & (draws >= 1), CODES[stages.SELECTION])
    selection = settings.selection[0].key if settings.selection else None
    names = name_verdicts(state.verdicts, list(settings.recipe.rules), selection)
    likely, drawn = (pa.array(values, mask=np.isnan(values)) for values in (probability, draws))
    columns = [*base.columns, pa.array(state.surviving), names, _partners(state, len(base)), likely, drawn]
    table = pa.Table.from_arrays(columns, schema=schema.DECISIONS)
    if has_cosines(settings.recipe):  # the cosine that joined each duplicate
        cosines = np.zeros(len(base), np.float32)
        if state.duplicates and state.duplicates.cosines is not None:
            cosines[state.duplicates.rows] = state.duplicates.cosines
        table = table.append_column(schema.DUPLICATE_COSINE, pa.array(cosines, mask=cosines == 0))
    if settings.repeat is not None:
        repeats = np.where(state.surviving, count_repeats(tables, state, settings, counts, probability), np.int32(0))
    return table.append_column(schema.REPEATS, pa.array(repeats)) if settings.recipe.repeats else table


def count_repeats(
    tables: UnitTables, state: UnitState, settings: DecideSettings, counts: I64 | None, probability: F64
) -> I32:
    """Return how often each remaining row is in the curated set if kept, at least once; 0 for others."""
    assert settings.repeat is not None
    rows = np.flatnonzero(state.eligible)
    matches = None if counts is None else settings.rows_left(tables, state).matches
    facts = RowFacts(rows, probability[rows], matches, counts)
    out = np.zeros(len(state.verdicts), np.int32)
    read = partial(settings.read, tables, state)
    out[rows] = np.maximum(1, count_rows(settings.repeat, settings.columns, read, facts, MAX_REPEATS))
    return out


def _partners(state: UnitState, n_rows: int) -> pa.Array:
    partners: pa.Array = pa.nulls(n_rows, pa.string())
    if state.duplicates:
        partners = _put(partners, state.duplicates.rows, ids.hex_uids(*state.duplicates.representatives))
    return _put(partners, state.contaminated.rows, state.contaminated.images) if state.contaminated else partners


def _put(column: pa.Array, rows: I32 | I64, values: pa.Array) -> pa.Array:
    mask = np.zeros(len(column), bool)
    mask[rows] = True
    replaced: pa.Array = pc.replace_with_mask(column, pa.array(mask), values)
    return replaced
