"""One command at a time works in a run folder: by a lock that ends with its process, however that ends.

The lock is the system's, on a file that says who holds it. A process number alone would not do: after a kill another
process may have it, as in containers, and on a shared disk it is another machine's. In object stores, and for jobs that
work without the process that submitted them, it is a lease (see `curate.store.lease`). Some shared disks have no locks:
there nobody is kept out. (filelock leaves its file behind; a finished run has no such file.)
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from curate.base.errors import RunError
from curate.base.process import cleaned_up
from curate.store import lease as leases
from curate.store.layout import LEASES, LOCK_FILE
from curate.store.lease import Holder, MayEnd, held_error
from curate.store.store import RunStore

_ATTEMPTS = 50  # to make the folder: it may be removed in between, but not so often
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass
class FolderLock:
    """A folder that this process holds: by the file of a lock, by a lease, or by both."""

    store: RunStore
    holder: Holder
    file: IO[str] | None = None
    lease: str = ""
    is_handed_over: bool = False  # set where a job works on, without this process

    def record(self, **values: Any) -> None:
        """Record more about the holder: fields of Holder."""
        self.holder = self.holder.model_copy(update=values)
        if self.file:
            self.file.truncate(0)
            self.file.write(self.holder.model_dump_json())
            self.file.flush()
        if self.lease:
            leases.renew_lease(self.store, self.lease, **values)

    def end(self) -> None:
        """Let go of the folder, or leave the lease to the job."""
        if self.is_handed_over:
            leases.renew_lease(self.store, self.lease, lasts=leases.WAITING, is_detached=True)
        elif self.lease:
            leases.end_lease(self.store, self.lease)
        if self.file and _is_at(self.file, self.store.path(LOCK_FILE)):  # else another may hold the next one
            os.unlink(self.store.path(LOCK_FILE))
            for folder in (LEASES, "tmp"):
                with suppress(OSError):  # it holds more
                    os.rmdir(self.store.path(folder))


class Keeper:
    """Keeps a folder for as long as a command works there: this process, or one that others work for, one by one."""

    process: int | None = None
    holder: Holder | None = None  # if an earlier process has taken the folder,
    lock: int | None = None  # with the file of its lock

    def keep(self, holder: Holder, lock: int | None) -> None:
        """Keep the folder for the next process, with the file of its lock."""


@contextmanager
def locked(
    store: RunStore, command: str, may_end: MayEnd | None = None, outlasts: bool = False, keeper: Keeper | None = None
) -> Iterator[FolderLock]:
    """Keep other commands out of the folder while the block runs, or until a job has ended that was handed over.

    `outlasts`: whether a job may work on without this process. Raises RunError, which names one that is at work.
    """
    keeper = keeper or Keeper()
    folder_lock = FolderLock(store, keeper.holder or Holder.make(command, keeper.process))
    with ExitStack() as held:
        if store.is_local:
            folder_lock.file = held.enter_context(_acquire(store, keeper.lock))
        held.enter_context(cleaned_up(folder_lock.end))
        keeper.keep(folder_lock.holder, folder_lock.file.fileno() if folder_lock.file else None)
        if outlasts or not store.is_local or leases.read_leases(store):
            leases.take_lease(store, folder_lock.holder, may_end)
            folder_lock.lease = folder_lock.holder.id
            held.enter_context(leases.renewing(store, folder_lock.lease))
        if folder_lock.file:
            folder_lock.record()
        yield folder_lock


def find_holder(store: RunStore) -> Holder | None:
    """Return who holds the folder now: by the lock, or by a lease, perhaps a stale one; write nothing."""
    if store.is_local:
        with suppress(FileNotFoundError, NotADirectoryError), open(store.path(LOCK_FILE)) as file:
            if (holder := _lock(file, fcntl.LOCK_SH)) and not holder.has_exited:  # else its child is about to end
                return holder
    return leases.find_lease(store)


def check_unlocked(store: RunStore, may_end: MayEnd | None = None) -> None:
    """Raise RunError where a command is at work in the folder now; write nothing."""
    leases.check_free(store, find_holder(store), may_end)


def clear_tmp(store: RunStore, keep: str = LOCK_FILE) -> None:
    """Remove what is in the folder's `tmp`, but the lock and what is to `keep`. The caller holds the lock."""
    for name in store.names("tmp"):
        if f"tmp/{name}" not in (LOCK_FILE, LEASES, keep):
            store.delete(f"tmp/{name}")
    if store.is_local:
        with suppress(OSError):  # it holds the lock
            os.rmdir(store.path("tmp"))


def remove_leftovers(store: RunStore) -> None:
    """Remove what killed commands left in the `tmp` of a finished run, unless one is at work."""
    if store.names("tmp"):
        with suppress(RunError, OSError), locked(store, "run"):  # who may only read it leaves it as it is
            clear_tmp(store)


def _acquire(store: RunStore, kept: int | None) -> IO[str]:
    """Return the file, locked, perhaps kept so; closing it lets go. Raises RunError where another holds it."""
    if kept is not None:
        return open(kept, "a+")
    path, failed = store.path(LOCK_FILE), 0
    while True:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = open(path, "a+")  # noqa: SIM115  (the caller closes it)
        except (FileNotFoundError, FileExistsError):
            failed += 1
            if failed == _ATTEMPTS:
                raise
            continue  # the one before removed its folder
        with ExitStack() as stack:
            stack.callback(file.close)
            if (other := _lock(file, fcntl.LOCK_EX)) and _lock(file, fcntl.LOCK_SH):
                raise held_error(store, other)
            if not other and _is_at(file, path):  # else the one before removed it, and it locks nobody out
                stack.pop_all()
                return file
        if other:  # it is shared: somebody asks who holds it (`find_holder`), for a moment
            time.sleep(0.01)


def _lock(file: IO[str], mode: int) -> Holder | None:
    """Lock the file, where its disk has locks; return another who holds it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        file.seek(0)
        try:
            return Holder.model_validate_json(file.read())
        except ValueError:  # not written yet, or by something else
            return leases.SOMEBODY
    return None


def _is_at(file: IO[str], path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
