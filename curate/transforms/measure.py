"""Measuring and matching on Beam: units in, the same units out once their tables are current."""

from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.metadata.match import compile_kernels
from curate.metadata.unit import MatchSettings, match_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step
from curate.transforms.threads import MapInThreads


@dataclass
class Measure(beam.PTransform):
    """Write `samples`, `scores`, `embeddings` and `members` of each unit."""

    context: RunContext

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """PCollection[Unit] → PCollection[Unit], the same once measured, and PCollection[str], the files that could not be read.

        These are few, and what is decided depends on which they are.
        """
        measured = units | MapInThreads(self._measure)
        return measured | "Units" >> beam.Keys(), measured | "UnreadFiles" >> beam.FlatMap(lambda pair: pair[1])

    def _measure(self, unit: Unit) -> tuple[Unit, list[str]]:
        settings, tables = MeasureSettings.of(self.context), self.context.unit_tables(unit)
        with noting_errors(self.context.store), time_step(self.context.store, "measure", unit.name) as timer:
            timer.idle = all(tables.would_be_current(name, settings.key(name, unit)) for name in settings.tables)
            unread = measure_unit(settings, unit, tables)
            timer.rows = tables.rows()
            return unit, unread


@dataclass
class Match(beam.PTransform):
    """Write `matches` of each measured unit."""

    context: RunContext

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """PCollection[Unit] → PCollection[Unit], the same once matched."""
        return units | MapInThreads(self._match)

    def _match(self, unit: Unit) -> Unit:
        compile_kernels()
        settings, tables = MatchSettings.of(self.context), self.context.unit_tables(unit)
        with time_step(self.context.store, "match", unit.name) as timer:
            key = settings.key(tables.key("samples"))
            timer.idle = bool(key) and tables.would_be_current("matches", key)
            match_unit(settings, tables)
            timer.rows = tables.rows()
        return unit
