"""Measuring on Beam: units in, the same units out once their tables are current."""

from typing import Any

import apache_beam as beam

from curate.measure.unit import measure_unit
from curate.metadata.match import compile_kernels
from curate.metadata.unit import match_unit
from curate.pool.plan import Unit
from curate.run.context import Job
from curate.store.error_notes import noting_errors
from curate.store.timings import timed


class Measure(beam.PTransform):
    """Writes `samples`, `scores` and `members` of each unit: PCollection[Unit] → the same units, and their gaps (str)."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, units: beam.PCollection[Unit]) -> Any:
        """Gaps are few: what is decided over the whole pool depends on which there are."""
        measured = units | beam.Map(_measure, self._job)
        return measured | "Units" >> beam.Keys(), measured | "Gaps" >> beam.FlatMap(lambda pair: pair[1])


class Match(beam.PTransform):
    """Writes `matches` of each measured unit."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """PCollection[Unit] → PCollection[Unit]."""
        job = self._job
        return units | beam.Map(_match, job)


def _measure(unit: Unit, job: Job) -> tuple[Unit, list[str]]:
    with noting_errors(job.folder), timed(job.folder, "measure", unit.name) as watch:
        watch.idle = job.would_stand(unit, "samples", "scores", "embeddings", "members")
        gaps = measure_unit(job, unit)
        watch.rows = job.rows(unit)
        return unit, gaps


def _match(unit: Unit, job: Job) -> Unit:
    compile_kernels()
    with timed(job.folder, "match", unit.name) as watch:
        watch.idle = job.would_stand(unit, "matches")
        match_unit(job, unit)
        watch.rows = job.rows(unit)
        return unit
