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
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            owner = _owner(path)
            if owner is None:
                raise RunError(f"{path}: another `curate forget` is beginning here; wait for it") from None
            if _lives(owner):
                raise RunError(f"{path}: `curate forget` is at work here (process {owner}); wait for it") from None
            with suppress(FileNotFoundError):
                os.unlink(path)
    with os.fdopen(file, "w") as opened:
        opened.write(str(os.getpid()))
    try:
        yield
    finally:
        if _owner(path) == os.getpid():
            os.unlink(path)


def _owner(path: str) -> int | None:
    """The process that made the lock; 0 where it is gone meanwhile, None where it has not said yet."""
    try:
        with open(path) as file:
            text = file.read()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdecimal() else None


def _lives(process: int) -> bool:
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
