"""One command at a time changes a published run in a local folder: by a lock that ends with its process, however that ends.

The lock is the system's, on a file that names the process. A number of a process alone would not do: after a kill another
process may have it, as in containers, and on a shared disk it is another machine's. Object stores have no locks, and some
shared disks have none: there nobody is kept out.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from curate.errors import RunError
from curate.store.store import RunStore

_LOCK = "tmp/forget.lock"
_ATTEMPTS = 50  # to make the folder: it may be removed in between, but not so often
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(folder: RunStore) -> Iterator[None]:
    """Keeps others that change the run out while the block runs. Raises RunError where one is at work."""
    if not folder.is_local:
        yield
        return
    path = folder.path(_LOCK)
    with _take(path) as file:
        try:
            yield
        finally:
            if _is_at(file, path):  # where the block removed it, another may have taken the next one
                os.unlink(path)
                with suppress(OSError):  # it holds more
                    os.rmdir(os.path.dirname(path))


def tidy(folder: RunStore) -> None:
    """Removes what killed commands left in the `tmp` of a finished run, unless one is at work."""
    if folder.exists("tmp"):
        with suppress(RunError, OSError), locked(folder):  # who may only read it leaves it as it is
            folder.delete("tmp")


def _take(path: str) -> IO[str]:
    """The file, locked; closing it lets go."""
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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise RunError(
                f"{path}: `curate forget`, `report` or `run` is at work here{owner and f' (process {owner})'}; wait for it"
            ) from None
        if _is_at(file, path):  # else the one before removed it, and it locks nobody out
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()


def _is_at(file: IO[str], path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
