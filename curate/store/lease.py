"""The lease of a run folder: who works there where no lock of the system's ends with its process, as in object stores.

A lease is a file in `tmp/lease` whose name is a number; of several, the one with the largest number holds. It is taken
by a PUT that fails where there is a file, so that of two in the same moment one has it. It lasts for so long since it
was last renewed: by whoever works for the run, the job itself where the driver has left, a process once a minute at
most. Who ends another's lease takes the next number: whoever still works for the one before sees it, and stops.
"""

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from curate.base.errors import RunError
from curate.base.process import background_thread
from curate.base.wording import format_seconds, one_line
from curate.store.layout import LEASES, SUCCESS_FILE
from curate.store.store import RunStore

WORKING = 15 * 60.0  # seconds that a lease lasts while somebody works,
WAITING = 24 * 3600.0  # and while a job that was handed over still waits
BETWEEN = 60.0  # seconds between two renewals

_log = logging.getLogger(__name__)
_renewal = threading.Lock()
_renewed: dict[str, float] = {}  # when this process last renewed each lease, by a clock that is its own
_lost: dict[str, RunError] = {}  # leases that another run has taken over from this process


class Holder(BaseModel, frozen=True, extra="ignore"):
    """Who holds a folder: a process, and a job that goes on without it."""

    id: str
    command: str
    host: str
    process: int
    began: str  # of the process, in ticks since the host started: numbers of processes come again
    since: float  # seconds since 1970, as `renewed`
    renewed: float
    lasts: float = WORKING  # seconds since then
    log: str | None = None  # of a driver that has left its shell
    engine: str = ""  # the key of that of the job,
    handle: dict[str, str] | None = None  # by which it finds the job, see `pipelines.engines.job.Job`,
    page: str | None = None  # and where it shows it
    is_detached: bool = False  # whether the job goes on without the process
    died: str = ""  # of a run that is supervised: how often what works for the process has died, and how

    @classmethod
    def make(cls, command: str, process: int | None = None) -> Self:
        """Return a process of this host, by default this one, which begins now."""
        now, process = time.time(), process or os.getpid()
        who = {"id": uuid.uuid4().hex, "host": platform.node(), "process": process, "began": _began(process)}
        return cls(command=command, since=now, renewed=now, **who)

    @property
    def last_renewed(self) -> str:
        """When its lease was last renewed, in words."""
        return f"last heard of {format_seconds(time.time() - self.renewed)} ago"

    @property
    def is_stale(self) -> bool:
        """Whether its lease has lasted for longer than it is good for."""
        return time.time() > self.renewed + self.lasts

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has begun to work on what was handed over."""
        return self.lasts > WORKING

    @property
    def is_here(self) -> bool:
        """Whether the process is, or was, one of this host."""
        return self.host == platform.node()

    @property
    def has_exited(self) -> bool:
        """Whether the process is known to have ended, and did not leave the work to a job."""
        return self.is_here and not self.is_detached and _began(self.process) != self.began

    def __str__(self) -> str:
        """Return the command, with its job or its process, and since when."""
        if not self.command:
            return "another curate command"
        job = f"job {self.handle.get('job')} on {self.engine}" if self.handle else ""
        who = job or f"process {self.process} on {self.host}"
        since = datetime.fromtimestamp(self.since, UTC).isoformat(" ", "seconds")
        return f"curate {self.command} ({who}, since {since})"


MayEnd = Callable[[Holder], bool]  # whether the lease of a holder may be ended, as that of a dead one
SOMEBODY = Holder(id="", command="", host="", process=0, began="", since=0, renewed=0)  # who has not said who it is


def _began(process: int) -> str:
    """Return when a process of this host began, as the kernel counts; empty where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def read_leases(store: RunStore) -> dict[int, Holder]:
    """Return all leases, by number, in order; mostly there is one or none."""
    store.fs.invalidate_cache(store.path(LEASES))
    leases: dict[int, Holder] = {}
    for name in store.names(LEASES):
        with suppress(FileNotFoundError, ValueError):  # it has ended since; or is none of ours
            leases[int(name)] = Holder.model_validate_json(store.read_bytes(f"{LEASES}/{name}"))
    return dict(sorted(leases.items()))


