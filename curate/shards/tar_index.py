"""The header index of a tar: where each member's bytes lie, found by reading headers only.

In: a `ByteSource` (a local file over mmap, or ranged reads of anything that fsspec opens). Out: a `TarIndex`, one row a
member: names list[str], types uint8, offsets int64, sizes int64, complete bool, and what was wrong with the file.

Read are ustar (with prefix), GNU (long names, base-256 sizes, old sparse), PAX (path, size, sparse; global headers are
skipped) and v7 headers, with signed and unsigned checksums. Links, folders, devices, sparse and unknown types are listed
under their type; only REGULAR members have bytes to be read as they lie. The first zero block ends the archive, and so
does the end of the file on a member's boundary. Bytes after the end are ignored, but a second archive there is reported.
Headers come from strangers: whatever they claim, the walk moves forward, allocates a fixed amount and ends in `damage`.

Trades: the walk is a numba kernel, some 40 times as fast as `tarfile`, for seconds of compilation once on a machine.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem
from numba import njit

BLOCK = 512
REGULAR, FOLDER = ord("0"), ord("5")

_MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header: a path is at most some kilobytes anywhere
_MAX_CHAIN = 16  # extension headers before one member: writers need three
_MAX_SPARSE = 1024  # extra map blocks of one old GNU sparse member
_ROWS = 4096  # members a call of the kernel
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

# What ended a call of the kernel.
_FULL, _MORE, _END, _EOF, _CUT_HEADER, _CUT_BODY, _CUT_PADDING, _BAD_CHECKSUM, _BAD_SIZE, _BAD_EXTENSION = range(10)


# ---------------------------------------------------------------- sources
class ByteSource(Protocol):
    """Random access to the bytes of one file; for one thread at a time."""

    size: int

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """`length` bytes from `offset`; fewer only where the file ends. Raises OSError."""

    def peek(self, offset: int, least: int) -> bytes | memoryview:
        """Like read, and whatever lies at hand behind it: `least` bytes or more."""


class MmapSource:
    """A local file, mapped: reads are views, without a copy. A file that shrinks while it is mapped kills the process."""

    def __init__(self, path: str | os.PathLike[str]):
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ) if self.size else None
        self._view = memoryview(self._map if self._map is not None else b"")

    def read(self, offset: int, length: int) -> memoryview:
        """A view of `length` bytes from `offset`, fewer where the file ends."""
        return self._view[offset : offset + length]

    def peek(self, offset: int, least: int) -> memoryview:
        """A view of all that follows `offset`."""
        return self._view[offset:]

    def close(self) -> None:
        """Unmaps the file, now or when the last view of it is gone."""
        self._view.release()
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                self._map = None


class RangeSource:
    """A file of any fsspec file system, by ranged reads through one window that adapts to the way it is read.

    A read near the end of the window doubles the next one, to 1 MiB, so small members come many to a request; a read far
    from it quarters it, to 4 KiB, so a header walk over large members does not download their bodies.
    """

    SMALLEST, FIRST, LARGEST = 1 << 12, 1 << 16, 1 << 20

    def __init__(self, fs: Any, path: str):
        size = fs.size(path)
        if size is None:
            raise OSError(f"{path}: the server does not tell the file's size, so its parts cannot be read")
        self.size = int(size)
        self._fs, self._path = fs, path
        self._step, self._start, self._window = self.FIRST, 0, memoryview(b"")

    def read(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset`, fewer where the file ends. Raises OSError."""
        return self.peek(offset, length)[:length]

    def peek(self, offset: int, least: int) -> memoryview:
        """`least` bytes or more from `offset`, fewer where the file ends. Raises OSError."""
        least = min(least, self.size - offset)
        if least <= 0:
            return memoryview(b"")
        skip, end = offset - self._start, self._start + len(self._window)
        if skip < 0 or offset + least > end:
            if end:
                near = 0 <= skip and offset - end <= self._step
                self._step = min(self._step * 2, self.LARGEST) if near else max(self._step // 4, self.SMALLEST)
            self._window = memoryview(b"")  # freed before the next one comes
            self._window = self._fetch(offset, min(max(least, self._step), self.size - offset))
            self._start, skip = offset, 0
        return self._window[skip:]

    def close(self) -> None:
        """Lets go of the window; fsspec keeps the connection."""
        self._window = memoryview(b"")

    def _fetch(self, offset: int, length: int) -> memoryview:
        data = self._fs.cat_file(self._path, start=offset, end=offset + length)
        if len(data) == self.size > length:  # a server that ignores ranges
            data = data[offset : offset + length]
        if len(data) != length:
            raise OSError(f"{self._path}: {length} bytes at {offset} were asked for, {len(data)} came; has it changed?")
        return memoryview(data)


@contextmanager
def open_source(path: str | os.PathLike[str], storage: dict[str, Any] | None = None) -> Iterator[MmapSource | RangeSource]:
    """Opens a local path (mapped) or an fsspec URL (ranged reads, `storage` are its options), and closes it after.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    source: MmapSource | RangeSource
    name = os.fspath(path)
    if "://" not in name and "::" not in name:
        source = MmapSource(name)
    else:
        fs, inner = fsspec.core.url_to_fs(name, **(storage or {}))
        source = MmapSource(inner) if isinstance(fs, LocalFileSystem) else RangeSource(fs, inner)
    try:
        yield source
    finally:
        source.close()


# ---------------------------------------------------------------- index
class Damage(NamedTuple):
    """What was wrong with a file: a code of schema.FILE_REASONS (nothing was read) or schema.DAMAGE_REASONS."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The members of one tar, in its order.

    Attributes:
        names: as in the header, bytes that are not UTF-8 (and NUL) as %XX. In such a name % becomes %25 too, so two
            different ones stay different.
        types: uint8, the type flag: REGULAR, FOLDER, or that of a link, a sparse or another special member.
        offsets: int64, where the data begins in the file.
        sizes: int64, bytes of data that the header announces.
        complete: bool, False for a last member whose data the end of the file cuts.
        damage: None for a sound file.
    """

    names: list[str]
    types: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    complete: npt.NDArray[np.bool_]
    damage: Damage | None

    def __len__(self) -> int:
        return len(self.names)


def index_tar(source: ByteSource) -> TarIndex:
    """The index of a tar, as far as it can be read; what is wrong with the file is in `damage`.

    Raises:
        OSError: reading failed.
    """
    rows = np.empty((_ROWS, 5), np.int64)
    text = np.empty(_ROWS * 512 + _MAX_EXTENSION, np.uint8)
    tables: list[npt.NDArray[np.int64]] = []
    names: list[str] = []
    at, need, size = 0, BLOCK, source.size
    while True:
        view = np.frombuffer(source.peek(at, need), np.uint8)
        if len(view) < min(need, size - at):
            raise OSError(f"only {len(view)} bytes could be read at {at} of {size}")
        view.flags.writeable = False  # one kernel for all sources
        status, base, count, extra = at, at, 0, 0
        status, at, count, extra = _walk(view, base, size, rows, text)
        tables.append(rows[:count].copy())
        names += _names(text, rows[:count, 3])
        need = extra if status == _MORE else BLOCK
        if status not in (_FULL, _MORE):
            break
    table = np.concatenate(tables)
    damage = _damage(source, status, extra, names, table)
    return TarIndex(names, table[:, 2].astype(np.uint8), table[:, 0].copy(), table[:, 1].copy(), table[:, 4] == 1, damage)


def _names(text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> list[str]:
    stops = ends.tolist()
    starts = [0, *stops[:-1]]
    raw = text[: stops[-1]].tobytes() if stops else b""
    if raw.isascii() and b"\0" not in raw:
        whole = raw.decode("ascii")
        return [whole[a:b] for a, b in zip(starts, stops, strict=True)]
    return [decode_name(raw[a:b]) for a, b in zip(starts, stops, strict=True)]


def decode_name(raw: bytes) -> str:
    """A member's name as text: UTF-8; else, or with a NUL in it, each byte that cannot stay becomes %XX, and % is %25."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = None
    if name is not None and "\0" not in name:
        return name
    kept = raw.replace(b"%", b"%25").replace(b"\0", b"%00").decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in kept)


