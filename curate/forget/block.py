"""What a run keeps out from its beginning: rows that its record names, and those that hang together with them.

In: units whose tables are measured and matched. Out: the same tables, cleared where a row is blocked, so that no later step
sees it. Names that blocked rows have beside those in the record (the image behind a URL that was asked for) block too, for
`ROUNDS` steps from row to row; they are put into the record before anything is cleared, since the cleared rows no longer tell
them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from curate.forget.rows import clear_unit, neighbours
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.forgotten import MET, Record
from curate.store.items import NOTHING, Items

ROUNDS = 3  # each looks at all units; chains of more rows than that are cut
_TABLES = ("samples", "scores", "embeddings", "members", "matches")


class Frontier(NamedTuple):
    """How far names have spread.

    Attributes:
        known: all names that are blocked, so far.
        fresh: those of them that the last round brought; rows that have one of these are looked for in the next.
        met: what came to the record's own.
    """

    known: Items
    fresh: Items
    met: Items = NOTHING

    @classmethod
    def begin(cls, context: RunContext) -> "Frontier":
        """Before the first round: what the record names. Where a run was killed after its rounds, nothing spreads again."""
        record = Record.read(context.store)
        return cls(record.items, NOTHING if record.settled else record.items)

    def advance(self, found: Items) -> "Frontier":
        """After a round."""
        return Frontier(self.known | found, found, self.met | found)


def unite(parts: Iterable[Items]) -> Items:
    """All items of several."""
    total = NOTHING
    for part in parts:
        total |= part
    return total


def meet(context: RunContext, unit: Unit, front: Frontier) -> Items:
    """What the unit's rows add to the names."""
    return neighbours(context, unit, front.fresh, front.known, beside=True) if len(front.fresh) else NOTHING


def write_met(context: RunContext, front: Frontier) -> Frontier:
    """Puts the names that came into the record. Returns the front."""
    record = Record.read(context.store)
    longer = record.append(front.met, MET)
    if longer is not record:
        longer.write(context.store)
    return front


def block_unit(context: RunContext, unit: Unit, front: Frontier) -> Unit:
    """Clears the unit's blocked rows."""
    clear_unit(context, unit, front.known, [name for name in _TABLES if name in context.tables])
    return unit


def block(context: RunContext, units: Sequence[Unit]) -> None:
    """All of it in one process and without Beam."""
    front = Frontier.begin(context)
    for _ in range(ROUNDS):
        front = front.advance(unite(meet(context, unit, front) for unit in units))
    write_met(context, front)
    for unit in units:
        block_unit(context, unit, front)