def find_lease(store: RunStore) -> Holder | None:
    """Return who has the lease, stale or not; nobody, once the run is published and the process has left it."""
    holder = next(reversed(read_leases(store).values()), None)
    is_detached = holder and (holder.is_detached or holder.has_exited)
    return None if is_detached and store.exists(SUCCESS_FILE) else holder


def check_free(store: RunStore, holder: Holder | None, may_end: MayEnd | None) -> None:
    """Raise RunError where somebody holds the folder, unless `may_end` says that it is dead."""
    if holder and not (may_end and may_end(holder)):
        raise held_error(store, holder)


def take_lease(store: RunStore, holder: Holder, may_end: MayEnd | None) -> None:
    """Take the lease, from one that is dead, unless it is the holder's already. Raises as `check_free` does."""
    before, held = read_leases(store), find_lease(store)
    if held and held.id == holder.id:
        renew_lease(store, holder.id, died=holder.died)
        return
    check_free(store, held, may_end)
    number = max(before, default=0) + 1
    is_put = store.write_json(_file(number), holder.model_dump(), keep=lambda: True)
    now, old_ids = read_leases(store), {holder.id, *(other.id for other in before.values())}
    if is_put:  # whatever a listing from before says
        now[number] = holder
    if others := [other for other in now.values() if other.id not in old_ids]:  # from a moment ago
        end_lease(store, holder.id)
        raise held_error(store, others[-1])
    if all(other.id != holder.id for other in now.values()):  # another had it for a moment
        take_lease(store, holder, may_end)
    for number, other in now.items():
        if other.id != holder.id:
            store.delete_file(_file(number))


def held_error(store: RunStore, holder: Holder) -> RunError:
    """Return the error of a command that finds the folder held."""
    who, end = f"{store.url}: {holder}", ""
    if holder.is_detached or not store.is_local:
        end = f"`curate cancel {store.url}` frees it, `curate run … --take-over` continues the run"
        if holder.is_stale:
            return RunError(f"{who} was {holder.last_renewed}, so its lease is stale: {end}")
        if holder.has_exited and not holder.handle:
            return RunError(f"{who} has ended and left its lease: {end}")
        end = f"; if it is dead, {end}"
    return RunError(f"{who} is running here; wait until it ends, or stop it{end}")


def renew_lease(store: RunStore, lease: str, **values: Any) -> None:
    """Renew a lease, with new values, unless it was freed. Raises RunError where another run has it.

    Without values nothing is written where it was renewed a moment ago.
    """
    with _renewal:
        leases = read_leases(store)
        if not leases:
            return
        holder = leases[number := max(leases)]
        if holder.id != lease:
            raise RunError(f"{store.url}: {holder} has taken over this run; this one stops")
        if values or holder.is_waiting or time.time() - holder.renewed >= BETWEEN:
            fresh = {"renewed": time.time(), "lasts": WORKING} | values
            store.write_json(_file(number), holder.model_copy(update=fresh).model_dump())
        if values:  # another may go on, in this process too
            _renewed.pop(lease, None)


@contextmanager
def renewing(store: RunStore, lease: str) -> Iterator[None]:
    """Renew a lease while the block works, a process once a minute; an empty one is none.

    Raises RunError where another run has taken it over.
    """
    if not lease:
        yield
        return
    if lease in _lost:
        raise _lost[lease]

    def renew(ended: threading.Event) -> None:
        while not ended.is_set():
            if time.monotonic() - _renewed.get(lease, float("-inf")) >= BETWEEN:
                _renewed[lease] = time.monotonic()
                try:
                    renew_lease(store, lease)
                except RunError as error:
                    _lost[lease] = error
                except OSError as error:  # it lasts for more than one attempt
                    _log.warning("%s: the lease was not renewed: %s", store.url, one_line(error, 200))
            ended.wait(BETWEEN)

    with background_thread(renew, "lease"):
        yield


def end_lease(store: RunStore, lease: str) -> None:
    """Free the folder of a lease, and of those that it ended, if it is still there."""
    leases = read_leases(store)
    last = max((number for number, holder in leases.items() if holder.id == lease), default=0)
    for number in leases:
        if number <= last:
            store.delete_file(_file(number))


def _file(number: int) -> str:
    return f"{LEASES}/{number:06d}"
