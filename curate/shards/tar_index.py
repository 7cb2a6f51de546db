"""The header index of a tar: where each member's bytes lie, found by reading headers only.

In: a `ByteSource` (a local file over mmap, or ranged reads of anything that fsspec opens). Out: a `TarIndex`, one row a
member: names list[str], types uint8, offsets int64, sizes int64, complete bool, and what was wrong with the file.

Read are ustar (with prefix), GNU (long names, base-256 sizes, old sparse), PAX (path, size, sparse; global headers are
skipped) and v7 headers, with signed and unsigned checksums. Links, folders, devices, sparse and unknown types are
listed under their type; only REGULAR members have bytes to be read as they lie. The first zero block ends the archive,
and so does the end of the file on a member's boundary. Bytes after the end are ignored, but a second archive there is
reported. Headers come from strangers: whatever they claim, the walk moves forward, allocates a fixed amount and ends
in `damage`.

Trades: the walk is a numba kernel, 25 times as fast as `tarfile`, for seconds of compilation once on a machine.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import fsspec
import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem
from numba import njit

BLOCK = 512
REGULAR, FOLDER = ord("0"), ord("5")
_CONTIGUOUS, _GNU_SPARSE, _LONG_NAME, _GLOBAL, _SLASH = ord("7"), ord("S"), ord("L"), ord("g"), ord("/")
_PAX = (ord("x"), ord("X"))
_EXTENSIONS = (*_PAX, _GLOBAL, _LONG_NAME, ord("K"))

_MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header: a path is at most some kilobytes anywhere
_MAX_CHAIN = 16  # extension headers before one member: writers need three
_MAX_SPARSE = 1024  # extra map blocks of one old GNU sparse member
_ROWS = 4096  # members a call of the kernel
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

# What ended a call of the kernel.
_FULL, _MORE, _END, _CUT_HEADER, _CUT_EXTENSION, _CUT_BODY, _CUT_PADDING = range(7)
_BAD_CHECKSUM, _BAD_SIZE, _BAD_EXTENSION = range(7, 10)


# ---------------------------------------------------------------- sources
class ByteSource(Protocol):
    """Random access to the bytes of one file; for one thread at a time."""

    size: int

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """`length` bytes from `offset`; fewer only where the file ends. Raises OSError."""

    def peek(self, offset: int, least: int) -> bytes | memoryview:
        """Like read, and whatever lies at hand behind it: `least` bytes or more."""


class MmapSource:
    """A local file, mapped: reads are views, without a copy. A mapped file must not shrink: that kills the process."""

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

    A read near the end of the window doubles the next one, to 1 MiB, so small members come many to a request; a read
    far from it quarters it, to 4 KiB, so a header walk over large members does not download their bodies.
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
                near = skip >= 0 and offset - end <= self._step
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
def open_source(
    path: str | os.PathLike[str], storage: dict[str, Any] | None = None
) -> Iterator[MmapSource | RangeSource]:
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
    text = np.empty(_ROWS * BLOCK + _MAX_EXTENSION, np.uint8)
    tables: list[npt.NDArray[np.int64]] = []
    names: list[str] = []
    status, at, need, size = _FULL, 0, BLOCK, source.size
    while status in (_FULL, _MORE):
        view = np.frombuffer(source.peek(at, need), np.uint8)
        if len(view) < min(need, size - at):
            raise OSError(f"only {len(view)} of {need} bytes could be read at {at}")
        view.flags.writeable = False  # one compiled kernel for all sources
        status, at, need, count = _walk(view, at, size, rows, text)
        tables.append(rows[:count].copy())
        names += _names(text, rows[:count, 3].tolist())
    table = np.concatenate(tables)
    offsets, sizes, types = table[:, 0].copy(), table[:, 1].copy(), table[:, 2].astype(np.uint8)
    index = TarIndex(names, types, offsets, sizes, table[:, 4] == 1, None)
    return replace(index, damage=_damage(source, status, at, index))


def _names(text: npt.NDArray[np.uint8], stops: list[int]) -> list[str]:
    spans = list(zip([0, *stops], stops, strict=False))
    raw = text[: stops[-1]].tobytes() if stops else b""
    if raw.isascii() and b"\0" not in raw:
        whole = raw.decode("ascii")
        return [whole[a:b] for a, b in spans]
    return [decode_name(raw[a:b]) for a, b in spans]


def decode_name(raw: bytes) -> str:
    """A name as text: UTF-8; where it is not, or holds a NUL, bytes that cannot stay become %XX, and % becomes %25."""
    try:
        if b"\0" not in raw:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    kept = raw.replace(b"%", b"%25").replace(b"\0", b"%00").decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in kept)


_DAMAGE = {
    _CUT_BODY: ("truncated_tar", "the file ends inside {name}: {there} of {size} bytes are there"),
    _CUT_PADDING: ("truncated_tar", "the file ends inside the padding of {name}, whose data is whole"),
    _CUT_HEADER: ("truncated_tar", "the file ends inside the header {last}: {left} bytes of it are there"),
    _CUT_EXTENSION: ("truncated_tar", "the file ends inside or right behind the extension header {last}, at byte {at}"),
    _BAD_CHECKSUM: ("damaged_tar", "the header {last}, at byte {at}, has a wrong checksum"),
    _BAD_SIZE: ("damaged_tar", "the header {last}, at byte {at}, has a size that is no number or too large"),
    _BAD_EXTENSION: (
        "damaged_tar",
        "the PAX, long-name or sparse header {last}, at byte {at}, is malformed, too long or without a member",
    ),
}


def _damage(source: ByteSource, status: int, at: int, index: TarIndex) -> Damage | None:
    left = source.size - at
    if source.size == 0:
        return Damage("empty_file", "the file has 0 bytes")
    if at == 0 and status in (_BAD_CHECKSUM, _CUT_HEADER):
        return _no_tar(source)
    if status == _END:
        return _second_archive(source, at) if left else None
    if status == _CUT_HEADER and not any(source.read(at, left)):
        return None  # what is cut is the end marker
    reason, detail = _DAMAGE[status]
    name, offset, size = "", 0, 0
    if len(index):
        name, offset, size = index.names[-1], int(index.offsets[-1]), int(index.sizes[-1])
    last = f"after {name}" if len(index) else "at the start"
    fields = {"name": name, "there": source.size - offset, "size": size, "last": last, "left": left, "at": at}
    return Damage(reason, detail.format(**fields))


def _no_tar(source: ByteSource) -> Damage:
    head = bytes(source.read(0, BLOCK))
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return Damage("compressed_tar", f"the file is {name}; unpack it: members are read by their offsets")
    if len(head) < BLOCK and (head[257:262] == b"ustar" or not any(head)):
        return Damage("truncated_tar", f"the file ends inside its first header: {len(head)} bytes are there")
    return Damage("not_a_tar", f"the file begins with {head[:24]!r}")


def _second_archive(source: ByteSource, at: int) -> Damage | None:
    """Reports what `cat a.tar b.tar` loses: a header behind the zeros (10,240 at most) that writers put at the end."""
    tail = np.frombuffer(source.read(at, 10240 + BLOCK), np.uint8)
    blocks = tail[: len(tail) // BLOCK * BLOCK].reshape(-1, BLOCK)
    used = np.flatnonzero(blocks.any(axis=1))
    if len(used) and _checksum_ok(blocks[used[0]], int(blocks[used[0]].sum())):
        where = at + BLOCK * int(used[0])
        return Damage("damaged_tar", f"another archive follows the end marker, at byte {where}; only the first is read")
    return None


# ---------------------------------------------------------------- kernel
@njit(nogil=True, cache=True)
def _number(field: Any) -> Any:
    """A header's number: octal text, or base-256 behind 0x80; -1 where it is neither, negative or beyond 2**55."""
    value: Any = 0
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
def _sum(block: Any) -> Any:
    total: Any = 0
    for i in range(BLOCK):
        total += np.int64(block[i])
    return total


