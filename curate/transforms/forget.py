"""The blocklist on Beam: names are followed in rounds over all units, then the rows that have one are blanked."""

from dataclasses import dataclass
from functools import partial

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.forget.block import ROUNDS, Frontier, block_unit, follow, record_encountered
from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.store.items import Items, unite
from curate.transforms.threads import MapInThreads


@dataclass
class ApplyBlocklist(beam.PTransform):
    """Blank the rows of all units that forgotten.parquet names, and those linked to them."""

    settings: PublishSettings

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[Unit]:
        """PCollection[Unit] → PCollection[Unit], the same once cleared.

        Names are followed for `ROUNDS`, those that were encountered recorded, then rows cleared.
        """
        settings = self.settings
        frontier = units.pipeline | beam.Create([settings.store]) | "Begin" >> beam.Map(Frontier.begin)
        for n in range(ROUNDS):
            found = units | f"Follow {n}" >> MapInThreads(partial(follow, settings), AsSingleton(frontier))
            united = found | f"Unite {n}" >> beam.CombineGlobally(unite).without_defaults()
            frontier = united | f"Advance {n}" >> beam.Map(_advance, AsSingleton(frontier))
        frontier |= "Record" >> beam.Map(partial(record_encountered, settings.store))
        return units | "Clear" >> MapInThreads(partial(block_unit, settings), AsSingleton(frontier))


def _advance(found: Items, frontier: Frontier) -> Frontier:
    return frontier.advance(found)
