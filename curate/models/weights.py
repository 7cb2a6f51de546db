"""A model's weights on one machine: found, or downloaded, by one process at a time, and hashed once.

On a cluster each core may have a process of its own, and all begin together. What is known of a file is noted in one of
this user's temporary files, which is the lock too.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def alone_with(what: str) -> Iterator[IO[str]]:
    """Yield a file for what is known of something, which no other process or thread of this user has meanwhile.

    Raises OSError where the file cannot be opened, or is another user's.
    """
    name = f"curate-{os.getuid()}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    path = os.path.join(tempfile.gettempdir(), name)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+", encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_uid != os.getuid():
            raise OSError(f"{path}: is another user's")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def find_digest(path: str) -> str:
    """Return the sha256 of a file, hex; read once a machine, until its size, times or place change. Raises OSError."""
    with alone_with(os.path.realpath(path)) as note:
        stat = os.stat(path)
        state = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        noted, _, digest = note.read().partition("\n")
        if noted != state or len(digest) != 64:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            note.seek(0)
            note.truncate()
            note.write(f"{state}\n{digest}")
    return digest
