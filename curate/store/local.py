"""File operations for a run folder on a local disk: write without buffering, move to a new path, hash, list."""

import errno
import hashlib
import io
import itertools
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Errors from disks that do not support hard links.
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_ATTEMPTS = 10  # attempts to put a file into a folder that another attempt may remove while it publishes
_FULL = 1 << 16  # maximum bytes of an object; then the next line goes to another one
_BETWEEN = 1.0  # seconds between two writes of an object


class Digest(NamedTuple):
    """Bytes and sha256 (64 hex digits) of a file as it was written or read, and its number of rows if it is a table."""

    bytes: int
    sha256: str
    rows: int | None = None

    @property
    def line(self) -> str:
        """The digest as a line of text, which is also used as a file name."""
        return "-".join(str(part) for part in self if part is not None)

    def is_of(self, other: "Digest") -> bool:
        return self[:2] == other[:2]


class HashedFile(io.FileIO):
    """A file that is hashed while it is written sequentially."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "wb")
        self._state, self._bytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        written = super().write(data) or 0
        self._state.update(memoryview(data)[:written])
        self._bytes += written
        return written

    def digest(self, rows: int | None) -> Digest:
        return Digest(self._bytes, self._state.hexdigest(), rows)


def write_at_once(path: str, data: bytes | memoryview, mode: Literal["w", "a", "x"] = "w") -> None:
    """Write a file without buffering; mode `a` appends, `x` creates."""
    with open(path, f"{mode}b", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def in_folder(path: str, put: Callable[[str], None]) -> None:
    """Call a function that puts a file at a path; if the folder is missing, create it first."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            return put(path)
        with suppress(FileNotFoundError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
    put(path)


def remove_folder(path: str) -> None:
    """Remove a folder with its content, if it exists. Others may add or remove files at the same time.

    Raises OSError.
    """
    for _ in range(_ATTEMPTS):
        try:
            return shutil.rmtree(path)
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
    shutil.rmtree(path)


def add_line(path: str, line: str) -> None:
    """Store a line once, in its own file: the first of PATH, PATH.1, PATH.2, … that does not exist."""
    data = f"{line}\n".encode()
    for file in _numbered(path):
        try:
            return write_at_once(file, data, "x")
        except FileExistsError:
            if _read(file) == data:
                return None
    return None


def drop_line(path: str, line: str) -> None:
    """Remove a line stored by `add_line`, and all lines after it, which are no longer needed."""
    kept = itertools.takewhile(os.path.exists, _numbered(path))
    for file in [file for file in kept if _read(file) == f"{line}\n".encode()]:
        os.unlink(file)


def read_lines(path: str) -> list[str]:
    """Return the lines stored by `add_line`, except a line that a killed process did not finish."""
    kept: list[bytes] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        kept.extend(map(_read, _numbered(path)))
    return [line.decode(errors="replace")[:-1] for line in kept if line.endswith(b"\n")]


def _numbered(path: str) -> Iterator[str]:
    yield path
    yield from (f"{path}.{number}" for number in itertools.count(1))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def move_to_new(aside: str, path: str) -> None:
    """Move a file to a new path. Raises FileExistsError.

    A disk without hard links cannot do this atomically. If two processes do it at the same moment, the last one wins.
    """
    try:
        os.link(aside, path)
    except FileExistsError:
        if not os.path.samefile(aside, path):  # NFS may do this, if the response to the first request was lost
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(aside, path)
        return
    os.unlink(aside)


def walk(folder: str, skip: int) -> Iterator[str]:
    """Yield the paths of all files below a local folder, without the first `skip` characters; none if it is missing."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:  # not os.walk, which treats unreadable entries as files
        if entry.is_dir():
            yield from walk(entry.path, skip)
        else:
            yield entry.path[skip:]


@dataclass(eq=False)
class _LogObject:
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: int = field(default_factory=os.getpid)  # a forked process makes its own objects
    data: bytes = b""
    free_at: float = 0.0  # the earliest time of the next write


class StoredLog:
    """A log in an object store, which cannot append. Each additional line rewrites an object.

    One object per line would write fewer bytes, but readers would have to list and read many more objects. Stores
    accept one write per second and object, so a line that comes earlier goes to another object.
    """

    def __init__(self) -> None:
        self._objects, self._lock = list[_LogObject](), threading.Lock()

    def add(self, line: str, put: Callable[[str, bytes], None]) -> None:
        """Add a line to an object; `put` writes the whole object.

        If that raises OSError, the next call writes both lines.
        """
        with self._lock:
            free = (other for other in self._objects if other.free_at <= time.monotonic())
            log_object = next((other for other in free if other.process == os.getpid()), _LogObject())
            self._objects = [other for other in self._objects if other is not log_object]
        log_object.data += line.encode() + b"\n"
        try:
            put(log_object.name, log_object.data)
        except OSError:
            log_object.free_at = 0.0
            with self._lock:
                self._objects.insert(0, log_object)
            raise
        if len(log_object.data) < _FULL:
            log_object.free_at = time.monotonic() + _BETWEEN
            with self._lock:
                self._objects.append(log_object)
