"""Applies the rules of a run to all units, segment by segment. Between segments, it computes statistics of all units.

A unit's state has two bytes per row. Top rules find their thresholds by counting digits in rounds; quantiles group keys
by their first digit and count them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema, stages
from curate.base.numeric.arrays import F64, I64, U64, whole
from curate.base.numeric.quantiles import key_bits, order_keys
from curate.base.stages import CODES
from curate.decide.decontamination import find_contaminated
from curate.decide.draw.selection import required
from curate.decide.rules.rules import first_failed
from curate.decide.rules.top import Counts, TopSearch, TopValues, add_counts
from curate.decide.settings import DecideSettings
from curate.decide.statistics import derived
from curate.decide.statistics.derived import At, Fits, Fitted, StatisticCall
from curate.decide.unit_state import SURVIVING, Contaminated, UnitState
from curate.match.unit import read_matches
from curate.pool.plan import Unit
from curate.recipe.deciding import Top
from curate.run.units import Answer, Fold, ToUnit, Units
from curate.store.forgotten import forgotten_mask
from curate.store.tables import OpenTables
from curate.store.timings import time_step

RuleAnswer = TopSearch | Fits  # from all units: a top rule's finished search, or statistics of a segment
Answers = list[Answer[Any]]  # of RuleAnswer, in the order of the rules
Ranks = tuple[At, int, I64]  # of a statistic and a digit: for each of a unit's keys the number of rows up to it


def apply_rules(units: Units, settings: DecideSettings) -> Answers:
    """Apply the rules before deduplication."""
    units.then("Rules", start_unit, settings)
    return apply_segments(units, settings)


def apply_later_rules(units: Units, settings: DecideSettings) -> Answers:
    """Apply the rules after deduplication."""
    if not settings.has_later_rules:
        return []
    units.then("Later rules", apply_segment, settings, settings.later)
    return apply_segments(units, settings, settings.later)


def apply_segments(units: Units, settings: DecideSettings, first: int = 0) -> Answers:
    """Apply the statistics, top rules and segments that follow segment number `first`, up to deduplication."""
    answers: Answers = []
    for i, segment in enumerate(settings.segments[first:], first):
        if segment.dedup:
            break
        if segment.derive:
            answers.append(_derive(units, settings, i))
        elif segment.top is not None:
            answers.append(_apply_top(units, settings, i))
    return answers


def start_unit(tables: OpenTables, unit: Unit, settings: DecideSettings) -> UnitState:
    """Return the first state of a unit: unreadable and forgotten rows are dropped, and the first segment is applied."""
    with time_step(settings.store, "rules", unit.name) as timer:
        samples = tables.read("samples", ["status", "characters"])
        is_readable = pc.equal(samples["status"], pa.scalar(schema.OK)).to_numpy()
        state = UnitState(unit, np.where(is_readable, np.int16(SURVIVING), np.int16(CODES[stages.FAILED])))
        timer.rows = len(state.verdicts)
        return apply_segment(tables, state.drop(forgotten_mask(samples), CODES[stages.FORGOTTEN]), settings, 0)


def apply_segment(tables: OpenTables, state: UnitState, settings: DecideSettings, index: int) -> UnitState:
    """Apply the SQL rules of a segment; before deduplication, also drop unmatched rows and those near an evaluation."""
    segment = settings.segments[index]
    if segment.rules:
        columns = list(dict.fromkeys(column for rule in segment.rules for column in rule.columns)) or ["row"]
        surviving = state.surviving
        table = settings.read(tables, state, columns)
        failed = first_failed(segment.rules, table if surviving.all() else table.filter(pa.array(surviving)))
        verdicts = state.verdicts.copy()
        verdicts[surviving] = np.where(failed >= 0, failed + segment.first, SURVIVING)
        state = replace(state, verdicts=verdicts)
    if segment.dedup and settings.matching:
        unmatched = pc.equal(pc.list_value_length(read_matches(tables)), pa.scalar(0)).to_numpy(zero_copy_only=False)
        state = state.drop(unmatched, CODES[stages.UNMATCHED])
    if segment.dedup and settings.against:
        rows, values = settings.against.read(tables, state.surviving)
        near, images = find_contaminated(settings.store, settings.against, values)
        contaminated = Contaminated(rows[near], images)
        state = replace(state.drop(rows[near], CODES[stages.CONTAMINATED]), contaminated=contaminated)
    return state


def _apply_top(units: Units, settings: DecideSettings, index: int) -> Any:
    """Search a top rule's thresholds by radix histograms, apply them and the next segment; return the search."""
    segment, top = settings.segments[index], settings.segments[index].top
    assert top is not None and isinstance(top.spec, Top)
    begin = TopSearch(top.name, top.spec, settings.columns.field(top.columns[0]).type)
    search: Any = begin

    def count(tables: OpenTables, state: UnitState, search: TopSearch) -> list[Counts]:
        return [search.count(top_values(tables, state, settings, index), state.surviving)]

    def cut(tables: OpenTables, state: UnitState, search: TopSearch) -> UnitState:
        passing = search.passing(top_values(tables, state, settings, index))
        return apply_segment(tables, state.drop(~passing, segment.first + len(segment.rules)), settings, index + 1)

    for n in range(begin.rounds):
        counts = units.ask(f"Rule {top.name}: digit {n}", count, search, combine=Fold(add_counts, large=True))
        search = units.get(f"Rule {top.name}: narrow {n}", TopSearch.narrow, search, counts)
    units.then(f"Rule {top.name}: cut", cut, search)
    return search


