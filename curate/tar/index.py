"""Index a tar: find the offset of each member's bytes by reading only the headers.

In: a `ByteSource`. Out: a `TarIndex` with one row per member, and the damage to the file.

It reads ustar headers (with prefix), GNU headers (long names, base-256 sizes), PAX headers (path, size; global headers
are skipped), and v7 headers. Links, folders, devices, and unknown types are listed with their type. Only REGULAR
members have data that can be read. The archive ends at the first zero block, or where the file ends after a complete
member. If a second archive follows, it is reported; other bytes are ignored. Headers are not trusted: whatever a header
says, the walk moves forward, uses a fixed amount of memory, and ends in `damage`.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curate.base.numeric.arrays import I64, Mask
from curate.tar.byte_sources import ByteSource
from curate.tar.walk import BLOCK, WalkEnd, checksum_ok, read_header

_MAX_NAMES = 1 << 28  # maximum bytes of all names in a tar, because memory has several copies of them
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
# Other kinds of files, by the bytes with which they begin.
_OTHERS = {
    b"par1": "it is Parquet, which a source of `format: parquet` reads",
    b"<!doctype html": "it is HTML, such as a server's error page",
    b"<html": "it is HTML, such as a server's error page",
    b"<?xml": "it is XML, such as an object store's error message",
    b"pk\3\4": "it is a zip archive",
    b"version https://git-lfs": "it is a pointer of Git LFS; the file itself was not fetched",
}


class Damage(NamedTuple):
    """Damage to a file: a code in schema.FILE_REASONS (nothing was read) or in schema.DAMAGE_REASONS."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The members of one tar, in file order."""

    names: list[str]  # as text, from `decode_name`
    types: npt.NDArray[np.uint8]  # type flags: REGULAR, FOLDER, or the flags of links and other special members
    offsets: I64  # position of the data in the file
    sizes: I64  # number of bytes of data, according to the header
    complete: Mask  # False if the file ends inside the data, which only the last member can have
    damage: Damage | None  # None if the file is intact

    def __len__(self) -> int:
        return len(self.names)


def index_tar(source: ByteSource, members: int | None = None) -> TarIndex:
    """Return the index of a tar up to the first damage, which is in `damage`. Raises OSError.

    With `members`, the index may end after this number of members.
    """
    names: list[str] = []
    rows: list[tuple[int, int, int]] = []
    damage, at, named = None, 0, 0
    try:
        while len(names) < (members or inf):
            header = read_header(source, at)
            at, named = header.next, named + len(header.name)
            names.append(decode_name(header.name))
            rows.append((header.type, header.offset, header.size))
            if at > source.size:
                held, cut = source.size - header.offset, "the padding of {name}, whose data is complete"
                if held < header.size:
                    cut = f"{{name}}: {held} of {header.size} bytes are present"
                raise WalkEnd(at, "truncated_tar", f"the file ends inside {cut}")
            if named > _MAX_NAMES:
                detail = f"the names of its members have more than {_MAX_NAMES:,} bytes, up to byte {{at}}"
                raise WalkEnd(at, "damaged_tar", detail)
    except WalkEnd as end:
        damage = _damage(source, end, names)
    types, offsets, sizes = np.array(rows, np.int64).reshape(-1, 3).T.copy()
    return TarIndex(names, types.astype(np.uint8), offsets, sizes, offsets + sizes <= source.size, damage)


def decode_name(raw: bytes) -> str:
    """Return a name as text. If it is not UTF-8, or contains a NUL, such bytes become %XX, and % becomes %25."""
    try:
        if b"\0" not in raw:
            return raw.decode()
    except UnicodeDecodeError:
        pass
    kept = raw.replace(b"%", b"%25").replace(b"\0", b"%00").decode("utf-8", "surrogateescape")
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in kept)


def _damage(source: ByteSource, end: WalkEnd, names: list[str]) -> Damage | None:
    if source.size == 0:
        return Damage("empty_file", "the file has 0 bytes")
    if not end.reason:
        return _second_archive(source, end.at)
    if end.at == 0 and (source.size < BLOCK or not checksum_ok(bytes(source.read(0, BLOCK)))):
        return _no_tar(source)
    last, name = (f"after {names[-1]}", names[-1]) if names else ("at the start", "")
    return Damage(end.reason, end.detail.format(last=last, name=name, at=end.at))


def _no_tar(source: ByteSource) -> Damage:
    head = bytes(source.read(0, BLOCK))
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return Damage("compressed_tar", f"the file is {name}; unpack it, because curate reads samples by offset")
    if len(head) < BLOCK and (head[257:262] == b"ustar" or not any(head)):
        return Damage("truncated_tar", f"the file ends inside its first header: {len(head)} bytes are present")
    kind = next((f"; {kind}" for magic, kind in _OTHERS.items() if head.lstrip()[:64].lower().startswith(magic)), "")
    return Damage("not_a_tar", f"the file begins with {head[:24]!r}{kind}")


def _second_archive(source: ByteSource, at: int) -> Damage | None:
    """Report a second archive, as in `cat a.tar b.tar`: a header after the zeros (at most 10,240) that end one."""
    for start in range(at, at + 10240 + 1, BLOCK):
        block = bytes(source.read(start, BLOCK))
        if any(block):
            detail = f"another archive follows the end marker, at byte {start}; only the first is read"
            return Damage("damaged_tar", detail) if len(block) == BLOCK and checksum_ok(block) else None
    return None
