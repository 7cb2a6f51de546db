"""Data between stages: encoded elements, in memory if they are few, otherwise in files that all workers see.

A block is a sequence of elements, followed by their sizes as uint64. Each attempt at a task writes its own file. The
driver uses only the file of the attempt that Spark counted, so late or repeated attempts do not matter. A run's files
are in one folder, named after host and process. The run removes it at its end, or a later run on that host does.
"""

import os
import re
import socket
import uuid
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import fsspec

_BLOCK = 4 << 20  # bytes of an output after which a task starts a new block


@dataclass(frozen=True)
class Held:
    """Encoded elements in memory."""

    elements: Sequence[bytes]

    @property
    def count(self) -> int:
        return len(self.elements)

    @property
    def size(self) -> int:
        return sum(map(len, self.elements))

    def cut(self, first: int, last: int) -> "Held":
        return Held(self.elements[first:last])

    def read(self) -> Iterator[bytes]:
        yield from self.elements


@dataclass(frozen=True)
class Block:
    """Encoded elements in a file: elements `first` to `last` of the block at byte `start`."""

    path: str
    start: int
    n_bytes: int  # in the whole block
    n_elements: int
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first

    @property
    def size(self) -> int:
        """Return their estimated number of bytes, from the block's average."""
        return self.n_bytes * self.count // max(1, self.n_elements)

    def cut(self, first: int, last: int) -> "Block":
        """Return the elements from `first` up to `last`, relative to this part's first element."""
        return replace(self, first=self.first + first, last=self.first + last)

    def read(self) -> Iterator[bytes]:
        files, path = fsspec.core.url_to_fs(self.path)
        at = self.start + self.n_bytes
        sizes = array("Q", files.cat_file(path, at, at + 8 * self.n_elements))
        ends = list(accumulate(sizes[self.first : self.last], initial=self.start + sum(sizes[: self.first])))
        data = files.cat_file(path, ends[0], ends[-1]) if ends[0] < ends[-1] else b""
        for begin, end in pairwise(ends):
            yield data[begin - ends[0] : end - ends[0]]


Part = Held | Block


def spread(parts: Iterable[Part], limit: int) -> list[list[Part]]:
    """Return the elements in order, divided evenly among at most `limit` tasks."""
    parts = list(parts)
    total = sum(part.count for part in parts)
    n = min(limit, total)
    tasks: list[list[Part]] = [[] for _ in range(n)]
    number = done = 0
    for part in parts:
        first = 0
        while first < part.count:
            last = min(part.count, first + (number + 1) * total // n - done)
            tasks[number].append(part.cut(first, last))
            done, first = done + last - first, last
            if done == (number + 1) * total // n:
                number += 1
    return tasks


@dataclass
class Writer:
    """Collects a task's outputs: up to `limit` bytes in memory, and the rest in one file."""

    folder: str
    limit: int
    _waiting: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))  # elements without a file
    _sizes: Counter[str] = field(default_factory=Counter)  # and their bytes
    _parts: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))
    _file: Any = None
    _path: str = ""
    _held: int = 0

    def add(self, output: str, element: bytes) -> None:
        self._waiting[output].append(element)
        self._sizes[output] += len(element)
        self._held += len(element)
        if self._held > self.limit and self._sizes[output] >= _BLOCK:
            self._flush(output)

    def close(self) -> dict[str, list[Part]]:
        """Complete the file, and return the parts of all outputs."""
        for output in list(self._waiting) if self._held > self.limit else ():
            self._flush(output)
        if self._file is not None:
            self._file.close()
        for output, elements in self._waiting.items():
            self._parts[output].append(Held(elements))
        return dict(self._parts)

    def abandon(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
                files, path = fsspec.core.url_to_fs(self._path)
                files.rm_file(path)

    def _flush(self, output: str) -> None:
        elements, size = self._waiting.pop(output), self._sizes.pop(output)
        if self._file is None:
            self._path = f"{self.folder}/{uuid.uuid4().hex}"
            self._file = fsspec.open(self._path, "wb", auto_mkdir=True).open()
        start = self._file.tell()
        self._file.write(b"".join(elements))
        self._file.write(array("Q", map(len, elements)).tobytes())
        self._parts[output].append(Block(self._path, start, size, len(elements), 0, len(elements)))


class Exchange:
    """A run's folder of blocks, and the number of bytes that the driver holds."""

    def __init__(self, parent: str, budget: int) -> None:
        self._parent = parent.rstrip("/")
        self._host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
        self.folder = f"{self._parent}/beam-spark-{self._host}-{os.getpid()}-{uuid.uuid4().hex}"
        self._budget, self._held = budget, 0
        self._uses: Counter[str] = Counter()  # collections per file
        self._sweep()

    def limit(self, tasks: int) -> int:
        """Return how many bytes each of these tasks may return to the driver."""
        return max(0, (self._budget - self._held) // max(1, tasks))

    def keep(self, parts: Iterable[Part]) -> None:
        """Count a collection's bytes in the driver, and its files."""
        self._held += sum(part.size for part in parts if isinstance(part, Held))
        self._uses.update(_paths(parts))

    def drop(self, parts: Iterable[Part]) -> None:
        """Uncount a collection, and remove the files that no other collection uses."""
        self._held -= sum(part.size for part in parts if isinstance(part, Held))
        paths = _paths(parts)
        self._uses.subtract(paths)
        if unused := [path for path in paths if not self._uses[path]]:
            files, _ = fsspec.core.url_to_fs(self.folder)
            with suppress(FileNotFoundError):
                files.rm([fsspec.core.url_to_fs(path)[1] for path in unused])

    def clear(self) -> None:
        """Remove the run's files."""
        _remove(self.folder)

    def _sweep(self) -> None:
        """Remove the files of dead processes on this host."""
        files, path = fsspec.core.url_to_fs(self._parent)
        with suppress(OSError):  # the folder does not exist yet, or cannot be listed
            for folder in files.ls(path, detail=False):
                name = folder.rstrip("/").rpartition("/")[2]
                match = re.fullmatch(rf"beam-spark-{re.escape(self._host)}-(\d+)-[0-9a-f]{{32}}", name)
                if match and not _is_alive(int(match[1])):
                    _remove(f"{self._parent}/{name}")


def _paths(parts: Iterable[Part]) -> set[str]:
    return {part.path for part in parts if isinstance(part, Block)}


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # a PermissionError: another user's process
    return True


def _remove(folder: str) -> None:
    files, path = fsspec.core.url_to_fs(folder)
    with suppress(FileNotFoundError):
        files.rm(path, recursive=True)