@njit(nogil=True, cache=True)
def _checksum_ok(block: Any, total: Any) -> bool:
    """Whether the stored checksum is that of the header, whose bytes add up to `total`, by either convention."""
    stored = _number(block[148:156])
    for i in range(148, 156):
        total += 32 - np.int64(block[i])
    if stored == total:
        return True
    for i in range(BLOCK):  # old writers added signed bytes
        if block[i] >= 128 and not 148 <= i < 156:
            total -= 256
    return bool(stored == total)


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
    for i in range(len(word)):  # noqa: SIM110 (a generator would not compile)
        if record[i] != word[i]:
            return False
    return True


@njit(nogil=True, cache=True)
def _decimal(digits: Any) -> Any:
    """A decimal number below 2**55, else -1."""
    value: Any = 0
    for digit in digits:
        if not 48 <= digit <= 57 or value >= 1 << 51:
            return -1
        value = value * 10 + np.int64(digit) - 48
    return value if len(digits) else -1


_PATH, _SIZE = np.frombuffer(b"path=", np.uint8), np.frombuffer(b"size=", np.uint8)
_SPARSE, _SPARSE_NAME = np.frombuffer(b"GNU.sparse.", np.uint8), np.frombuffer(b"GNU.sparse.name=", np.uint8)


@njit(nogil=True, cache=True)
def _pax_records(body: Any) -> tuple[bool, int, int, int, bool]:
    """Reads PAX records, `LENGTH KEY=VALUE NEWLINE`: sound, start and length of the path (-1: none), size, sparse."""
    start, length, size, sparse, named, i = -1, 0, -1, False, False, 0
    while i < len(body) and body[i] != 0:
        space = i
        while space < len(body) and space - i < 9 and body[space] != 32:
            space += 1
        if space == len(body) or body[space] != 32:
            return False, -1, 0, -1, False
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
def _put(text: Any, used: int, piece: Any) -> Any:
    for i in range(len(piece)):
        text[used + i] = piece[i]
    return used + len(piece)


