"""Measuring on Beam: units in, the same units out once their tables are current."""

from typing import Any

import apache_beam as beam

from curate.measure.unit import measure_unit
from curate.metadata.match import compile_kernels
from curate.metadata.unit import match_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step


class Measure(beam.PTransform):
    """Writes `samples`, `scores` and `members` of each unit: PCollection[Unit] → the same units, and their gaps (str)."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """Gaps are few: what is decided over the whole pool depends on which there are."""
        measured = units | beam.Map(_measure, self._context)
        return measured | "Units" >> beam.Keys(), measured | "Gaps" >> beam.FlatMap(lambda pair: pair[1])


class Match(beam.PTransform):
    """Writes `matches` of each measured unit."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """PCollection[Unit] → PCollection[Unit]."""
        context = self._context
        return units | beam.Map(_match, context)


def _measure(unit: Unit, context: RunContext) -> tuple[Unit, list[str]]:
    with noting_errors(context.store), time_step(context.store, "measure", unit.name) as watch:
        watch.idle = context.would_be_current(unit, "samples", "scores", "embeddings", "members")
        gaps = measure_unit(context, unit)
        watch.rows = context.rows(unit)
        return unit, gaps


def _match(unit: Unit, context: RunContext) -> Unit:
    compile_kernels()
    with time_step(context.store, "match", unit.name) as watch:
        watch.idle = context.would_be_current(unit, "matches")
        match_unit(context, unit)
        watch.rows = context.rows(unit)
        return unit
