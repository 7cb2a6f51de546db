"""Deciding on Beam: ballots travel, tables are looked at where they lie, and only small answers cross the network.

A ballot holds two bytes a row. What is global (the threshold of a top rule, repeated hashes, entry counts, t) is summed
from the units' answers and comes back as a side input.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsList, AsSingleton

from curate.decide import balance, dedup, quantiles
from curate.decide import state as ballot
from curate.decide.near import Groups
from curate.decide.state import UnitResult, UnitState
from curate.pool.plan import Unit
from curate.recipe.rules import Top
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step
from curate.transforms.near import FindGroups
from curate.transforms.sums import VectorSum

RADIX_ROUNDS = quantiles.KEY_BITS // quantiles.DIGIT_BITS
BRACKET_ROUNDS = 8  # enough for counts below 2⁴⁰ (see balance.Bracket); rounds after the solution do nothing


class ApplyRules(beam.PTransform):
    """PCollection[Unit] → ballots after all rules and `unmatched`, and thresholds: (rule, value) of the top rules."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """One round of reading for each run of SQL rules, and a search for the threshold of each top rule."""
        context = self._context
        ballots = units | "Open" >> beam.Map(_open, context)
        thresholds = []
        for i, segment in enumerate(context.segments):
            if segment.top is not None:
                ballots, threshold = ballots | f"Top {segment.top.name}" >> _ApplyTop(context, i)
                thresholds.append(threshold)
        return ballots, thresholds | beam.Flatten(pipeline=units.pipeline)


class _ApplyTop(beam.PTransform):
    """Finds the exact threshold of a top rule by radix histograms, and applies it and the rules that follow."""

    def __init__(self, context: RunContext, index: int) -> None:
        super().__init__()
        self._context, self._index = context, index

    def expand(self, ballots: beam.PCollection[UnitState]) -> Any:
        context, index = self._context, self._index
        top = context.segments[index].top
        assert top is not None and isinstance(top.spec, Top)
        kind = context.visible.field(top.columns[0]).type
        radix = ballots.pipeline | beam.Create([quantiles.Radix(top.spec.top)])
        for n in range(RADIX_ROUNDS):
            counted = ballots | f"Histogram {n}" >> beam.FlatMap(
                lambda b, state: () if state.solved else (ballot.top_histogram(context, b, index, state),),
                AsSingleton(radix),
            )
            total = counted | f"Sum {n}" >> beam.CombineGlobally(VectorSum())
            radix |= f"Narrow {n}" >> beam.Map(
                lambda state, counts: state if counts is None else state.narrow(counts), AsSingleton(total)
            )
        cut = ballots | "Cut" >> beam.Map(
            lambda b, state: ballot.apply_top(context, b, index, state.key), AsSingleton(radix)
        )
        threshold = radix | "Threshold" >> beam.Map(
            lambda state: (top.name, None if state.key is None else quantiles.value_of(state.key, kind))
        )
        return cut, threshold


class Deduplicate(beam.PTransform):
    """PCollection[UnitState] → PCollection[UnitState], the duplicates dropped pass by pass, and (place, recall) of passes.

    Recall is int64[2] for each pass by nearness: `cosine.recall_counts`.
    """

    def __init__(self, context: RunContext, n_buckets: int) -> None:
        super().__init__()
        self._context, self._n = context, n_buckets

    def expand(self, ballots: beam.PCollection[UnitState]) -> Any:
        """Hashes to buckets, repeated ones back to their units, then candidates' records through the passes."""
        context, n = self._context, self._n
        near = context.recipe.dedup.near
        places = list(near)
        found = {place: ballots | f"Near {place}" >> FindGroups(context, by, n) for place, by in near.items()}
        groups = [AsSingleton(pair[0]) for pair in found.values()]
        recalls = [
            pair[1] | f"Place {place}" >> beam.Map(lambda counts, place=place: (place, counts))
            for place, pair in found.items()
        ]
        by_unit = ballots | "ByUnit" >> beam.Map(lambda b: (b.unit.index, b))
        repeats = (
            ballots
            | "Hash"
            >> beam.FlatMap(lambda b, *found: _hashes(context, b, n, dict(zip(places, found, strict=True))), *groups)
            | "Buckets" >> beam.GroupByKey()
            | "Repeated" >> beam.FlatMap(_repeated)
        )
        records = (
            {"ballot": by_unit, "found": repeats}
            | "Candidates" >> beam.CoGroupByKey()
            | "Records"
            >> beam.FlatMap(
                lambda item, *found: _first_records(context, item[1], n, dict(zip(places, found, strict=True))), *groups
            )
        )
        passes = len(context.recipe.dedup.by)
        for i in range(passes):
            records = (
                records
                | f"Group {i}" >> beam.GroupByKey()
                | f"Resolve {i}" >> beam.FlatMap(lambda item, i=i: _resolved(item[1], i, passes, n))
            )
        left = (
            {"ballot": by_unit, "lost": records}
            | "Lost" >> beam.CoGroupByKey()
            | "Drop" >> beam.Map(lambda item: ballot.drop_duplicates(item[1]["ballot"][0], item[1]["lost"]))
        )
        return left, tuple(recalls) | "Recalls" >> beam.Flatten(pipeline=ballots.pipeline)


