"""Applies the blocklist: clears the rows that the run's record (forgotten.parquet) names, and rows linked to them.

In: units whose tables are measured and matched. Out: the same tables, with blocked rows cleared, so that no later step
sees them. Other names of such a row, such as the image behind a requested URL, are blocked too. They are followed from
row to row for `ROUNDS` rounds. They are recorded before anything is cleared, because cleared rows no longer have them.
"""

from collections.abc import Iterator
from operator import or_
from typing import NamedTuple

from curate.base.stages import STAGE
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.publish.audit import PublishSettings
from curate.publish.forget.clear import clear_unit
from curate.publish.forget.rows import find_attached, find_rows, readable_names
from curate.recipe.source import find_source
from curate.run.units import Answer, Fold, Units
from curate.store.forgotten import ENCOUNTERED, Record
from curate.store.items import NOTHING, Items
from curate.store.store import RunStore
from curate.store.tables import OpenTables

ROUNDS = 3  # each round reads all units; rows that only a longer chain of links connects are not found
TABLES = (*STAGE["measure"].tables, *STAGE["match"].tables)  # tables that have rows when the blocklist is applied


class Frontier(NamedTuple):
    """The names that are blocked so far."""

    blocked: Items  # all blocked names
    fresh: Items  # names from the last round: the next round looks for rows that have one of them

    @classmethod
    def begin(cls, store: RunStore) -> "Frontier":
        """Return the state before the first round: the names in the record.

        If a run was killed after its rounds, the record already has their results, and no names need to be followed.
        """
        record = Record.read(store)
        return cls(record.items, NOTHING if record.is_settled else record.items)

    def advance(self, names: Items) -> "Frontier":
        """Return the state after a round that has found these names."""
        return Frontier(self.blocked | names, names)

    def record(self, store: RunStore) -> "Frontier":
        """Add the names that were found to the run's record."""
        record = Record.read(store)
        extended = record.append(self.blocked, ENCOUNTERED)
        if extended is not record:
            extended.write(store)
        return self


def apply_blocklist(units: Units, settings: PublishSettings) -> None:
    """Clear the rows in all units that forgotten.parquet names, and rows that are linked to them.

    First, names are followed for `ROUNDS` rounds. Then new names are recorded, and rows are cleared.
    """
    frontier: Answer = units.get("Blocklist: begin", Frontier.begin, settings.store)
    for n in range(ROUNDS):
        names = units.ask(f"Blocklist: follow {n}", _follow, frontier, settings, combine=Fold(or_))
        frontier = units.get(f"Blocklist: advance {n}", Frontier.advance, frontier, names)
    frontier = units.get("Blocklist: record", Frontier.record, frontier, settings.store)
    units.then("Blocklist: clear", _clear, frontier, settings)


def _follow(tables: OpenTables, unit: Unit, frontier: Frontier, settings: PublishSettings) -> Iterator[Items]:
    """Yield the names of rows that have one of the fresh names, except names that are already blocked."""
    if not len(frontier.fresh):
        yield NOTHING
        return
    reader = UnitRereader(unit, find_source(settings.sources, unit.source), tables)
    rows = find_rows(tables, frontier.fresh) | find_attached(reader, frontier.fresh)
    yield readable_names(tables, rows) - frontier.blocked


def _clear(tables: OpenTables, unit: Unit, frontier: Frontier, settings: PublishSettings) -> Unit:
    names = [name for name in TABLES if name in settings.table_names]
    clear_unit(tables, frontier.blocked, names, find_source(settings.sources, unit.source))
    return unit
