"""The lease of a run folder, for object stores and detached jobs. There, no system lock ends with the process.

A lease is a file in `tmp/lease` whose name is a number. Only the lease with the largest number counts. A command takes
the lease with a PUT that fails if the file exists, so only one of two simultaneous attempts succeeds. The lease expires
some time after its last renewal. Each process that works for the run renews it at most once a minute, including the
workers of a detached job. A command that takes over a lease uses the next number. Processes that still work for the old
lease see the new one, and stop.
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

WORKING = 15 * 60.0  # how long a lease is valid, in seconds, while a process works,
WAITING = 24 * 3600.0  # and while a submitted job waits
BETWEEN = 60.0  # seconds between two renewals

_log = logging.getLogger(__name__)
_renewal = threading.Lock()
_renewed: dict[str, float] = {}  # last renewals by this process, on a monotonic clock
_lost: dict[str, RunError] = {}  # leases of this process that another run has taken over


class Holder(BaseModel, frozen=True, extra="ignore"):
    """Who holds a folder: a process, and perhaps a job that continues without it."""

    id: str
    command: str
    host: str
    process: int
    began: str  # start of the process in ticks since boot, because process numbers are reused
    since: float  # seconds since 1970, like `renewed`
    renewed: float
    lasts: float = WORKING  # how many seconds it is valid after a renewal
    log: str | None = None  # log file of a detached driver
    engine: str = ""  # the key of the job's engine
    handle: dict[str, str] | None = None  # identifies the job, see `pipelines.engines.job.Job`
    page: str | None = None  # web page of the job
    is_detached: bool = False  # whether the job continues without the process
    died: str = ""  # for a supervised run: how often its worker process died, and why

    @classmethod
    def make(cls, command: str, process: int | None = None) -> Self:
        """Return a holder for a process on this host, by default this process. It holds the folder from now on."""
        now, process = time.time(), process or os.getpid()
        who = {"id": uuid.uuid4().hex, "host": platform.node(), "process": process, "began": _began(process)}
        return cls(command=command, since=now, renewed=now, **who)

    @property
    def last_renewed(self) -> str:
        """How long ago the lease was last renewed, as text."""
        return f"last active {format_seconds(time.time() - self.renewed)} ago"

    @property
    def is_stale(self) -> bool:
        """Whether the lease has expired."""
        return time.time() > self.renewed + self.lasts

    @property
    def is_waiting(self) -> bool:
        """Whether the job is submitted, but no worker has started on it."""
        return self.lasts > WORKING

    @property
    def is_here(self) -> bool:
        """Whether the process is or was on this host."""
        return self.host == platform.node()

    @property
    def has_exited(self) -> bool:
        """Whether the process has certainly ended, without a detached job."""
        return self.is_here and not self.is_detached and _began(self.process) != self.began

    def __str__(self) -> str:
        """Return the command, its job or process, and when it started."""
        if not self.command:
            return "another curate command"
        job = f"job {self.handle.get('job')} on {self.engine}" if self.handle else ""
        who = job or f"process {self.process} on {self.host}"
        since = datetime.fromtimestamp(self.since, UTC).isoformat(" ", "seconds")
        return f"curate {self.command} ({who}, since {since})"


MayEnd = Callable[[Holder], bool]  # whether a holder is dead, so that its lease may be ended
SOMEBODY = Holder(id="", command="", host="", process=0, began="", since=0, renewed=0)  # an unknown holder


def _began(process: int) -> str:
    """Return the start of a process on this host, in the kernel's ticks; empty if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def read_leases(store: RunStore) -> dict[int, Holder]:
    """Return all leases in order, by number. There is usually one, or none."""
    store.fs.invalidate_cache(store.path(LEASES))
    leases: dict[int, Holder] = {}
    for name in store.names(LEASES):
        with suppress(FileNotFoundError, ValueError):  # already deleted, or not a lease
            leases[int(name)] = Holder.model_validate_json(store.read_bytes(f"{LEASES}/{name}"))
    return dict(sorted(leases.items()))


