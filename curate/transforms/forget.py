"""Blocking on Beam: names spread in rounds over all units, then each unit's blocked rows are cleared."""

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.forget.block import ROUNDS, Frontier, block_unit, meet, unite, write_met
from curate.pool.plan import Unit
from curate.run.context import RunContext


class Block(beam.PTransform):
    """PCollection[Unit] → PCollection[Unit], once nothing of what the run's record names is left in their tables."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """Only where something is blocked."""
        context = self._context
        front = units.pipeline | beam.Create([None]) | "Begin" >> beam.Map(lambda _: Frontier.begin(context))
        for n in range(ROUNDS):
            found = (
                units
                | f"Meet {n}" >> beam.Map(lambda unit, front: meet(context, unit, front), AsSingleton(front))
                | f"Unite {n}" >> beam.CombineGlobally(unite)
            )
            front |= f"Advance {n}" >> beam.Map(lambda front, found: front.advance(found), AsSingleton(found))
        front |= "Record" >> beam.Map(lambda front: write_met(context, front))
        return units | "Clear" >> beam.Map(lambda unit, front: block_unit(context, unit, front), AsSingleton(front))
