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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from curate.base.errors import RunError
from curate.base.wording import format_seconds, one_line
from curate.store.layout import JOB_FILE, LEASES, SUCCESS_FILE
from curate.store.store import RunStore

WORKING = 15 * 60.0  # seconds that a lease lasts while somebody works,
WAITING = 24 * 3600.0  # and while a job that was handed over still waits
BETWEEN = 60.0  # seconds between two renewals

_log = logging.getLogger(__name__)


class Process(BaseModel):
    """A process, which no other one is: numbers come again, and on other hosts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    process: int
    began: str  # in ticks since the host started

    @classmethod
    def current(cls) -> Self:
        """Return this one."""
        return cls(host=platform.node(), process=os.getpid(), began=_began(os.getpid()))

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, one of this host."""
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether this host has the process now."""
        return self.is_here and _began(self.process) == self.began


def _began(process: int) -> str:
    """Return when a process of this host began, as the kernel counts; empty where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Holder(Process):
    """Who holds a folder: the process that took it, and what it does there."""

    id: str
    command: str
    since: float  # seconds since 1970, as `renewed`
    renewed: float
    lasts: float = WORKING  # seconds since then
    has_left: bool = False  # whether a job goes on without the process

    @classmethod
    def make(cls, command: str) -> Self:
        """Return this process, which begins now."""
        now = time.time()
        return cls(**Process.current().model_dump(), id=uuid.uuid4().hex, command=command, since=now, renewed=now)

    @property
    def is_stale(self) -> bool:
        """Whether its lease has lasted for longer than it is good for."""
        return time.time() > self.renewed + self.lasts

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has begun to work on what was handed over."""
        return self.lasts > WORKING

    @property
    def is_gone(self) -> bool:
        """Whether its process is known to have ended, and did not leave the work to a job."""
        return self.is_here and not self.is_alive and not self.has_left

    def describe(self, store: RunStore) -> str:
        """Return who it is: the command, with its job or its process."""
        if not self.command:
            return "another curate command"
        job = read_job(store, self.id)
        who = job.describe() if job else f"process {self.process} on {self.host}"
        return f"curate {self.command} ({who}, since {format_time(self.since)})"


NOBODY_KNOWN = Holder(host="", process=0, began="", id="", command="", since=0, renewed=0)
"""Who holds a lock and has not yet said who it is."""


class JobRecord(BaseModel):
    """The job of a run that was handed over, by which it is found again from anywhere."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lease: str  # the id of who held the folder when it was submitted
    engine: str  # its key
    handle: dict[str, str]  # see `pipelines.engines.job.Job`
    page: str | None = None  # where the engine shows it
    submitted: float  # seconds since 1970

    def describe(self) -> str:
        """Return what names it for people."""
        job = self.handle.get("job")
        return f"job {job} on {self.engine}" if job else f"process {self.handle['process']} on {self.handle['host']}"


def read_job(store: RunStore, lease: str | None = None) -> JobRecord | None:
    """Return the job that was last handed over here, if it was under this lease; None where there was none.

    A damaged record is none.
    """
    try:
        job = JobRecord.model_validate_json(store.fs.cat_file(store.path(JOB_FILE)))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return job if lease in (None, job.lease) else None


def write_job(
    store: RunStore, lease: str, engine: str, handle: Mapping[str, str] | None, page: str | None = None
) -> None:
    """Record the job of a lease, if it has a handle."""
    if handle is not None:
        job = JobRecord(lease=lease, engine=engine, handle=dict(handle), page=page, submitted=time.time())
        store.write_json(JOB_FILE, job.model_dump())


def format_time(moment: float) -> str:
    """Return a moment in UTC, to the second."""
    return datetime.fromtimestamp(moment, UTC).isoformat(" ", "seconds")


def read_leases(store: RunStore) -> dict[int, Holder]:
    """Return all leases, by number, in order; mostly there is one or none."""
    if not store.is_local:
        store.fs.invalidate_cache(store.path(LEASES))
    leases: dict[int, Holder] = {}
    for name in store.names(LEASES):
        with suppress(FileNotFoundError, ValidationError, ValueError):  # it has ended since; or is none of ours
            leases[int(name)] = Holder.model_validate_json(store.fs.cat_file(store.path(f"{LEASES}/{name}")))
    return dict(sorted(leases.items()))


def find_lease(store: RunStore) -> Holder | None:
    """Return who has the lease, stale or not."""
    return next(reversed(read_leases(store).values()), None)