def _damage(source: ByteSource, status: int, at: int, names: list[str], table: npt.NDArray[np.int64]) -> Damage | None:
    last = f"after {names[-1]}" if names else "at the start"
    left = source.size - at
    if source.size == 0:
        return Damage("empty_file", "0 bytes")
    if at == 0 and status in (_BAD_CHECKSUM, _CUT_HEADER):
        return _no_tar(source)
    if status == _END:
        return _second_archive(source, at)
    if status == _CUT_BODY:
        offset, size = (int(v) for v in table[-1, :2])
        return Damage("truncated_tar", f"the file ends inside {names[-1]}: {source.size - offset} of {size} bytes are there")
    if status == _CUT_PADDING:
        return Damage("truncated_tar", f"the file ends inside the padding of {names[-1]}, whose data is whole")
    if status == _CUT_HEADER:
        if not any(source.read(at, left)):
            return None  # the end marker is cut, which takes nothing away
        return Damage("truncated_tar", f"the file ends inside the header {last}: {max(left, 0)} bytes of it are there")
    if status == _EOF:
        return None
    what = {_BAD_CHECKSUM: "has a wrong checksum", _BAD_SIZE: "has a size that is no number"}.get(
        status, "is a PAX, long-name or sparse header that makes no sense, is too long or has no member"
    )
    return Damage("damaged_tar", f"the header {last}, at byte {at}, {what}")


def _no_tar(source: ByteSource) -> Damage:
    head = bytes(source.read(0, BLOCK))
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return Damage("compressed_tar", f"the file is {name}; unpack it: members are read by their offsets")
    if len(head) < BLOCK and (head[257:262] == b"ustar" or not any(head)):
        return Damage("truncated_tar", f"the file ends inside its first header: {len(head)} bytes are there")
    return Damage("not_a_tar", f"the file begins with {head[:24]!r}")


