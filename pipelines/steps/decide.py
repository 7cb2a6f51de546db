"""Deciding on Beam: units' states travel, tables are read by their units, and only small answers cross the network.

A state holds two bytes a row. What is global (the threshold of a top rule, repeated hashes, entry counts, t) is summed
from the units' answers and comes back as a side input.
"""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList, AsSingleton

from curate.base.errors import RunError
from curate.base.numeric.arrays import I64
from curate.decide import unit_decisions, unit_matches, unit_rules
from curate.decide.draw.balance import SparseSums, tail_share_t
from curate.decide.draw.bracket import ROUNDS, Bracket, Solution
from curate.decide.draw.sample import SampleCut, SampleSearch
from curate.decide.rules.top import Counts, TopSearch, add_counts
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import Digits, Scale, Statistic, Summary, count_up_to, split_keys
from curate.decide.unit_decisions import Drawing
from curate.decide.unit_state import UnitState
from curate.expressions.check import QUANTILE
from curate.pool.plan import Unit
from curate.store.error_notes import noting_errors
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from pipelines.steps.fold import add_entries, fold_all
from pipelines.steps.functions import FlatMap, Map
from pipelines.steps.states import states_of, with_states
from pipelines.steps.threads import MapInThreads
from pipelines.steps.units import Answers, Packet, Units, pack


@dataclass
class Rules:
    """The rules of a run, before and after deduplication, with what they find on the way."""

    units: Units
    settings: DecideSettings
    thresholds: list[beam.PCollection[Any]] = field(default_factory=list)  # of each top rule one (rule, search)
    derived: list[beam.PCollection[Any]] = field(default_factory=list)  # of each segment one {(column, place): Scale}

    def apply(self) -> None:
        """Apply all that comes before deduplication (`unit_rules.finish_rules` too)."""
        self.units.then("Rules", _Start(self.settings).start)
        self._continue(0)

    def apply_later(self) -> None:
        """Apply the rules that come after deduplication."""
        if self.settings.has_later_rules:
            self.units.then("Later rules", _Start(self.settings).go_on)
            self._continue(self.settings.later)

    def _continue(self, first: int) -> None:
        for i, segment in enumerate(self.settings.segments[first:], first):
            if segment.dedup:
                break
            if segment.derive:
                self.derived.append(_derive(self.units, self.settings, i))
            elif segment.top is not None:
                self.thresholds.append(_apply_top(self.units, self.settings, i))

    def results(self) -> dict[str, beam.PCollection[Any]]:
        """Return what was found, for run.json."""
        found = {"thresholds": self.thresholds, "derived": self.derived}
        return {name: tuple(parts) | f"Publish: {name}" >> beam.Flatten() for name, parts in found.items() if parts}


@dataclass(frozen=True)
class _Start:
    settings: DecideSettings

    def start(self, tables: OpenTables, unit: Unit) -> UnitState:
        with time_step(self.settings.store, "rules", unit.name) as timer:
            state = unit_rules.start_unit(tables, unit)
            timer.rows = len(state.verdicts)
            return unit_rules.apply_segment(self.settings, tables, state, 0)

    def go_on(self, tables: OpenTables, state: UnitState) -> UnitState:
        return unit_rules.apply_segment(self.settings, tables, state, self.settings.later)