def _repeated(item: tuple[tuple[int, int], Iterable[tuple[int, Any]]]) -> Iterator[tuple[int, tuple[int, Any]]]:
    """The hashes of a bucket that repeat, for each unit that has some: (unit, (pass, hashes))."""
    (number, _), parts = item
    parts = list(parts)
    found = dedup.repeated(hashes for _, hashes in parts)
    if len(found):
        for unit, hashes in parts:
            own = hashes[np.isin(hashes, found)]
            if len(own):
                yield unit, (number, own)


def _hashes(
    context: RunContext, b: UnitState, n: int, groups: dict[int, Groups]
) -> Iterator[tuple[Any, tuple[int, Any]]]:
    for key, hashes in ballot.hash_keys(context, b, n, groups):
        yield key, (b.unit.index, hashes)


def _first_records(
    context: RunContext, group: dict[str, Any], n: int, groups: dict[int, Groups]
) -> Iterator[tuple[int, Any]]:
    if group["found"]:
        yield from _split(ballot.find_candidates(context, group["ballot"][0], group["found"], groups), 0, n)


def _resolved(parts: Iterable[Any], index: int, passes: int, n: int) -> Iterator[tuple[int, Any]]:
    """The records after a pass, by bucket of the next one; after the last one the dead, by unit."""
    records = dedup.resolve(np.concatenate(list(parts)), index)
    if index + 1 < passes:
        yield from _split(records, index + 1, n)
        return
    lost = records[records["dead"]]
    for unit in np.unique(lost["unit"]):
        yield int(unit), lost[lost["unit"] == unit]


def _split(records: Any, index: int, n: int) -> Iterator[tuple[int, Any]]:
    buckets = dedup.buckets_for(records, index, n)
    for bucket in np.unique(buckets):
        yield int(bucket), records[buckets == bucket]


class SolveT(beam.PTransform):
    """The t of the recipe, or the one that gives its wished number of rows: PCollection of one int."""

    def __init__(self, context: RunContext, counts: Any) -> None:
        super().__init__()
        self._context, self._counts = context, counts

    def expand(self, ballots: beam.PCollection[UnitState]) -> beam.PCollection[int]:
        """A k-ary search: in each round the units sum π at some t, and the bracket narrows."""
        context, counts = self._context, self._counts
        wished = context.recipe.balance
        assert wished is not None
        if wished.t is not None:
            return ballots.pipeline | beam.Create([wished.t])
        rows = wished.rows or 0
        bracket = counts | "Start" >> beam.Map(lambda c: balance.Bracket.start(c, rows))
        for n in range(BRACKET_ROUNDS):
            summed = (
                ballots
                | f"Expect {n}" >> beam.FlatMap(_expected, context, AsSingleton(counts), AsSingleton(bracket))
                | f"Sum {n}" >> beam.CombineGlobally(VectorSum())
            )
            bracket |= f"Narrow {n}" >> beam.Map(
                lambda state, sums: state if sums is None else state.narrow(state.points(), sums), AsSingleton(summed)
            )
        return bracket | "T" >> beam.Map(_solution, context)


def _solution(bracket: balance.Bracket, context: RunContext) -> int:
    with noting_errors(context.store):
        return bracket.t


def _expected(b: UnitState, context: RunContext, counts: Any, bracket: balance.Bracket) -> Iterator[Any]:
    points = bracket.points()
    if len(points):
        # Python integers: a sum over units may pass 2⁶⁴.
        yield ballot.expected_rows(context, b, counts, points).astype(object)


class Decide(beam.PTransform):
    """PCollection[UnitState] → PCollection[UnitResult]: draws, and writes `decisions`."""

    def __init__(self, context: RunContext, gaps: Any, counts: Any = None, t: Any = None) -> None:
        super().__init__()
        self._context, self._gaps, self._counts, self._t = context, gaps, counts, t

    def expand(self, ballots: beam.PCollection[UnitState]) -> beam.PCollection[UnitResult]:
        """Counts and t are side inputs, where the recipe matches and balances."""
        context = self._context
        side = [AsSingleton(x) for x in (self._counts, self._t) if x is not None]
        return ballots | beam.Map(_decide, context, AsList(self._gaps), *side)


def _open(unit: Unit, context: RunContext) -> UnitState:
    with time_step(context.store, "rules", unit.name) as watch:
        opened = ballot.open_ballot(context, unit)
        watch.rows = len(opened.verdicts)
        return opened


def _decide(b: UnitState, context: RunContext, gaps: list[str], counts: Any = None, t: Any = None) -> UnitResult:
    with time_step(context.store, "decide", b.unit.name) as watch:
        watch.rows = len(b.verdicts)
        return ballot.decide(context, b, counts, t, gaps)
