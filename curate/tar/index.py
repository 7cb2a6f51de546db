"""The header index of a tar: where each member's bytes lie, found by reading headers only.

In: a `ByteSource`. Out: a `TarIndex`, one row a member, and what was wrong with the file.

Read are ustar (with prefix), GNU (long names, base-256 sizes), PAX (path, size; global headers are skipped) and v7
headers. Links, folders, devices and unknown types are listed under their type; only REGULAR members have bytes to be
read as they lie. The first zero block ends the archive, and so does the file's end on a member's boundary. A second
archive after it is reported, other bytes are ignored. Headers are untrusted: whatever they claim, the walk moves
forward, allocates a fixed amount and ends in `damage`.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curate.base.numeric.arrays import I64, Mask
from curate.tar import walk
from curate.tar.byte_sources import ByteSource
from curate.tar.walk import BLOCK

_ROWS = 4096  # members a call of the walk
_MAX_NAMES, _BAD_NAMES = 1 << 28, walk.BAD_EXTENSION + 1  # bytes of a tar's names, held several times; if more: status
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# What a file may be that is no tar, by how it begins.
_OTHERS = {
    b"par1": "it is Parquet, which a source of `format: parquet` reads",
    b"<!doctype html": "it is HTML, such as a server's error page",
    b"<html": "it is HTML, such as a server's error page",
    b"<?xml": "it is XML, such as an object store's error message",
    b"pk\3\4": "it is a zip archive",
    b"version https://git-lfs": "it is a pointer of Git LFS; the file itself was not fetched",
}


class Damage(NamedTuple):
    """What was wrong with a file: a code of schema.FILE_REASONS (nothing was read) or schema.DAMAGE_REASONS."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The members of one tar, in its order."""

    names: list[str]  # as `decode_name`
    types: npt.NDArray[np.uint8]  # flags: REGULAR, FOLDER, or of links and other special members
    offsets: I64  # where the data begins in the file
    sizes: I64  # bytes of data that the header announces
    complete: Mask  # False for a last member whose data the end of the file cuts
    damage: Damage | None  # None for a sound file

    def __len__(self) -> int:
        return len(self.names)


def index_tar(source: ByteSource, members: int | None = None) -> TarIndex:
    """Return the index of a tar, as far as it can be read; `damage` says what is wrong with it. Raises OSError.

    With `members`, the index may end after so many.
    """
    rows = np.empty((min(_ROWS, members or _ROWS), 7), np.int64)
    tables: list[I64] = []
    names: list[str] = []
    status, at, need, size, named = walk.FULL, 0, BLOCK, source.size, 0
    while status in (walk.FULL, walk.MORE) and len(names) < (members or inf):
        held = source.peek(at, need)
        if len(held) < min(need, size - at):
            raise OSError(f"only {len(held)} of {need} bytes could be read at {at}")
        view = np.frombuffer(held, np.uint8)
        view.flags.writeable = False  # one compiled kernel for all sources
        status, at, need, count = walk.walk(view, at, size, rows)
        lengths = named + np.cumsum(rows[:count, 5:].sum(axis=1))
        if count and (named := int(lengths[-1])) > _MAX_NAMES:
            status, count = _BAD_NAMES, int(np.searchsorted(lengths, _MAX_NAMES)) + 1
        tables.append(rows[:count, :4].copy())
        for start, length, prefix in rows[:count, 4:].tolist():
            name = bytes(held[start : start + length])
            if prefix:
                name = b"%b/%b" % (bytes(held[start + walk.PREFIX :][:prefix]), name)
            names.append(decode_name(name))
    table = np.concatenate(tables)
    damage = None if status in (walk.FULL, walk.MORE) else _damage(source, status, at, names, table)
    types = table[:, 2].astype(np.uint8)
    return TarIndex(names, types, table[:, 0].copy(), table[:, 1].copy(), table[:, 3] == 1, damage)


def compile_kernels() -> None:
    """Compile the walk, unless that was done since the installation: seconds that count for no file."""
    walk.walk(np.frombuffer(bytes(2 * BLOCK), np.uint8), 0, 2 * BLOCK, np.empty((1, 7), np.int64))


def decode_name(raw: bytes) -> str:
    """Return a name as text. Where it is not UTF-8, or holds a NUL, such bytes become %XX, and % becomes %25."""
    try:
        if b"\0" not in raw:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    kept = raw.replace(b"%", b"%25").replace(b"\0", b"%00").decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in kept)


# What is wrong where the walk ended so: `truncated_tar`, and of BAD_CHECKSUM and those after it `damaged_tar`.
_DAMAGE = {
    walk.CUT_BODY: "the file ends inside {name}: {held} of {size} bytes are present",
    walk.CUT_PADDING: "the file ends inside the padding of {name}, whose data is complete",
    walk.CUT_HEADER: "the file ends inside the header {last}: {left} bytes of it are present",
    walk.CUT_EXTENSION: "the file ends inside or right after the extension header {last}, at byte {at}",
    walk.BAD_CHECKSUM: "the header {last}, at byte {at}, has a wrong checksum",
    walk.BAD_SIZE: "the header {last}, at byte {at}, has a size that is not a number or too large",
    walk.BAD_EXTENSION: "the PAX or long-name header {last}, at byte {at}, is malformed, too long or without a member",
    _BAD_NAMES: f"the names of its members have more than {_MAX_NAMES:,} bytes, up to byte {{at}}",
}


def _damage(source: ByteSource, status: int, at: int, names: list[str], table: I64) -> Damage | None:
    left = source.size - at
    if source.size == 0:
        return Damage("empty_file", "the file has 0 bytes")
    if at == 0 and status in (walk.BAD_CHECKSUM, walk.CUT_HEADER):
        return _no_tar(source)
    if status == walk.END:
        return _second_archive(source, at) if left else None
    if status == walk.CUT_HEADER and not any(source.read(at, left)):
        return None  # what is cut is the end marker
    name, offset, size = (names[-1], *table[-1, :2].tolist()) if names else ("", 0, 0)
    fields = {"name": name, "held": source.size - offset, "size": size, "left": left, "at": at}
    detail = _DAMAGE[status].format(**fields, last=f"after {name}" if names else "at the start")
    return Damage("damaged_tar" if status >= walk.BAD_CHECKSUM else "truncated_tar", detail)


def _no_tar(source: ByteSource) -> Damage:
    head = bytes(source.read(0, BLOCK))
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return Damage("compressed_tar", f"the file is {name}; unpack it: members are read by their offsets")
    if len(head) < BLOCK and (head[257:262] == b"ustar" or not any(head)):
        return Damage("truncated_tar", f"the file ends inside its first header: {len(head)} bytes are present")
    kind = next((f"; {kind}" for magic, kind in _OTHERS.items() if head.lstrip()[:64].lower().startswith(magic)), "")
    return Damage("not_a_tar", f"the file begins with {head[:24]!r}{kind}")


def _second_archive(source: ByteSource, at: int) -> Damage | None:
    """Report what `cat a.tar b.tar` loses: a header behind the zeros (10,240 at most) that writers put at the end."""
    tail = np.frombuffer(source.read(at, 10240 + BLOCK), np.uint8)
    blocks = tail[: len(tail) // BLOCK * BLOCK].reshape(-1, BLOCK)
    used = np.flatnonzero(blocks.any(axis=1))
    if len(used) and walk.checksum_ok(blocks[used[0]]):
        where = at + BLOCK * int(used[0])
        return Damage("damaged_tar", f"another archive follows the end marker, at byte {where}; only the first is read")
    return None