def _second_archive(source: ByteSource, at: int) -> Damage | None:
    """Reports what `cat a.tar b.tar` would lose: a header within the padding (10,240 bytes) that writers put at the end."""
    tail = np.frombuffer(source.read(at, 10240 + BLOCK), np.uint8)
    blocks = tail[: len(tail) // BLOCK * BLOCK].reshape(-1, BLOCK)
    used = np.flatnonzero(blocks.any(axis=1))
    if len(used) and _checksum_ok(blocks[used[0]], int(blocks[used[0]].sum())):
        where = at + BLOCK * int(used[0])
        return Damage("damaged_tar", f"another archive follows the end marker, at byte {where}; only the first is read")
    return None


# ---------------------------------------------------------------- kernel
@njit(nogil=True, cache=True)
def _number(field: Any) -> int:
    """A header's number: octal text, or base-256 behind 0x80; -1 where it is neither, negative or beyond 2**55."""
    value = 0
    if field[0] >= 0x80:
        if field[0] != 0x80:
            return -1
        for digit in field[1:]:
            if value >= 1 << 47:
                return -1
            value = value * 256 + np.int64(digit)
        return value
    i, end = 0, len(field)
    while i < end and field[i] == 32:
        i += 1
    while i < end and 48 <= field[i] <= 55:
        value = value * 8 + np.int64(field[i]) - 48
        i += 1
    while i < end and field[i] == 32:
        i += 1
    return value if i == end or field[i] == 0 else -1


@njit(nogil=True, cache=True)
def _sum(block: Any) -> int:
    total = 0
    for i in range(BLOCK):
        total += np.int64(block[i])
    return total


@njit(nogil=True, cache=True)
def _checksum_ok(block: Any, total: int) -> bool:
    """Whether the stored checksum is that of the header, whose bytes add up to `total`, by either convention."""
    stored = _number(block[148:156])
    for i in range(148, 156):
        total += 32 - np.int64(block[i])
    if stored == total:
        return True
    for i in range(BLOCK):  # old writers added signed bytes
        if block[i] >= 128 and not 148 <= i < 156:
            total -= 256
    return stored == total


@njit(nogil=True, cache=True)
def _until_nul(field: Any) -> int:
    for i in range(len(field)):
        if field[i] == 0:
            return i
    return len(field)


@njit(nogil=True, cache=True)
def _key_is(record: Any, word: Any) -> bool:
    if len(record) < len(word):
        return False
    for i in range(len(word)):
        if record[i] != word[i]:
            return False
    return True


@njit(nogil=True, cache=True)
def _decimal(digits: Any) -> int:
    """A decimal number below 2**55, else -1."""
    value = 0
    for digit in digits:
        if not 48 <= digit <= 57 or value >= 1 << 51:
            return -1
        value = value * 10 + np.int64(digit) - 48
    return value if len(digits) else -1


_PATH, _SIZE = np.frombuffer(b"path=", np.uint8), np.frombuffer(b"size=", np.uint8)
_SPARSE, _SPARSE_NAME = np.frombuffer(b"GNU.sparse.", np.uint8), np.frombuffer(b"GNU.sparse.name=", np.uint8)


@njit(nogil=True, cache=True)
def _pax(body: Any) -> tuple[bool, int, int, int, bool]:
    """Reads PAX records, `LENGTH KEY=VALUE NEWLINE`: sound, start and length of the path (-1: none), size, sparse."""
    start, length, size, sparse, named, i = -1, 0, -1, False, False, 0
    while i < len(body) and body[i] != 0:
        space = i
        while space < len(body) and space - i < 9 and body[space] != 32:
            space += 1
        end = i + _decimal(body[i:space])
        if end > len(body) or end < space + 3 or body[end - 1] != 10:
            return False, -1, 0, -1, False
        record = body[space + 1 : end - 1]
        if _key_is(record, _SPARSE_NAME):
            start, length, sparse, named = space + 17, len(record) - 16, True, True
        elif _key_is(record, _SPARSE):
            sparse = True
        elif _key_is(record, _PATH) and len(record) > 5 and not named:
            start, length = space + 6, len(record) - 5
        elif _key_is(record, _SIZE) and len(record) > 5:
            size = _decimal(record[5:])
            if size < 0:
                return False, -1, 0, -1, False
        i = end
    return True, start, length, size, sparse


@njit(nogil=True, cache=True)
def _put(text: Any, used: int, piece: Any) -> int:
    for i in range(len(piece)):
        text[used + i] = piece[i]
    return used + len(piece)


@njit(nogil=True, cache=True)
def _put_header_name(text: Any, used: int, block: Any) -> int:
    """The name in a header: the prefix counts in POSIX ustar only, GNU keeps times there."""
    posix = block[257] == 117 and block[261] == 114 and block[262] == 0
    if posix and block[345] != 0:
        prefix = block[345:500]
        used = _put(text, used, prefix[: _until_nul(prefix)])
        text[used] = 47
        used += 1
    name = block[:100]
    return _put(text, used, name[: _until_nul(name)])