def _derive(units: Units, settings: DecideSettings, index: int) -> beam.PCollection[Any]:
    """Find the statistics that follow a segment, and apply the next one; return PCollection of one {(column, place): Scale}.

    Summaries are added up. For quantiles, distinct keys of units meet by their first digit and go back as counts.
    """
    name, steps = f"Derive {index}", _Derive(settings, index)
    summaries = units.ask(f"{name}: summarise", steps.summarise, combine=fold_all(_add_summaries))
    quantiles = steps.places(QUANTILE)
    if not quantiles:
        scales = summaries.get() | f"{name}: scales" >> Map(steps.scales)
        units.then(f"{name}: apply", steps.apply, AsSingleton(scales))
        return scales
    keys = units.ask(f"{name}: keys", steps.keys)
    found = summaries.get()
    scales, below = found | f"{name}: scales" >> Map(steps.scales), found | f"{name}: below" >> Map(steps.below)
    counts = (
        keys.get()
        | f"{name}: meet" >> beam.GroupByKey()
        | f"{name}: count" >> FlatMap(_count_up_to, AsSingleton(below), units.per_packet)
    )

    def bring(states: beam.PCollection[Packet]) -> beam.PCollection[Packet]:
        grouped = with_states(f"{name}: ranks", states, counts)
        return grouped | f"{name}: apply" >> MapInThreads(steps.bring, AsSingleton(scales))

    units.regroup(bring)
    return scales


def _add_summaries(one: list[Summary], other: list[Summary]) -> list[Summary]:
    return [a + b for a, b in zip(one, other, strict=True)]  # type: ignore[operator]


def _count_up_to(item: tuple[Any, Iterable[Any]], below: dict[Any, I64], per_packet: int) -> Iterator[Any]:
    """Yield for each unit how many rows of all units have at most each of its keys of a digit: (packet, (unit, at, digit, counts))."""
    (at, digit), parts = item[0], sorted(item[1], key=lambda part: part[0])
    for (unit, *_), counts in zip(parts, count_up_to([(keys, rows) for _, keys, rows in parts]), strict=True):
        yield unit // per_packet, (unit, at, digit, counts + below[at][digit])


@dataclass(frozen=True)
class _Derive:
    settings: DecideSettings
    index: int

    def places(self, function: str) -> list[tuple[str, int]]:
        """Return where a function is, among the columns."""
        return [at for at, statistic in self._statistics() if statistic.function == function]

    def _statistics(self) -> Iterator[tuple[tuple[str, int], Statistic]]:
        for name in self.settings.segments[self.index].derive:
            yield from (((name, i), one) for i, one in enumerate(self.settings.derived[name].statistics))

    def summarise(self, tables: OpenTables, state: UnitState) -> Iterator[list[Summary]]:
        yield unit_rules.summarise_statistics(self.settings, tables, state, self.index)

    def scales(self, found: list[Summary]) -> dict[tuple[str, int], Scale]:
        return {at: summary.scale(one) for (at, one), summary in zip(self._statistics(), found, strict=True)}

    def below(self, found: list[Summary]) -> dict[tuple[str, int], I64]:
        pairs = zip(self._statistics(), found, strict=True)
        return {at: summary.below for (at, _), summary in pairs if isinstance(summary, Digits)}

    def keys(self, tables: OpenTables, state: UnitState) -> Iterator[Any]:
        for at, statistic, values in unit_rules.statistic_values(self.settings, tables, state, self.index):
            if statistic.function == QUANTILE:
                for digit, keys, counts in split_keys(values, state.alive):
                    yield (at, digit), (state.unit.index, keys, counts)

    def apply(self, tables: OpenTables, state: UnitState, scales: dict[tuple[str, int], Scale]) -> UnitState:
        return unit_rules.apply_derived(self.settings, tables, state, self.index, scales, {})

    def bring(self, item: tuple[int, Iterable[Any]], scales: dict[tuple[str, int], Scale]) -> Packet:
        """Return the packet of states for which ranks were found, with the columns that are known now."""
        states, found = states_of(item)
        with noting_errors(self.settings.store):
            return pack(item[0], [self._bring(state, found, scales) for state in states])

    def _bring(self, state: UnitState, found: list[Any], scales: dict[tuple[str, int], Scale]) -> UnitState:
        own = sorted(
            ((at, digit, counts) for unit, at, digit, counts in found if unit == state.unit.index),
            key=lambda part: part[:2],
        )
        up_to = {
            at: np.concatenate([np.zeros(0, np.int64), *(counts for of, _, counts in own if of == at)])
            for at in self.places(QUANTILE)
        }
        with OpenTables(self.settings.store, state.unit.index, last=state.unit.last) as tables:
            return unit_rules.apply_derived(self.settings, tables, state, self.index, scales, up_to)


