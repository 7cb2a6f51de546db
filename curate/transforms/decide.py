"""Deciding on Beam: units' states travel, tables are read by their units, and only small answers cross the network.

A state holds two bytes a row. What is global (the threshold of a top rule, repeated hashes, entry counts, t) is summed
from the units' answers and comes back as a side input.
"""

import operator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList, AsSingleton

from curate.decide import per_unit, quantiles
from curate.decide.bracket import ROUNDS, Bracket
from curate.decide.per_unit import UnitState
from curate.decide.settings import DecideSettings
from curate.numeric.arrays import I64
from curate.pool.plan import Unit
from curate.recipe.deciding import Top
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step
from curate.transforms.fold import fold_all
from curate.transforms.threads import MapInThreads


@dataclass
class ApplyRules(beam.PTransform):
    """Apply all rules, and what follows them (`per_unit.finish_rules`), and find the thresholds of top rules."""

    settings: DecideSettings

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """PCollection[Unit] → PCollection[UnitState] after all rules, and PCollection[(rule, threshold)] of the top rules.

        Each segment of SQL rules is one round of reading, each top rule a search for its threshold.
        """
        states = units | "FirstRules" >> MapInThreads(self._start)
        thresholds = []
        for i, segment in enumerate(self.settings.segments):
            if segment.top is not None:
                states, threshold = states | f"Top {segment.top.name}" >> _ApplyTop(self.settings, i)
                thresholds.append(threshold)
        return states, thresholds | beam.Flatten(pipeline=units.pipeline)

    def _start(self, unit: Unit) -> UnitState:
        with time_step(self.settings.store, "rules", unit.name) as timer:
            state = per_unit.start_unit(self.settings, unit)
            timer.rows = len(state.verdicts)
            return state


@dataclass
class _ApplyTop(beam.PTransform):
    """Find the exact threshold of a top rule by radix histograms, and apply it and the rules that follow."""

    settings: DecideSettings
    index: int

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection[UnitState] after the next segment, and one (rule, threshold)."""
        top = self.settings.segments[self.index].top
        assert top is not None and isinstance(top.spec, Top)
        kind = self.settings.columns.field(top.columns[0]).type
        bits = quantiles.key_bits(kind)
        radix = states.pipeline | beam.Create([quantiles.Radix(top.spec.top, bits)])
        for n in range(bits // quantiles.DIGIT_BITS):
            counted = states | f"Histogram {n}" >> MapInThreads(self._count, AsSingleton(radix))
            total = counted | f"Sum {n}" >> fold_all(operator.add)
            radix = total | f"Narrow {n}" >> beam.Map(lambda counts, search: search.narrow(counts), AsSingleton(radix))
        cut = states | "Cut" >> MapInThreads(self._cut, AsSingleton(radix))
        threshold = radix | "Threshold" >> beam.Map(
            lambda search: (top.name, None if search.key is None else quantiles.value_of(search.key, kind))
        )
        return cut, threshold

    def _count(self, state: UnitState, radix: quantiles.Radix) -> I64:
        return radix.histogram(per_unit.top_keys(self.settings, state, self.index))

    def _cut(self, state: UnitState, radix: quantiles.Radix) -> UnitState:
        return per_unit.apply_top(self.settings, state, self.index, radix.key)


@dataclass
class CountEntries(beam.PTransform):
    """Count the rows that match each entry: of units all, of their states those still in."""

    settings: DecideSettings

    def expand(self, units: beam.PCollection[Any]) -> beam.PCollection[I64]:
        """PCollection[Unit] or PCollection[UnitState] → PCollection of one int64[entries], the sum over units."""
        return units | MapInThreads(self._count) | "Sum" >> fold_all(operator.add)

    def _count(self, unit: Unit | UnitState) -> I64:
        if isinstance(unit, Unit):
            return per_unit.count_entries(self.settings, unit)
        return per_unit.count_entries(self.settings, unit.unit, unit.alive)


@dataclass
class SolveT(beam.PTransform):
    """Find t: that of the recipe, or the one that gives its target number of rows."""

    settings: DecideSettings
    counts: beam.PCollection[I64]  # one int64[entries], of the survivors

    def expand(self, states: beam.PCollection[UnitState]) -> beam.PCollection[int]:
        """PCollection[UnitState] → PCollection of one int, t.

        A target is found by a k-ary search: in each of ROUNDS the units sum π at some t, and the bracket narrows.
        """
        target = self.settings.balance
        assert target is not None
        if target.t is not None:
            return states.pipeline | beam.Create([target.t])
        bracket = self.counts | "Start" >> beam.Map(self._start)
        for n in range(ROUNDS):
            expected = states | f"Expect {n}" >> MapInThreads(
                self._expect, AsSingleton(self.counts), AsSingleton(bracket)
            )
            total = expected | f"Sum {n}" >> fold_all(operator.add)
            bracket = total | f"Narrow {n}" >> beam.Map(
                lambda sums, search: search.narrow(search.points(), sums), AsSingleton(bracket)
            )
        return bracket | "T" >> beam.Map(self._solution)

    def _start(self, counts: I64) -> Bracket:
        assert self.settings.balance is not None and self.settings.scheme is not None
        highest = self.settings.scheme.highest(counts, self.settings.entries.table)
        return Bracket.start(highest, self.settings.balance.rows or 0)

    def _expect(self, state: UnitState, counts: I64, bracket: Bracket) -> Any:
        if bracket.solved:
            return np.zeros(0, object)
        matches = per_unit.alive_matches(self.settings, state)
        # Python integers: a sum over units may pass 2⁶⁴.
        return per_unit.expected_rows(self.settings, matches, counts, bracket.points()).astype(object)

    def _solution(self, bracket: Bracket) -> int:
        with noting_errors(self.settings.store):
            return bracket.t


@dataclass
class Decide(beam.PTransform):
    """Draw, and write `decisions` of each unit."""

    settings: DecideSettings
    unread_files: beam.PCollection[str]  # of all units
    counts: beam.PCollection[I64] | None = None  # of all units, where the recipe matches
    t: beam.PCollection[int] | None = None  # where it balances

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection[Unit], and PCollection of what `per_unit.decide` counts of each."""
        side = [AsSingleton(x) for x in (self.counts, self.t) if x is not None]
        decided = states | MapInThreads(self._decide, AsList(self.unread_files), *side)
        return decided | "Units" >> beam.Keys(), decided | "Entries" >> beam.Values()

    def _decide(self, state: UnitState, unread: list[str], counts: Any = None, t: Any = None) -> tuple[Unit, Any]:
        with time_step(self.settings.store, "decide", state.unit.name) as timer:
            timer.rows = len(state.verdicts)
            return state.unit, per_unit.decide(self.settings, state, counts, t, unread)
