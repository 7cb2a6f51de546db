"""One command at a time in a local run folder: a file that only one process can create, with its process id.

A file that a dead process left is taken over. Object stores have no such file: there nobody is kept out.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curate.errors import RunError
from curate.shards.commit import Folder

_LOCK = "tmp/forget.lock"


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Keeps other `curate forget` out while the block runs. Raises RunError where one is at work."""
    if not folder.is_local:
        yield
        return
    path = folder.path(_LOCK)
    own = f"{path}.{os.getpid()}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(own, "w") as file:
        file.write(str(os.getpid()))
    try:
        _take(own, path)
    finally:
        os.unlink(own)
    try:
        yield
    finally:
        if _owner(path) == os.getpid():
            os.unlink(path)


def _take(own: str, path: str) -> None:
    """Links the file that names this process under the lock's name, which one process can."""
    while True:
        with suppress(FileExistsError):
            os.link(own, path)
            return
        owner = _owner(path)
        if owner and _lives(owner):
            raise RunError(f"{path}: `curate forget` is at work here (process {owner}); wait for it")
        with suppress(FileNotFoundError):
            os.unlink(path)


def _owner(path: str) -> int:
    """The process that holds the lock; 0 where there is none."""
    try:
        with open(path) as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return 0


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
