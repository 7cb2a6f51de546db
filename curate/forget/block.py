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
from curate.run.context import Job
from curate.store.forgotten import MET, Record
from curate.store.items import NOTHING, Items

ROUNDS = 3  # each looks at all units; chains of more rows than that are cut
_TABLES = ("samples", "scores", "embeddings", "members", "matches")


class Front(NamedTuple):
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
    def begin(cls, job: Job) -> "Front":
        """Before the first round: what the record names. Where a run was killed after its rounds, nothing spreads again."""
        record = Record.read(job.folder)
        return cls(record.items, NOTHING if record.settled else record.items)

    def advance(self, found: Items) -> "Front":
        """After a round."""
        return Front(self.known | found, found, self.met | found)


def unite(parts: Iterable[Items]) -> Items:
    """All items of several."""
    total = NOTHING
    for part in parts:
        total |= part
    return total


def meet(job: Job, unit: Unit, front: Front) -> Items:
    """What the unit's rows add to the names."""
    return neighbours(job, unit, front.fresh, front.known, beside=True) if len(front.fresh) else NOTHING


def write_met(job: Job, front: Front) -> Front:
    """Puts the names that came into the record. Returns the front."""
    record = Record.read(job.folder)
    longer = record.append(front.met, MET)
    if longer is not record:
        longer.write(job.folder)
    return front


def block_unit(job: Job, unit: Unit, front: Front) -> Unit:
    """Clears the unit's blocked rows."""
    clear_unit(job, unit, front.known, [name for name in _TABLES if name in job.tables])
    return unit


def block(job: Job, units: Sequence[Unit]) -> None:
    """All of it in one process and without Beam."""
    front = Front.begin(job)
    for _ in range(ROUNDS):
        front = front.advance(unite(meet(job, unit, front) for unit in units))
    write_met(job, front)
    for unit in units:
        block_unit(job, unit, front)
