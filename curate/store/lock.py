"""Lets only one command at a time write to a run folder: it has a lock that the system releases with the process.

The lock is a system lock on a file that names the holder. A process number is not enough. After a kill, another process
may get the same number, for example in a container, and on a shared disk the process may be on another machine. Object
stores and detached jobs use a lease instead (see `curate.store.lease`). Some shared disks do not support locks; there,
nothing keeps other commands out. (The package filelock would leave its file behind; a finished run must not have such a
file.)
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

_ATTEMPTS = 50  # attempts to create the folder, which other commands may remove
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass
class FolderLock:
    """A folder held by this process, through a lock file, a lease, or both."""

    store: RunStore
    holder: Holder
    file: IO[str] | None = None
    lease: str = ""
    is_handed_over: bool = False  # set if a job continues after this process

    def record(self, **values: Any) -> None:
        """Update fields of the Holder that is recorded in the folder."""
        self.holder = self.holder.model_copy(update=values)
        if self.file:
            self.file.truncate(0)
            self.file.write(self.holder.model_dump_json())
            self.file.flush()
        if self.lease:
            leases.renew_lease(self.store, self.lease, **values)

    def end(self) -> None:
        """Release the folder, or leave the lease to the job."""
        if self.is_handed_over:
            leases.renew_lease(self.store, self.lease, lasts=leases.WAITING, is_detached=True)
        elif self.lease:
            leases.end_lease(self.store, self.lease)
        if self.file and _is_at(self.file, self.store.path(LOCK_FILE)):  # otherwise, the lock is another command's
            os.unlink(self.store.path(LOCK_FILE))
            for folder in (LEASES, "tmp"):
                with suppress(OSError):  # the folder is not empty
                    os.rmdir(self.store.path(folder))


class Keeper:
    """Holds a folder for a command. The command may be this process, or worker processes that run one after another."""

    process: int | None = None
    holder: Holder | None = None  # set if an earlier process has taken the folder
    lock: int | None = None  # descriptor of its lock file

    def keep(self, holder: Holder, lock: int | None) -> None:
        """Keep the lock file open, so that the next process holds the folder."""


@contextmanager
def locked(
    store: RunStore, command: str, may_end: MayEnd | None = None, outlasts: bool = False, keeper: Keeper | None = None
) -> Iterator[FolderLock]:
    """Keep other commands out of the folder during the block, or until a detached job has ended.

    `outlasts`: whether a job may continue without this process. Raises RunError, which names a command that is running.
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
    """Return who holds the folder, by its lock or by a lease, even an expired one. Writes nothing."""
    if store.is_local:
        with suppress(FileNotFoundError, NotADirectoryError), open(store.path(LOCK_FILE)) as file:
            if (holder := _lock(file, fcntl.LOCK_SH)) and not holder.has_exited:  # otherwise, its child will soon end
                return holder
    return leases.find_lease(store)


def check_unlocked(store: RunStore, may_end: MayEnd | None = None) -> None:
    """Raise RunError if a command is running in the folder. Writes nothing."""
    leases.check_free(store, find_holder(store), may_end)


def clear_tmp(store: RunStore, keep: str = LOCK_FILE) -> None:
    """Delete everything in the folder's `tmp`, except the lock and `keep`. The caller must hold the lock."""
    for name in store.names("tmp"):
        if f"tmp/{name}" not in (LOCK_FILE, LEASES, keep):
            store.delete(f"tmp/{name}")
    if store.is_local:
        with suppress(OSError):  # the folder still has the lock
            os.rmdir(store.path("tmp"))


def remove_leftovers(store: RunStore) -> None:
    """Remove files that killed commands left in the `tmp` of a finished run, unless a command is running."""
    if store.names("tmp"):
        with suppress(RunError, OSError), locked(store, "run"):  # readers without write access leave it as it is
            clear_tmp(store)


def _acquire(store: RunStore, kept: int | None) -> IO[str]:
    """Return the locked file, or the one that is already locked. Closing it unlocks.

    Raises RunError if another command has locked it.
    """
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
            continue  # the previous holder removed the folder
        with ExitStack() as stack:
            stack.callback(file.close)
            if (other := _lock(file, fcntl.LOCK_EX)) and _lock(file, fcntl.LOCK_SH):
                raise held_error(store, other)
            if not other and _is_at(file, path):  # otherwise, the previous holder removed it: the lock is useless
                stack.pop_all()
                return file
        if other:  # a shared lock, which `find_holder` takes for a moment
            time.sleep(0.01)


def _lock(file: IO[str], mode: int) -> Holder | None:
    """Lock the file, if its disk supports locks. If another process has the lock, return its holder."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        file.seek(0)
        try:
            return Holder.model_validate_json(file.read())
        except ValueError:  # the holder is not written yet, or another program wrote it
            return leases.SOMEBODY
    return None


def _is_at(file: IO[str], path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