def has_finished(store: RunStore, holder: Holder) -> bool:
    """Return whether a job that went on without its driver has published the run, which ends its lease."""
    return holder.has_left and store.exists(SUCCESS_FILE)


def take_lease(store: RunStore, holder: Holder, may_end: Callable[[Holder], bool]) -> None:
    """Take the lease, from one that `may_end` says is dead. Raises RunError where another has it."""
    before = read_leases(store)
    if before and not (has_finished(store, last := before[max(before)]) or may_end(last)):
        raise say_held(store, last)
    store.write_json(_file(max(before, default=0) + 1), holder.model_dump(), keep=lambda: True)
    known = {holder.id, *(other.id for other in before.values())}
    now = read_leases(store)
    if others := [other for other in now.values() if other.id not in known]:  # from a moment ago
        end_lease(store, holder.id)
        raise say_held(store, others[-1])
    if all(other.id != holder.id for other in now.values()):  # another had it for a moment
        take_lease(store, holder, may_end)
    for number, other in now.items():
        if other.id != holder.id:
            store.delete(_file(number))


def say_held(store: RunStore, holder: Holder) -> RunError:
    """Return the error of a command that finds the folder held."""
    who, end = f"{store.url}: {holder.describe(store)}", ""
    if holder.has_left or not store.is_local:
        end = f"`curate cancel {store.url}` frees it, `curate run … --take-over` continues the run"
        if holder.is_stale:
            last = format_seconds(time.time() - holder.renewed)
            return RunError(f"{who} was last heard of {last} ago, so its lease is stale: {end}")
        if holder.is_gone and not read_job(store, holder.id):
            return RunError(f"{who} has ended and left its lease: {end}")
        end = f"; if it is dead, {end}"
    return RunError(f"{who} is running here; wait until it ends, or stop it{end}")


def renew_lease(store: RunStore, lease: str, **values: object) -> None:
    """Renew a lease, with new values, unless it was freed. Raises RunError where another run has it.

    Without values nothing is written where it was renewed a moment ago.
    """
    leases = read_leases(store)
    if not leases:
        return
    holder = leases[number := max(leases)]
    if holder.id != lease:
        raise RunError(f"{store.url}: {holder.describe(store)} has taken over this run; this one stops")
    if values or holder.is_waiting or time.time() - holder.renewed >= BETWEEN:
        fresh = {"renewed": time.time(), "lasts": WORKING} | values
        store.write_json(_file(number), holder.model_copy(update=fresh).model_dump())


def end_lease(store: RunStore, lease: str) -> None:
    """Free the folder of a lease, and of those that it ended, if it is still there."""
    leases = read_leases(store)
    last = max((number for number, holder in leases.items() if holder.id == lease), default=0)
    for number in leases:
        if number <= last:
            store.delete(_file(number))


class _Renewer(threading.Thread):
    """Renews a lease from this process, at once and then each minute, until nothing was done since the last time."""

    def __init__(self, store: RunStore, lease: str) -> None:
        super().__init__(name="lease", daemon=True)
        self._store, self._lease = store, lease
        self.blocks, self.has_worked = 0, True
        self.lost: RunError | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        """Renew it; once another run has it, keep the error for all who work."""
        while not self.ended.is_set():
            with _lock:
                if not (self.blocks or self.has_worked):
                    _renewers.pop(self._lease, None)
                    return
                self.has_worked = False
            try:
                renew_lease(self._store, self._lease)
            except RunError as error:
                self.lost = error
                return
            except Exception as error:  # of any library's: it lasts for more than one attempt
                _log.warning("%s: the lease was not renewed: %s", self._store.url, one_line(error, 200))
            self.ended.wait(BETWEEN)


_lock = threading.Lock()
_renewers: dict[str, _Renewer] = {}


@contextmanager
def renewing(store: RunStore, lease: str) -> Iterator[None]:
    """Renew a lease while the block works, with others of this process; an empty one is none.

    Raises RunError where another run has taken it over.
    """
    if not lease:
        yield
        return
    with _lock:
        if (renewer := _renewers.get(lease)) is None:
            renewer = _renewers[lease] = _Renewer(store, lease)
            renewer.start()
        if renewer.lost:
            raise renewer.lost
        renewer.blocks += 1
        renewer.has_worked = True
    try:
        yield
    finally:
        with _lock:
            renewer.blocks -= 1


def stop_renewing(lease: str) -> None:
    """Let this process renew a lease no more."""
    with _lock:
        renewer = _renewers.pop(lease, None)
    if renewer:
        renewer.ended.set()
        renewer.join()


def _file(number: int) -> str:
    return f"{LEASES}/{number:06d}"
