"""Apply the blocklist: rows that the run's record (forgotten.parquet) names, and rows linked to those, are never seen.

In: units whose tables are measured and matched. Out: the same tables, with blocklisted rows cleared, so that no later
step sees them. Other names of such a row (the image behind a URL that was requested) are blocked too, for `ROUNDS`
steps from row to row; they are recorded before anything is cleared, since cleared rows no longer show them.
"""

from typing import NamedTuple

from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.publish.audit import PublishSettings
from curate.publish.forget.rows import find_attached, find_rows, readable_names
from curate.recipe.source import find_source
from curate.store.forgotten import ENCOUNTERED, Record
from curate.store.items import NOTHING, Items
from curate.store.store import RunStore
from curate.store.tables import UnitTables

ROUNDS = 3  # each looks at all units; rows that are linked only by a longer chain stay
TABLES = ("samples", "scores", "embeddings", "members", "matches")  # that have rows when the blocklist is applied


class Frontier(NamedTuple):
    """How far names have been followed from row to row."""

    known: Items  # all names that are blocked so far
    fresh: Items  # those that the last round added: the next one looks for rows that have one of them
    encountered: Items = NOTHING  # those that are not in the record yet

    @classmethod
    def begin(cls, store: RunStore) -> "Frontier":
        """Return the state before the first round: the names in the record.

        Where a run was killed after its rounds, the record has what they found, and there is nothing to follow.
        """
        record = Record.read(store)
        return cls(record.items, NOTHING if record.is_settled else record.items)

    def advance(self, names: Items) -> "Frontier":
        """Return the state after a round that encountered these names."""
        return Frontier(self.known | names, names, self.encountered | names)


def follow(settings: PublishSettings, tables: UnitTables, unit: Unit, frontier: Frontier) -> Items:
    """Return the names of the unit's rows that have one of the fresh names, without those that are known."""
    if not len(frontier.fresh):
        return NOTHING
    reader = UnitRereader(unit, find_source(settings.sources, unit.source), tables)
    rows = find_rows(tables, frontier.fresh) | find_attached(reader, frontier.fresh)
    return readable_names(tables, rows) - frontier.known


def record_encountered(store: RunStore, frontier: Frontier) -> Frontier:
    """Add the names that were encountered to the run's record, and return the frontier."""
    record = Record.read(store)
    extended = record.append(frontier.encountered, ENCOUNTERED)
    if extended is not record:
        extended.write(store)
    return frontier
