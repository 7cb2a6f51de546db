"""What a run keeps out from its beginning: rows that its record names, and those that hang together with them.

In: units whose tables are measured and matched. Out: the same tables, cleared where a row is blocked, so that no later step
sees it. Names that blocked rows have beside those in the record (the image behind a URL that was asked for) block too, for
`ROUNDS` steps from row to row; they are put into the record before anything is cleared, since the cleared rows no longer tell
them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from curate.forget.items import NOTHING, Items
from curate.forget.record import MET, Record
from curate.forget.rows import clear_unit, neighbours
from curate.job import Job
from curate.once import once
from curate.plan import Unit

ROUNDS = 3  # each looks at all units; chains of more rows than that are cut
_TABLES = ("samples", "scores", "embeddings", "members", "matches")


class Front(NamedTuple):
    """How far names have spread: all that came to those of the record, and those of the last round; None before the first."""

    met: Items = NOTHING
    fresh: Items | None = None

    def advance(self, found: Items) -> "Front":
        """After a round."""
        return Front(self.met | found, found)


def unite(parts: Iterable[Items]) -> Items:
    """All items of several."""
    total = NOTHING
    for part in parts:
        total |= part
    return total


def meet(job: Job, unit: Unit, front: Front) -> Items:
    """What the unit's rows add to the names."""
    given = _given(job)
    fresh = given if front.fresh is None else front.fresh
    return neighbours(job, unit, fresh, given | front.met) if len(fresh) else NOTHING


def write_met(job: Job, met: Items) -> Items:
    """Puts the names into the record. Returns them."""
    record = Record.read(job.folder)
    longer = record.append(met, MET)
    if longer is not record:
        longer.write(job.folder)
    return met


def block_unit(job: Job, unit: Unit, met: Items) -> Unit:
    """Clears the unit's blocked rows."""
    clear_unit(job, unit, _given(job) | met, [name for name in _TABLES if name in job.tables])
    return unit


def block(job: Job, units: Sequence[Unit]) -> None:
    """All of it in one process and without Beam."""
    front = Front()
    for _ in range(ROUNDS):
        front = front.advance(unite(meet(job, unit, front) for unit in units))
    write_met(job, front.met)
    for unit in units:
        block_unit(job, unit, front.met)


def _given(job: Job) -> Items:
    """What the record held when the run began, and perhaps some of what was met before it was killed."""
    return once(f"blocked {job.blocked} {job.folder.url}", lambda: Record.read(job.folder).items)
