"""A unit's rows against the rules, segment by segment, with the columns that are derived between them.

What is global (thresholds of top rules, statistics) comes in as arguments, computed from the units' small answers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.numeric.arrays import F64, I64
from curate.base.numeric.quantiles import key_bits, order_keys
from curate.base.schema import CODES
from curate.decide.decontamination import find_contaminated
from curate.decide.rules.rules import first_failed
from curate.decide.rules.top import TopSearch, TopValues
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import DerivedValues, Fitted, Scale, StatisticCall, argument_values, read_columns
from curate.decide.statistics.ranks import ranks_of
from curate.decide.unit_matches import all_matches
from curate.decide.unit_state import ALIVE, UnitState
from curate.pool.plan import Unit
from curate.recipe.deciding import Top
from curate.store.forgotten import forgotten_mask
from curate.store.tables import UnitTables


def start_unit(tables: UnitTables, unit: Unit) -> UnitState:
    """Return all rows of a unit, the unreadable and the forgotten ones dropped."""
    samples = tables.read("samples", ["status", "characters"])
    is_readable = pc.equal(samples["status"], schema.OK).to_numpy()
    state = UnitState(unit, np.where(is_readable, np.int16(ALIVE), np.int16(CODES[schema.FAILED])))
    return state.drop(forgotten_mask(samples), CODES[schema.FORGOTTEN])


def apply_segment(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> UnitState:
    """Apply the SQL rules of a segment; before deduplication, `finish_rules`."""
    segment = settings.segments[index]
    if segment.rules:
        columns = list(dict.fromkeys(column for rule in segment.rules for column in rule.columns)) or ["row"]
        alive = state.alive
        table = read_columns(tables, settings.derived, state.derived, columns)
        failed = first_failed(segment.rules, table if alive.all() else table.filter(pa.array(alive)))
        verdicts = state.verdicts.copy()
        verdicts[alive] = np.where(failed >= 0, failed + segment.first, ALIVE)
        state = replace(state, verdicts=verdicts)
    return finish_rules(settings, tables, state) if segment.dedup else state


def finish_rules(settings: DecideSettings, tables: UnitTables, state: UnitState) -> UnitState:
    """Drop, after the last rule, what matches no entry, then what is near an image of the evaluation set."""
    if settings.matching:
        unmatched = pc.equal(pc.list_value_length(all_matches(tables)), 0).to_numpy(zero_copy_only=False)
        state = state.drop(unmatched, CODES[schema.UNMATCHED])
    if settings.against is None:
        return state
    rows, values = settings.against.read(tables, state.alive)
    near, names = find_contaminated(settings.store, settings.against, values)
    dropped = np.zeros(len(state.verdicts), bool)
    dropped[rows[near]] = True
    return replace(state.drop(dropped, CODES[schema.CONTAMINATED]), contaminated=rows[near], evaluated=names)


def start_top(settings: DecideSettings, index: int) -> TopSearch:
    """Return the search for the thresholds of a segment's top rule."""
    top = settings.segments[index].top
    assert top is not None and isinstance(top.spec, Top)
    return TopSearch(top.name, top.spec, settings.columns.field(top.columns[0]).type)


def top_values(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> TopValues:
    """Return the values of the column of a segment's top rule, of all rows."""
    top = settings.segments[index].top
    assert top is not None
    of, *by = top.columns
    table = read_columns(tables, settings.derived, state.derived, top.columns)
    keys, valid = order_keys(table[of], key_bits(settings.columns.field(of).type))
    return TopValues.of(keys, valid, table[by[0]] if by else None)


def apply_top(
    settings: DecideSettings, tables: UnitTables, state: UnitState, index: int, search: TopSearch
) -> UnitState:
    """Drop what is below the threshold of the segment's top rule, then apply the next segment."""
    segment = settings.segments[index]
    passing = search.passing(top_values(settings, tables, state, index))
    return apply_segment(settings, tables, state.drop(~passing, segment.first + len(segment.rules)), index + 1)


def statistic_values(
    settings: DecideSettings, tables: UnitTables, state: UnitState, index: int
) -> Iterator[tuple[tuple[str, int], StatisticCall, F64]]:
    """Yield (column, place) of each statistic after a segment, the statistic, and x of each row, NaN unless finite."""
    columns = [settings.derived[name] for name in settings.segments[index].derive]
    read = [name for column in columns for name in column.columns if column.statistics]
    table = read_columns(tables, settings.derived, state.derived, list(dict.fromkeys(read)))
    for column in columns:
        for place, statistic in enumerate(column.statistics):
            yield (column.name, place), statistic, argument_values(statistic, table)


def summarise_statistics(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> list[Fitted]:
    """Return what the statistics after a segment need to know of a unit's rows that reached them."""
    values = statistic_values(settings, tables, state, index)
    return [Fitted.of(statistic.function, x[state.alive & ~np.isnan(x)]) for _, statistic, x in values]


def apply_derived(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    index: int,
    scales: Mapping[tuple[str, int], Scale],
    up_to: Mapping[tuple[str, int], I64],
) -> UnitState:
    """Return the state with the columns that are known after a segment, and the next segment applied.

    `up_to` are of each quantile, as `ranks_of` takes them.
    """
    values = statistic_values(settings, tables, state, index) if up_to else ()
    ranks = {at: ranks_of(x, up_to[at]) for at, statistic, x in values if at in up_to}
    known = dict(state.derived)
    for name in settings.segments[index].derive:
        places = range(len(settings.derived[name].statistics))
        of_column = {place: ranks[name, place] for place in places if (name, place) in ranks}
        known[name] = DerivedValues(tuple(scales[name, place] for place in places), of_column)
    return apply_segment(settings, tables, replace(state, derived=known), index + 1)
