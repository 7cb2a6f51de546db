"""One command at a time works in a run folder: by a lock that ends with its process, however that ends.

The lock is the system's, on a file that says who holds it. A process number alone would not do: after a kill another
process may have it, as in containers, and on a shared disk it is another machine's. Object stores and some shared disks
have no such locks: there nobody is kept out. (filelock leaves its file behind; a finished run has no such file.)
"""

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO

from curate.base.errors import RunError
from curate.base.process import cleaned_up
from curate.store.layout import LOCK_FILE
from curate.store.store import RunStore

_ATTEMPTS = 50  # to make the folder: it may be removed in between, but not so often
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(store: RunStore, command: str) -> Iterator[None]:
    """Keep other commands out of the folder while the block runs. Raises RunError, which names one that is at work."""
    if not store.is_local:
        yield
        return
    path = store.path(LOCK_FILE)
    with _acquire(path, command) as file, cleaned_up(lambda: _remove(file, path)):
        yield


def _remove(file: IO[str], path: str) -> None:
    """Remove the file of a lock that is held, unless the block did: then another may hold the next one."""
    if _is_at(file, path):
        os.unlink(path)
        with suppress(OSError):  # it holds more
            os.rmdir(os.path.dirname(path))


def check_unlocked(store: RunStore) -> None:
    """Raise RunError where a command is at work in the folder now; write nothing."""
    if not store.is_local:
        return
    with suppress(FileNotFoundError, NotADirectoryError), open(store.path(LOCK_FILE), "r+") as file:
        _lock(file, store.path(LOCK_FILE))


def clear_tmp(store: RunStore, keep: str = LOCK_FILE) -> None:
    """Remove what is in the folder's `tmp`, but the lock and what is to `keep`. The caller holds the lock."""
    for name in store.names("tmp"):
        if f"tmp/{name}" not in (LOCK_FILE, keep):
            store.delete(f"tmp/{name}")
    if store.is_local:
        with suppress(OSError):  # it holds the lock
            os.rmdir(store.path("tmp"))


def remove_leftovers(store: RunStore) -> None:
    """Remove what killed commands left in the `tmp` of a finished run, unless one is at work."""
    if store.exists("tmp"):
        with suppress(RunError, OSError), locked(store, "run"):  # who may only read it leaves it as it is
            store.delete("tmp")


def _acquire(path: str, command: str) -> IO[str]:
    """Return the file, locked; closing it lets go."""
    failed = 0
    while True:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = open(path, "a+")  # noqa: SIM115  (the caller closes it)
        except (FileNotFoundError, FileExistsError):
            failed += 1
            if failed == _ATTEMPTS:
                raise
            continue  # the one before removed its folder
        try:
            _lock(file, path)
        except BaseException:
            file.close()
            raise
        if _is_at(file, path):  # else the one before removed it, and it locks nobody out
            file.truncate(0)
            since = datetime.now(UTC).isoformat(" ", "seconds")
            json.dump({"command": command, "process": os.getpid(), "host": platform.node(), "since": since}, file)
            file.flush()
            return file
        file.close()


def _lock(file: IO[str], path: str) -> None:
    """Lock the file, where its disk has locks. Raises RunError where another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        file.seek(0)
        folder, holder = os.path.dirname(os.path.dirname(path)), "another curate command"
        with suppress(ValueError, KeyError, TypeError):  # not written yet, or by something else
            words = "curate {command} (process {process} on {host}, since {since})"
            holder = words.format_map(json.loads(file.read()))
        raise RunError(f"{folder}: {holder} is running here; wait until it ends, or stop it") from None


def _is_at(file: IO[str], path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
