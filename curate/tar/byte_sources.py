"""Random access to a file's bytes: by mmap for a local file, and by ranged reads or a whole copy for an fsspec URL."""

import mmap
import os
import shutil
import stat
import tempfile
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.base.errors import CurateError
from curate.base.process import temporary_folder
from curate.base.wording import one_line


class ByteSource(ABC):
    """Random access to the bytes of one file. Not thread-safe."""

    size: int

    @abstractmethod
    def read(self, offset: int, length: int) -> memoryview:
        """Return `length` bytes from `offset`, or fewer if the file ends before. Raises OSError."""

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:  # noqa: B027 (most sources need not know)
        """Announce the offsets and lengths that will be read."""


class MmapSource(ByteSource):
    """A local file, which is mapped as long as one of its views is used.

    A mapped file must not become shorter, because that kills the process.
    """

    def __init__(self, path: str) -> None:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe, for example, would wait forever
            raise OSError(f"{path}: is not a regular file")
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._view = memoryview(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) if self.size else b"")

    def read(self, offset: int, length: int) -> memoryview:
        """Return a view, without a copy."""
        return self._view[offset : offset + length]


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Raise any error of a file system, such as an HTTP client's error, as OSError."""
    try:
        yield
    except (OSError, MemoryError, ImportError, CurateError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {one_line(error, 300)}") from error


class RangeSource(ByteSource):
    """A file on any fsspec file system, read by ranges through a window, so that one request reads many small members.

    If the gap between two announced reads is at most 1 MiB, they share a request, because reading the gap takes less
    time than another request.
    """

    WINDOW = 1 << 19
    GAP, TOGETHER = 1 << 20, 1 << 23

    def __init__(self, fs: Any, path: str):
        with errors_of(path):
            size = fs.size(path)
        if size is None:
            raise OSError(f"{path}: the server does not state the file's size, so its parts cannot be read")
        self.size = int(size)
        self._fs, self._path = fs, path
        self._start, self._window = 0, memoryview(b"")
        self._expected: list[tuple[int, int]] = []

    def expect(self, spans: Iterable[tuple[int, int]]) -> None:
        self._expected = sorted(spans)

    def read(self, offset: int, length: int) -> memoryview:
        """Return these bytes from the window. If it does not contain all of them, fetch a new window first."""
        length = min(length, self.size - offset)
        if length <= 0:
            return memoryview(b"")
        if offset < self._start or offset + length > self._start + len(self._window):
            self._window = memoryview(b"")  # freed before the next window is read
            together = self._length_together(offset, length) if self._expected else max(length, self.WINDOW)
            self._start, self._window = offset, self._fetch(offset, min(together, self.size - offset))
        return self._window[offset - self._start :][:length]

    def copy(self) -> MmapSource:
        """Return a copy of the whole file. Raises OSError."""
        with temporary_folder() as folder, errors_of(self._path):
            name = os.path.join(folder, "copy")
            self._fs.get_file(self._path, name)
            copied = MmapSource(name)
        if copied.size != self.size:
            problem = f"the store announced {self.size} bytes and sent {copied.size}; the file may have changed"
            raise OSError(f"{self._path}: {problem}")
        return copied

    def _length_together(self, offset: int, least: int) -> int:
        end = offset + least
        for index in range(bisect_left(self._expected, (offset, 0)), len(self._expected)):
            start, length = self._expected[index]
            if start - end > self.GAP or start + length - offset > self.TOGETHER:
                break
            end = max(end, start + length)
        return end - offset

    def _fetch(self, offset: int, length: int) -> memoryview:
        with errors_of(self._path):
            data = self._fs.cat_file(self._path, start=offset, end=offset + length)
        if len(data) == self.size > length:  # the server ignores ranges
            data = data[offset : offset + length]
        if len(data) != length:
            problem = f"the store sent {len(data)} of {length} bytes at {offset}; the file may have changed"
            raise OSError(f"{self._path}: {problem}")
        return memoryview(data)


def open_source(path: str | os.PathLike[str], storage: dict[str, Any] | None = None) -> ByteSource:
    """Return the bytes of a local path (mapped) or of an fsspec URL (ranged reads, with options). Raises OSError."""
    name = os.fspath(path)
    if "://" not in name and "::" not in name:
        return MmapSource(name)
    fs, inner = fsspec.core.url_to_fs(name, **(storage or {}))
    return MmapSource(inner) if isinstance(fs, LocalFileSystem) else RangeSource(fs, inner)


def open_copy(path: str, storage: dict[str, Any] | None = None) -> ByteSource:
    """Return the bytes of a file whose parts are all read, some more than once. Remote files are copied first.

    So a store gets one request, and sends each byte once. The copy is an unnamed file in `TMPDIR`, which is deleted
    when its last view is gone. If there is not enough space on the disk, the file is read by ranges. Raises OSError.
    """
    opened = open_source(path, storage)
    if not isinstance(opened, RangeSource) or opened.size > shutil.disk_usage(tempfile.gettempdir()).free // 2:
        return opened
    return opened.copy()