def _apply_top(units: Units, settings: DecideSettings, index: int) -> beam.PCollection[Any]:
    """Find the exact thresholds of a top rule by radix histograms, apply them and the rules that follow; return (rule, search)."""
    begin, steps = unit_rules.start_top(settings, index), _Top(settings, index)
    name = f"Rule {begin.rule}"
    search = units.pipeline | f"{name}: begin" >> beam.Create([begin])
    for n in range(begin.rounds):
        counts = units.ask(f"{name}: digit {n}", steps.count, AsSingleton(search), combine=fold_all(add_counts))
        search = counts.get() | f"{name}: narrow {n}" >> Map(steps.narrow, AsSingleton(search))
    units.then(f"{name}: cut", steps.cut, AsSingleton(search))
    return search | f"{name}: threshold" >> Map(lambda search: (search.rule, search))


@dataclass(frozen=True)
class _Top:
    settings: DecideSettings
    index: int

    def count(self, tables: OpenTables, state: UnitState, search: TopSearch) -> Iterator[Counts]:
        yield search.count(unit_rules.top_values(self.settings, tables, state, self.index), state.alive)

    def narrow(self, counts: Counts, search: TopSearch) -> TopSearch:
        with noting_errors(self.settings.store):
            return search.narrow(counts)

    def cut(self, tables: OpenTables, state: UnitState, search: TopSearch) -> UnitState:
        return unit_rules.apply_top(self.settings, tables, state, self.index, search)


def count_matches(units: Units, settings: DecideSettings) -> Answers:
    """Count the rows that match each entry: PCollection of one int64[2, entries], all rows and those that reach deduplication."""

    def count(tables: OpenTables, state: UnitState) -> Iterator[SparseSums]:
        yield unit_matches.count_all_and_alive(settings, tables, state.alive)

    return units.ask("Counts: matches", count, combine=add_entries(settings))


def count_survivors(units: Units, settings: DecideSettings, counts: Answers) -> beam.PCollection[I64]:
    """Count the rows still in when balancing begins that match each entry: PCollection of one int64[entries].

    `counts` are of `count_matches`, less the duplicates: a unit that has none is not read again. With rules after deduplication
    they are counted anew.
    """

    def count_alive(tables: OpenTables, state: UnitState) -> Iterator[SparseSums]:
        yield unit_matches.count_entries(settings, tables, state.alive)

    if settings.has_later_rules:
        return units.ask("Counts: survivors", count_alive, combine=add_entries(settings)).get()

    def count(tables: OpenTables, state: UnitState) -> Iterator[SparseSums]:
        if len(state.duplicates):
            yield unit_matches.count_duplicates(settings, tables, state)

    duplicates = units.ask("Counts: duplicates", count, combine=add_entries(settings)).get()
    return counts.get() | "Counts: less duplicates" >> Map(lambda found, lost: found[1] - sum(lost), AsList(duplicates))