def top_values(tables: OpenTables, state: UnitState, settings: DecideSettings, index: int) -> TopValues:
    """Return the values of a segment's top rule for all rows."""
    columns = required(settings.segments[index].top).columns
    column, *by = columns
    table = settings.read(tables, state, columns)
    keys, valid = order_keys(whole(table[column]), key_bits(settings.columns.field(column).type))
    return TopValues.of(keys, valid, table[by[0]] if by else None)


def _derive(units: Units, settings: DecideSettings, index: int) -> Answer[Fits]:
    """Fit the statistics of a segment's columns, apply the next segment, and return the statistics."""
    name, statistics = f"Derive {index}", _Statistics(settings, index)
    add = Fold[Fits](lambda left, right: {at: fitted + right[at] for at, fitted in left.items()})
    fitted = units.ask(f"{name}: summarize", statistics.fit, combine=add)
    ranks = None
    if statistics.calls(of_ranks=True):
        ranks = units.group(f"{name}: count", units.pairs(f"{name}: keys", statistics.split), _count, fitted)
    none_sent = ((),) if ranks is None else ()
    units.then(f"{name}: apply", statistics.apply, *none_sent, fitted, sent=ranks)
    return fitted


@dataclass(frozen=True)
class _Statistics:
    settings: DecideSettings
    index: int  # of the segment

    def calls(self, of_ranks: bool = False) -> dict[At, StatisticCall]:
        columns = [self.settings.derived[name] for name in self.settings.segments[self.index].derive]
        calls = {(column.name, i): call for column in columns for i, call in enumerate(column.statistics)}
        return {at: call for at, call in calls.items() if call.statistic.of_ranks or not of_ranks}

    def values(self, tables: OpenTables, state: UnitState, of_ranks: bool = False) -> Iterator[tuple[At, F64]]:
        """Yield the argument x of each statistic for all rows; NaN if it is not finite."""
        if calls := self.calls(of_ranks):
            read = dict.fromkeys(column for name, _ in calls for column in self.settings.derived[name].columns)
            table = self.settings.read(tables, state, list(read))
            yield from ((at, derived.argument_values(call, table)) for at, call in calls.items())

    def fit(self, tables: OpenTables, state: UnitState) -> Iterator[dict[At, Fitted]]:
        calls, values = self.calls(), self.values(tables, state)
        yield {at: Fitted.of(calls[at], x[state.surviving & ~np.isnan(x)]) for at, x in values}

    def split(self, tables: OpenTables, state: UnitState) -> Iterator[tuple[tuple[At, int], tuple[int, U64, I64]]]:
        for at, x in self.values(tables, state, of_ranks=True):
            for digit, keys, counts in derived.split_keys(x, state.surviving):
                yield (at, digit), (state.unit.index, keys, counts)

    def apply(self, tables: OpenTables, state: UnitState, sent: Sequence[Ranks], fitted: Fits) -> UnitState:
        known = dict(fitted)
        by_digit = sorted(sent, key=lambda part: part[:2])
        for at, x in self.values(tables, state, of_ranks=True):
            up_to = np.concatenate([np.zeros(0, np.int64), *(counts for key, _, counts in by_digit if key == at)])
            known[at] = replace(known[at], digits=None, ranks=derived.ranks_of(x, up_to))
        state = replace(state, derived={**state.derived, **known})
        return apply_segment(tables, state, self.settings, self.index + 1)


def _count(key: tuple[At, int], parts: Sequence[tuple[int, U64, I64]], fitted: dict[At, Fitted]) -> Iterator[ToUnit]:
    """Yield for each unit, and for each of its keys with a digit, the number of rows in all units up to that key."""
    at, digit = key
    below = required(fitted[at].digits)[:digit].sum()
    for (unit, *_), counts in zip(parts, derived.count_up_to([(keys, rows) for _, keys, rows in parts]), strict=True):
        yield ToUnit(unit, (at, digit, counts + below))
