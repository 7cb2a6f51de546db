"""The blocklist on Beam: names are followed in rounds over all units, then the rows that have one are blanked."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.publish.forget.block import ROUNDS, Frontier, block_unit, follow, record_encountered
from curate.store.items import Items, unite
from curate.store.tables import OpenTables
from pipelines.steps.functions import Map
from pipelines.steps.units import Units


def apply_blocklist(units: Units, settings: PublishSettings) -> None:
    """Blank the rows of all units that forgotten.parquet names, and those linked to them.

    Names are followed for `ROUNDS`, those that were encountered recorded, then rows cleared.
    """
    frontier = (
        units.pipeline | "Blocklist: names" >> beam.Create([settings.store]) | "Blocklist: begin" >> Map(Frontier.begin)
    )
    steps = _Steps(settings)
    for n in range(ROUNDS):
        united = beam.CombineGlobally(unite).without_defaults()
        found = units.ask(f"Blocklist: follow {n}", steps.follow, AsSingleton(frontier), combine=united)
        frontier = found.get() | f"Blocklist: advance {n}" >> Map(_advance, AsSingleton(frontier))
    frontier |= "Blocklist: record" >> Map(partial(record_encountered, settings.store))
    units.then("Blocklist: clear", steps.clear, AsSingleton(frontier))


def _advance(found: Items, frontier: Frontier) -> Frontier:
    return frontier.advance(found)


@dataclass(frozen=True)
class _Steps:
    settings: PublishSettings

    def follow(self, tables: OpenTables, unit: Unit, frontier: Frontier) -> Iterator[Items]:
        yield follow(self.settings, tables, unit, frontier)

    def clear(self, tables: OpenTables, unit: Unit, frontier: Frontier) -> Unit:
        block_unit(self.settings, tables, frontier)
        return unit