def solve_t(units: Units, settings: DecideSettings, counts: beam.PCollection[I64]) -> beam.PCollection[Solution] | None:
    """Find the t that gives the recipe's target number of rows or share of the tail; None where it says t. `counts` are the survivors'.

    A target number is found by a k-ary search: in each of ROUNDS the units sum π at some t, and the bracket narrows.
    """
    target, steps = settings.balance, _Solving(settings)
    assert target is not None
    if target.t is not None:
        return None
    if (share := target.tail_share) is not None:
        return counts | "Balance: t" >> Map(lambda found, share: Solution(tail_share_t(found, share)), share)
    bracket = counts | "Balance: begin" >> Map(steps.start)
    for n in range(ROUNDS):
        sums = units.ask(
            f"Balance: sums {n}",
            steps.expect,
            AsSingleton(counts),
            AsSingleton(bracket),
            combine=fold_all(operator.add),
        )
        bracket = sums.get() | f"Balance: narrow {n}" >> Map(
            lambda found, search: search.narrow(search.points, found), AsSingleton(bracket)
        )
    return bracket | "Balance: t" >> Map(steps.solution)


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
            matches = unit_matches.alive_matches(tables, state)
            # Python integers: a sum over units may pass 2⁶⁴.
            yield unit_matches.expected_rows(self.settings, matches, counts, bracket.points).astype(object)

    def solution(self, bracket: Bracket) -> Solution:
        with noting_errors(self.settings.store):
            try:
                return bracket.solution
            except RunError as error:
                how = f"change the recipe, then run with --out NEW --reuse {self.settings.store.url}"
                raise RunError(f"{error}. Nothing is downloaded or measured again: {how}") from None


def draw_sample(units: Units, settings: DecideSettings) -> beam.PCollection[SampleCut] | None:
    """Find the random sample of the rows still in: PCollection of one SampleCut; None where the recipe takes none."""
    if settings.sample is None:
        return None
    begin = SampleSearch(settings.sample.rows)

    def count(tables: OpenTables, state: UnitState) -> Iterator[I64]:
        yield begin.histogram(unit_decisions.sample_keys(settings, tables, state))

    def inside(tables: OpenTables, state: UnitState, search: SampleSearch) -> Iterator[Any]:
        yield search.inside(unit_decisions.sample_keys(settings, tables, state))

    counts = units.ask("Sample: count", count, combine=fold_all(operator.add))
    search = counts.get() | "Sample: narrow" >> Map(begin.narrow)
    found = units.ask(
        "Sample: inside", inside, AsSingleton(search), combine=fold_all(lambda a, b: np.concatenate([a, b]))
    )
    return found.get() | "Sample: cut" >> Map(lambda keys, search: search.cut(keys), AsSingleton(search))


def decide(
    units: Units,
    settings: DecideSettings,
    unread_files: beam.PCollection[str],
    counts: beam.PCollection[I64] | None,
    t: beam.PCollection[Solution] | None,
    sample: beam.PCollection[SampleCut] | None = None,
) -> Answers | None:
    """Draw, and write `decisions` of each unit; states become units again.

    `unread_files` are of all units, `counts` of the survivors where the recipe matches, `t` is there where it is solved, and
    `sample` where the recipe takes one. Returns
    PCollection of one int64[2, entries], expected (fixed point) and kept rows of each entry; None without match.
    """
    drawing = []
    if sample is not None:
        side = None if counts is None else AsSingleton(counts)
        cut = sample | "Decide: draw" >> Map(lambda found, counts: Drawing(counts, sample=found), side)
        drawing = [AsSingleton(cut)]
    elif counts is not None:
        fixed = Solution(settings.balance.t) if settings.balance and settings.balance.t else None
        drawn = counts | "Decide: draw" >> Map(
            lambda found, solved: Drawing.of(settings, found, solved and solved.t),
            fixed if t is None else AsSingleton(t),
        )
        drawing = [AsSingleton(drawn)]

    def draw(tables: OpenTables, state: UnitState, unread: list[str], drawing: Drawing | None = None) -> Unit:
        with time_step(settings.store, "decide", state.unit.name) as timer:
            timer.rows = len(state.verdicts)
            unit_decisions.decide(settings, tables, state, drawing, unread)
            timer.idle = "decisions" not in tables.written
            return state.unit

    def sum_entries(tables: OpenTables, unit: Unit) -> Iterator[SparseSums]:
        yield unit_matches.sum_entries(tables, len(settings.entries.table))

    units.then("Decide: decisions", draw, AsList(unread_files), *drawing)
    return units.ask("Decide: sum entries", sum_entries, combine=add_entries(settings)) if counts is not None else None