def find_lease(store: RunStore) -> Holder | None:
    """Return the holder of the lease, expired or not; None if the run is published and the process has ended."""
    holder = next(reversed(read_leases(store).values()), None)
    is_detached = holder and (holder.is_detached or holder.has_exited)
    return None if is_detached and store.exists(SUCCESS_FILE) else holder


def check_free(store: RunStore, holder: Holder | None, may_end: MayEnd | None) -> None:
    """Raise RunError if the folder has a holder, unless `may_end` says that it is dead."""
    if holder and not (may_end and may_end(holder)):
        raise held_error(store, holder)


def take_lease(store: RunStore, holder: Holder, may_end: MayEnd | None) -> None:
    """Take the lease, also from a dead holder. Does nothing if this holder has it. Raises as `check_free`."""
    before, held = read_leases(store), find_lease(store)
    if held and held.id == holder.id:
        renew_lease(store, holder.id, died=holder.died)
        return
    check_free(store, held, may_end)
    number = max(before, default=0) + 1
    is_put = store.write_json(_file(number), holder.model_dump(), keep=lambda: True)
    now, old_ids = read_leases(store), {holder.id, *(other.id for other in before.values())}
    if is_put:  # even if an outdated listing lacks it
        now[number] = holder
    if others := [other for other in now.values() if other.id not in old_ids]:  # taken by another command a moment ago
        end_lease(store, holder.id)
        raise held_error(store, others[-1])
    if all(other.id != holder.id for other in now.values()):  # another command had the lease for a moment
        take_lease(store, holder, may_end)
    for number, other in now.items():
        if other.id != holder.id:
            store.delete_file(_file(number))


def held_error(store: RunStore, holder: Holder) -> RunError:
    """Return the error for a command that finds the folder in use."""
    who, end = f"{store.url}: {holder}", ""
    if holder.is_detached or not store.is_local:
        end = f"`curate cancel {store.url}` frees the folder, and `curate run … --take-over` continues the run"
        if holder.is_stale:
            return RunError(f"{who} was {holder.last_renewed}, so it probably no longer runs; {end}")
        if holder.has_exited and not holder.handle:
            return RunError(f"{who} has ended without freeing the folder; {end}")
        end = f". If it no longer runs, {end}"
    return RunError(f"{who} is running here; wait until it ends, or stop it{end}")


def renew_lease(store: RunStore, lease: str, **values: Any) -> None:
    """Renew a lease with new values, unless it was freed. Raises RunError if another run has taken it.

    If there are no values and the last renewal was recent, nothing is written.
    """
    with _renewal:
        leases = read_leases(store)
        if not leases:
            return
        holder = leases[number := max(leases)]
        if holder.id != lease:
            raise RunError(f"{store.url}: {holder} has taken over this run; this command stops")
        if values or holder.is_waiting or time.time() - holder.renewed >= BETWEEN:
            fresh = {"renewed": time.time(), "lasts": WORKING} | values
            store.write_json(_file(number), holder.model_copy(update=fresh).model_dump())
        if values:  # another command in this process may continue
            _renewed.pop(lease, None)


@contextmanager
def renewing(store: RunStore, lease: str) -> Iterator[None]:
    """Renew a lease during the block, once a minute per process. With an empty lease, do nothing.

    Raises RunError if another run has taken the lease over.
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
                except OSError as error:  # the lease outlives a single failed renewal
                    _log.warning("%s: cannot renew the lease: %s", store.url, one_line(error, 200))
            ended.wait(BETWEEN)

    with background_thread(renew, "lease"):
        yield


def end_lease(store: RunStore, lease: str) -> None:
    """Delete a lease if it still exists, and the leases that it replaced."""
    leases = read_leases(store)
    last = max((number for number, holder in leases.items() if holder.id == lease), default=0)
    for number in leases:
        if number <= last:
            store.delete_file(_file(number))


def _file(number: int) -> str:
    return f"{LEASES}/{number:06d}"
