"""The rules of a run over all units, segment by segment: statistics and thresholds are asked of all units between them.

A state holds two bytes a row. Top rules count digits in rounds; quantiles' distinct keys meet by their first digit, and
go back to their units as counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curate.base.numeric.arrays import I64
from curate.decide import unit_rules
from curate.decide.rules.top import Counts, TopSearch, add_counts
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import Fitted, Scale, StatisticCall
from curate.decide.statistics.ranks import count_up_to, rows_below, split_keys
from curate.decide.unit_state import UnitState
from curate.expressions.check import STATISTICS
from curate.pool.plan import Unit
from curate.run.units import Answer, Fold, Units, of_unit
from curate.store.tables import OpenTables
from curate.store.timings import time_step

At = tuple[str, int]  # where a statistic is: a derived column, and its place in it


@dataclass
class RuleSteps:
    """The rules of a run, before and after deduplication, with what all units were asked on the way."""

    units: Units
    settings: DecideSettings
    thresholds: list[Answer] = field(default_factory=list)  # of each top rule: (rule, TopSearch)
    scales: list[Answer] = field(default_factory=list)  # of each segment: {At: Scale}

    def apply(self) -> None:
        """Apply all that comes before deduplication (`unit_rules.finish_rules` too)."""
        self.start()
        self.go_on()

    def start(self) -> None:
        """Apply the rules of the first segment."""
        self.units.then("Rules", _start, self.settings)

    def apply_later(self) -> None:
        """Apply the rules that come after deduplication."""
        if self.settings.has_later_rules:
            self.units.then("Later rules", _start_later, self.settings)
            self.go_on(self.settings.later)

    def go_on(self, first: int = 0) -> None:
        """Apply what follows a segment, the first of all or the first after deduplication."""
        for i, segment in enumerate(self.settings.segments[first:], first):
            if segment.dedup:
                break
            if segment.derive:
                self.scales.append(_derive(self.units, self.settings, i))
            elif segment.top is not None:
                self.thresholds.append(_apply_top(self.units, self.settings, i))


def _start(tables: OpenTables, unit: Unit, settings: DecideSettings) -> UnitState:
    with time_step(settings.store, "rules", unit.name) as timer:
        state = unit_rules.start_unit(tables, unit)
        timer.rows = len(state.verdicts)
        return unit_rules.apply_segment(settings, tables, state, 0)


def _start_later(tables: OpenTables, state: UnitState, settings: DecideSettings) -> UnitState:
    return unit_rules.apply_segment(settings, tables, state, settings.later)


def _derive(units: Units, settings: DecideSettings, index: int) -> Answer:
    """Compute the statistics that follow a segment, and apply the next one; return {At: Scale}."""
    name, steps = f"Derive {index}", _Derive(settings, index)
    summaries = units.ask(f"{name}: summarise", steps.summarise, combine=Fold(_add_summaries))
    if not steps.ranked():
        scales = units.get(f"{name}: scales", steps.scales, summaries)
        units.then(f"{name}: apply", steps.apply, scales)
        return scales
    keys = units.pairs(f"{name}: keys", steps.keys)
    scales = units.get(f"{name}: scales", steps.scales, summaries)
    below = units.get(f"{name}: below", steps.below, summaries)
    ranks = units.group(f"{name}: count", keys, _count_up_to, below, units.together)
    units.then(f"{name}: apply", steps.apply_ranks, scales, sent=ranks)
    return scales


def _add_summaries(left: list[Fitted], right: list[Fitted]) -> list[Fitted]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _count_up_to(
    key: tuple[At, int], parts: Sequence[Any], below: dict[At, I64], together: int
) -> Iterator[tuple[int, Any]]:
    """Yield for each unit how many rows of all units have at most each of its keys of a digit."""
    at, digit = key
    parts = sorted(parts, key=lambda part: part[0])
    for (unit, *_), counts in zip(parts, count_up_to([(keys, rows) for _, keys, rows in parts]), strict=True):
        yield unit // together, (unit, (at, digit, counts + below[at][digit]))


@dataclass(frozen=True)
class _Derive:
    """What units are asked of the statistics after a segment."""

    settings: DecideSettings
    index: int

    def ranked(self) -> list[At]:
        """Return the statistics that are of ranks."""
        return [at for at, call in self._statistics() if STATISTICS.find(call.function).of_ranks]

    def _statistics(self) -> Iterator[tuple[At, StatisticCall]]:
        for name in self.settings.segments[self.index].derive:
            yield from (((name, i), statistic) for i, statistic in enumerate(self.settings.derived[name].statistics))

    def summarise(self, tables: OpenTables, state: UnitState) -> Iterator[list[Fitted]]:
        yield unit_rules.summarise_statistics(self.settings, tables, state, self.index)

    def scales(self, summaries: list[Fitted]) -> dict[At, Scale]:
        return {at: summary.scale(of) for (at, of), summary in zip(self._statistics(), summaries, strict=True)}

    def below(self, summaries: list[Fitted]) -> dict[At, I64]:
        pairs = zip(self._statistics(), summaries, strict=True)
        return {at: rows_below(summary.digits) for (at, _), summary in pairs if summary.digits is not None}

    def keys(self, tables: OpenTables, state: UnitState) -> Iterator[tuple[Any, Any]]:
        ranked = self.ranked()
        for at, _, values in unit_rules.statistic_values(self.settings, tables, state, self.index):
            if at in ranked:
                for digit, keys, counts in split_keys(values, state.alive):
                    yield (at, digit), (state.unit.index, keys, counts)

    def apply(self, tables: OpenTables, state: UnitState, scales: dict[At, Scale]) -> UnitState:
        return unit_rules.apply_derived(self.settings, tables, state, self.index, scales, {})

    def apply_ranks(self, tables: OpenTables, state: UnitState, sent: list[Any], scales: dict[At, Scale]) -> UnitState:
        """Return the state with the columns that are known now; the ranks of its keys were sent digit by digit."""
        by_digit = sorted(of_unit(sent, state.unit.index), key=lambda part: part[:2])
        up_to = {
            at: np.concatenate([np.zeros(0, np.int64), *(counts for of, _, counts in by_digit if of == at)])
            for at in self.ranked()
        }
        return unit_rules.apply_derived(self.settings, tables, state, self.index, scales, up_to)


def _apply_top(units: Units, settings: DecideSettings, index: int) -> Answer:
    """Search a top rule's thresholds by radix histograms, apply them and the next segment; return (rule, search)."""
    begin = unit_rules.start_top(settings, index)
    name = f"Rule {begin.rule}"
    search: Any = begin
    for n in range(begin.rounds):
        counts = units.ask(f"{name}: digit {n}", _count_top, search, settings, index, combine=Fold(add_counts))
        search = units.get(f"{name}: narrow {n}", TopSearch.narrow, search, counts)
    units.then(f"{name}: cut", _apply_top_to_unit, search, settings, index)
    return units.get(f"{name}: threshold", _name_search, search)


def _count_top(
    tables: OpenTables, state: UnitState, search: TopSearch, settings: DecideSettings, index: int
) -> Iterator[Counts]:
    yield search.count(unit_rules.top_values(settings, tables, state, index), state.alive)


def _apply_top_to_unit(
    tables: OpenTables, state: UnitState, search: TopSearch, settings: DecideSettings, index: int
) -> UnitState:
    return unit_rules.apply_top(settings, tables, state, index, search)


def _name_search(search: TopSearch) -> tuple[str, TopSearch]:
    return search.rule, search
