"""Measuring, matching and blocking on Beam: units in, the same units out once their tables are current."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.forget.block import ROUNDS, Frontier, block_unit, follow, record_encountered
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.metadata.match import compile_kernels
from curate.metadata.unit import MatchSettings, match_unit
from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.items import unite
from curate.store.timings import time_step
from curate.transforms.threads import MapInThreads


@dataclass
class Measure(beam.PTransform):
    """Write `samples`, `scores`, `embeddings` and `members` of each unit."""

    context: RunContext

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """PCollection[Unit] → PCollection[Unit], the same once measured, and PCollection[str], their gaps.

        Gaps are few, and what is decided depends on which there are.
        """
        measured = units | MapInThreads(self._measure)
        return measured | "Units" >> beam.Keys(), measured | "Gaps" >> beam.FlatMap(lambda pair: pair[1])

    def _measure(self, unit: Unit) -> tuple[Unit, list[str]]:
        settings, tables = MeasureSettings.of(self.context), self.context.unit_tables(unit)
        with noting_errors(self.context.store), time_step(self.context.store, "measure", unit.name) as timer:
            timer.idle = all(tables.would_be_current(name, settings.key(name, unit)) for name in settings.tables)
            gaps = measure_unit(settings, unit, tables)
            timer.rows = tables.rows()
            return unit, gaps


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


@dataclass
class Block(beam.PTransform):
    """Clear what the run's record names from the tables of all units."""

    settings: PublishSettings

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """PCollection[Unit] → PCollection[Unit], the same once cleared.

        Names are followed for `ROUNDS`, those that were encountered recorded, then rows cleared.
        """
        settings = self.settings
        frontier = units.pipeline | beam.Create([settings.store]) | "Begin" >> beam.Map(Frontier.begin)
        for n in range(ROUNDS):
            found = units | f"Follow {n}" >> beam.Map(partial(follow, settings), AsSingleton(frontier))
            united = found | f"Unite {n}" >> beam.CombineGlobally(unite)
            frontier |= f"Advance {n}" >> beam.Map(lambda frontier, found: frontier.advance(found), AsSingleton(united))
        frontier |= "Record" >> beam.Map(partial(record_encountered, settings.store))
        return units | "Clear" >> beam.Map(partial(block_unit, settings), AsSingleton(frontier))
