"""Deciding on Beam: units' states travel, tables are read by their units, and only small answers cross the network.

A state holds two bytes a row. What is global (the threshold of a top rule, repeated hashes, entry counts, t) is summed
from the units' answers and comes back as a side input.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList, AsSingleton

from curate.decide import per_unit
from curate.decide.balance import SparseSums
from curate.decide.bracket import ROUNDS, Bracket
from curate.decide.per_unit import Drawing, UnitState
from curate.decide.settings import DecideSettings
from curate.decide.top import Counts, TopSearch, add_counts
from curate.numeric.arrays import I64
from curate.pool.plan import Unit
from curate.store.error_notes import noting_errors
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from curate.transforms.fold import add_entries, fold_all
from curate.transforms.functions import Map
from curate.transforms.units import Answers, Units


def apply_rules(units: Units, settings: DecideSettings) -> beam.PCollection[Any] | None:
    """Apply all rules, and what follows them (`per_unit.finish_rules`).

    Return PCollection[(rule, thresholds by group)] of the top rules; None without any.
    """
    units.then("Rules", _Rules(settings).start)
    thresholds = []
    for i, segment in enumerate(settings.segments):
        if segment.top is not None:
            thresholds.append(_apply_top(units, settings, i))
    return tuple(thresholds) | "Thresholds" >> beam.Flatten() if thresholds else None


@dataclass(frozen=True)
class _Rules:
    settings: DecideSettings

    def start(self, tables: OpenTables, unit: Unit) -> UnitState:
        with time_step(self.settings.store, "rules", unit.name) as timer:
            state = per_unit.start_unit(tables, unit)
            timer.rows = len(state.verdicts)
            return per_unit.apply_segment(self.settings, tables, state, 0)


def _apply_top(units: Units, settings: DecideSettings, index: int) -> beam.PCollection[Any]:
    """Find the exact thresholds of a top rule by radix histograms, apply them and the rules that follow; return (rule, thresholds)."""
    begin, steps = per_unit.start_top(settings, index), _Top(settings, index)
    name = begin.rule
    search = units.pipeline | f"{name}: begin" >> beam.Create([begin])
    for n in range(begin.rounds):
        counts = units.ask(f"{name}: digit {n}", steps.count, AsSingleton(search), combine=fold_all(add_counts))
        search = counts.get() | f"{name}: narrow {n}" >> Map(steps.narrow, AsSingleton(search))
    units.then(f"{name}: cut", steps.cut, AsSingleton(search))
    return search | f"{name}: threshold" >> Map(lambda search: (name, search.thresholds))


@dataclass(frozen=True)
class _Top:
    settings: DecideSettings
    index: int

    def count(self, tables: OpenTables, state: UnitState, search: TopSearch) -> Iterator[Counts]:
        yield search.count(per_unit.top_values(self.settings, tables, self.index), state.alive)

    def narrow(self, counts: Counts, search: TopSearch) -> TopSearch:
        with noting_errors(self.settings.store):
            return search.narrow(counts)

    def cut(self, tables: OpenTables, state: UnitState, search: TopSearch) -> UnitState:
        return per_unit.apply_top(self.settings, tables, state, self.index, search)


def count_matches(units: Units, settings: DecideSettings) -> Answers:
    """Count the rows that match each entry: PCollection of one int64[2, entries], all rows and those that reach deduplication."""

    def count(tables: OpenTables, state: UnitState) -> Iterator[SparseSums]:
        yield per_unit.count_all_and_alive(settings, tables, state.alive)

    return units.ask("CountMatches", count, combine=add_entries(settings))


def count_survivors(units: Units, settings: DecideSettings, counts: Answers) -> beam.PCollection[I64]:
    """Count the rows still in after deduplication that match each entry: PCollection of one int64[entries].

    `counts` are of `count_matches`, less the duplicates: a unit that has none is not read again.
    """

    def count(tables: OpenTables, state: UnitState) -> Iterator[SparseSums]:
        if len(state.duplicates):
            yield per_unit.count_duplicates(settings, tables, state)

    duplicates = units.ask("CountDuplicates", count, combine=add_entries(settings)).get()
    return counts.get() | "Survivors" >> Map(lambda found, lost: found[1] - sum(lost), AsList(duplicates))


def solve_t(units: Units, settings: DecideSettings, counts: beam.PCollection[I64]) -> beam.PCollection[int] | None:
    """Find the t that gives the recipe's target number of rows; None where it says t. `counts` are the survivors'.

    A target is found by a k-ary search: in each of ROUNDS the units sum π at some t, and the bracket narrows.
    """
    target, steps = settings.balance, _Solving(settings)
    assert target is not None
    if target.t is not None:
        return None
    bracket = counts | "T: begin" >> Map(steps.start)
    for n in range(ROUNDS):
        sums = units.ask(
            f"T: sums {n}", steps.expect, AsSingleton(counts), AsSingleton(bracket), combine=fold_all(operator.add)
        )
        bracket = sums.get() | f"T: narrow {n}" >> Map(
            lambda found, search: search.narrow(search.points, found), AsSingleton(bracket)
        )
    return bracket | "T" >> Map(steps.solution)


@dataclass(frozen=True)
class _Solving:
    settings: DecideSettings

    def start(self, counts: I64) -> Bracket:
        assert self.settings.balance is not None and self.settings.scheme is not None
        highest = self.settings.scheme.highest(counts, self.settings.entries.table)
        return Bracket.start(highest, self.settings.balance.rows or 0)

    def expect(self, tables: OpenTables, state: UnitState, counts: I64, bracket: Bracket) -> Iterator[Any]:
        if bracket.solved:
            yield np.zeros(0, object)
        else:
            matches = per_unit.alive_matches(tables, state)
            # Python integers: a sum over units may pass 2⁶⁴.
            yield per_unit.expected_rows(self.settings, matches, counts, bracket.points).astype(object)

    def solution(self, bracket: Bracket) -> int:
        with noting_errors(self.settings.store):
            return bracket.t


def decide(
    units: Units,
    settings: DecideSettings,
    unread_files: beam.PCollection[str],
    counts: beam.PCollection[I64] | None,
    t: beam.PCollection[int] | None,
) -> Answers | None:
    """Draw, and write `decisions` of each unit; states become units again.

    `unread_files` are of all units, `counts` of the survivors where the recipe matches, `t` is there where it is solved. Returns
    PCollection of one int64[2, entries], expected (fixed point) and kept rows of each entry; None without match.
    """
    drawing = []
    if counts is not None:
        fixed = settings.balance.t if settings.balance else None
        side = fixed if t is None else AsSingleton(t)
        drawn = counts | "Drawing" >> Map(lambda found, t: Drawing.of(settings, found, t), side)
        drawing = [AsSingleton(drawn)]

    def draw(tables: OpenTables, state: UnitState, unread: list[str], drawing: Drawing | None = None) -> Unit:
        with time_step(settings.store, "decide", state.unit.name) as timer:
            timer.rows = len(state.verdicts)
            per_unit.decide(settings, tables, state, drawing, unread)
            timer.idle = "decisions" not in tables.written
            return state.unit

    def sum_entries(tables: OpenTables, unit: Unit) -> Iterator[SparseSums]:
        yield per_unit.sum_entries(tables, len(settings.entries.table))

    units.then("Decide", draw, AsList(unread_files), *drawing)
    return units.ask("SumEntries", sum_entries, combine=add_entries(settings)) if drawing else None
