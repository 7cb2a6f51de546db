"""The blocklist over all units: names are followed in rounds, then the rows that have one are blanked."""

from collections.abc import Iterator
from operator import or_

from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.publish.forget.block import ROUNDS, TABLES, Frontier, follow, record_encountered
from curate.publish.forget.clear import clear_unit
from curate.run.units import Answer, Fold, Units
from curate.store.items import Items
from curate.store.tables import OpenTables


def apply_blocklist(units: Units, settings: PublishSettings) -> None:
    """Blank the rows of all units that forgotten.parquet names, and those linked to them.

    Names are followed for `ROUNDS`, those that were encountered recorded, then rows cleared.
    """
    frontier: Answer = units.get("Blocklist: begin", Frontier.begin, settings.store)
    for n in range(ROUNDS):
        names = units.ask(f"Blocklist: follow {n}", _follow, frontier, settings, combine=Fold(or_))
        frontier = units.get(f"Blocklist: advance {n}", Frontier.advance, frontier, names)
    frontier = units.get("Blocklist: record", record_encountered, settings.store, frontier)
    units.then("Blocklist: clear", _clear, frontier, settings)


def _follow(tables: OpenTables, unit: Unit, frontier: Frontier, settings: PublishSettings) -> Iterator[Items]:
    yield follow(settings, tables, unit, frontier)


def _clear(tables: OpenTables, unit: Unit, frontier: Frontier, settings: PublishSettings) -> Unit:
    names = [name for name in TABLES if name in settings.table_names]
    clear_unit(tables, frontier.known, names, settings.sources)
    return unit
