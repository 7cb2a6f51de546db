"""Blocking on Beam: names spread in rounds over all units, then each unit's blocked rows are cleared."""

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.forget.block import ROUNDS, Front, block_unit, meet, unite, write_met
from curate.pool.plan import Unit
from curate.run.context import Job


class Block(beam.PTransform):
    """PCollection[Unit] → PCollection[Unit], once nothing of what the run's record names is left in their tables."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """Only where something is blocked."""
        job = self._job
        front = units.pipeline | beam.Create([None]) | "Begin" >> beam.Map(lambda _: Front.begin(job))
        for n in range(ROUNDS):
            found = (
                units
                | f"Meet {n}" >> beam.Map(lambda unit, front: meet(job, unit, front), AsSingleton(front))
                | f"Unite {n}" >> beam.CombineGlobally(unite)
            )
            front |= f"Advance {n}" >> beam.Map(lambda front, found: front.advance(found), AsSingleton(found))
        front |= "Record" >> beam.Map(lambda front: write_met(job, front))
        return units | "Clear" >> beam.Map(lambda unit, front: block_unit(job, unit, front), AsSingleton(front))