@njit(nogil=True, cache=True)
def _put_header_name(text: Any, used: int, block: Any) -> Any:
    """The name in a header: the prefix counts in POSIX ustar only, GNU keeps times there."""
    posix = block[257] == 117 and block[261] == 114 and block[262] == 0
    if posix and block[345] != 0:
        prefix = block[345:500]
        used = _put(text, used, prefix[: _until_nul(prefix)])
        text[used] = _SLASH
        used += 1
    name = block[:100]
    return _put(text, used, name[: _until_nul(name)])


@njit(nogil=True, cache=True)
def _next_header(view: Any, base: int, at: int, size: int) -> tuple[int, int, int, int, int, bool]:
    """Passes the extension headers from `at` on, to the header that they describe.

    Returns:
        status (_FULL: found) and its position (_MORE: the position that the view must reach), and from the extensions:
        start and length of the name in `view` (-1: none), size (-1: none), sparse.
    """
    name, length, long_size, sparse, pending, status = -1, 0, -1, False, False, _BAD_EXTENSION
    for chain in range(_MAX_CHAIN + 1):
        head = at - base
        if size - at < BLOCK:
            status = _CUT_EXTENSION if pending else (_END if size == at else _CUT_HEADER)
            break
        if head + BLOCK > len(view):
            status, at = _MORE, at + BLOCK
            break
        block = view[head : head + BLOCK]
        total = _sum(block)
        if total == 0 or not _checksum_ok(block, total):
            status = _BAD_CHECKSUM if total else (_BAD_EXTENSION if pending else _END)
            break
        kind = block[156]
        if kind not in _EXTENSIONS:
            status = _FULL
            break
        body, start = _number(block[124:136]), head + BLOCK
        if body < 0 or body > _MAX_EXTENSION or chain == _MAX_CHAIN:
            break
        if at + BLOCK + body > size:
            status = _CUT_EXTENSION
            break
        if start + body > len(view):
            status, at = _MORE, at + BLOCK + body
            break
        if kind in _PAX:
            sound, path, count, long_size, sparse = _pax_records(view[start : start + body])
            if not sound:
                break
            if path >= 0:
                name, length = start + path, count
        elif kind == _LONG_NAME:
            name, length = start, _until_nul(view[start : start + body])
        pending = pending or kind != _GLOBAL
        at += BLOCK + (body + BLOCK - 1) // BLOCK * BLOCK
    return status, at, name, length, long_size, sparse


@njit(nogil=True, cache=True)
def _sparse_data(view: Any, base: int, at: int, size: int) -> tuple[int, int]:
    """Where the data of the old GNU sparse member at `at` begins: behind the extra blocks of its map."""
    flag = at - base + 482
    for _ in range(_MAX_SPARSE):
        at += BLOCK
        if view[flag] == 0:
            return _FULL, at
        if at + BLOCK > size:
            return _CUT_EXTENSION, at
        if at + BLOCK - base > len(view):
            return _MORE, at + BLOCK
        flag = at - base + 504
    return _BAD_EXTENSION, at


@njit(nogil=True, cache=True)
def _type(flag: Any, slash: bool) -> Any:
    """The type that a flag means: 0 is v7's file, or its folder where the name ends in a slash."""
    if flag == 0 and slash:
        return FOLDER
    return REGULAR if flag in (0, _CONTIGUOUS) else flag


@njit(nogil=True, cache=True)
def _walk(view: Any, base: int, size: int, rows: Any, text: Any) -> tuple[int, int, int, int]:
    """Indexes the members whose headers lie in `view`, the bytes from `base` (a header's position) of a file of `size`.

    Writes rows of data offset, size, type, end of the name in `text`, complete.

    Returns:
        What ended the walk, where (_FULL and _MORE: where to go on), the bytes needed there, and the rows written.
    """
    at, count, used = base, 0, 0
    while count < len(rows) and used + _MAX_EXTENSION + BLOCK <= len(text):
        status, head, name, length, body, sparse = _next_header(view, base, at, size)
        kind: Any = 0
        data = head
        if status == _FULL:
            kind, data = np.int64(view[head - base + 156]), head + BLOCK
            if kind == _GNU_SPARSE:
                status, data = _sparse_data(view, base, head, size)
        if status == _MORE:
            return _MORE, at, data - at, count
        if status != _FULL:
            return status, head, 0, count
        block = view[head - base : head - base + BLOCK]
        if body < 0:
            body = _number(block[124:136])
        if body < 0:
            return _BAD_SIZE, head, 0, count
        before = used
        used = _put(text, used, view[name : name + length]) if name >= 0 else _put_header_name(text, used, block)
        kind = _GNU_SPARSE if sparse else _type(kind, used > before and text[used - 1] == _SLASH)
        if ord("1") <= kind <= ord("6"):
            body = 0  # links, devices, folders: some writers give a size, none gives data
        complete = body <= size - data
        rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3], rows[count, 4] = (
            data,
            body,
            kind,
            used,
            complete,
        )
        count += 1
        if not complete:
            return _CUT_BODY, head, 0, count
        at = data + (body + BLOCK - 1) // BLOCK * BLOCK
        if at > size:
            return _CUT_PADDING, head, 0, count
    return _FULL, at, BLOCK, count
