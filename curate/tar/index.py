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
from curate.tar.byte_sources import ByteSource
from curate.tar.walk import BLOCK, WalkEnd, checksum_ok, read_header

_MAX_NAMES = 1 << 28  # bytes of a tar's names, which are held several times
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
    """Return a name as text. Where it is not UTF-8, or holds a NUL, such bytes become %XX, and % becomes %25."""
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
            return Damage("compressed_tar", f"the file is {name}; unpack it: members are read by their offsets")
    if len(head) < BLOCK and (head[257:262] == b"ustar" or not any(head)):
        return Damage("truncated_tar", f"the file ends inside its first header: {len(head)} bytes are present")
    kind = next((f"; {kind}" for magic, kind in _OTHERS.items() if head.lstrip()[:64].lower().startswith(magic)), "")
    return Damage("not_a_tar", f"the file begins with {head[:24]!r}{kind}")


def _second_archive(source: ByteSource, at: int) -> Damage | None:
    """Report what `cat a.tar b.tar` loses: a header behind the zeros (10,240 at most) that writers put at the end."""
    for start in range(at, at + 10240 + 1, BLOCK):
        block = bytes(source.read(start, BLOCK))
        if any(block):
            detail = f"another archive follows the end marker, at byte {start}; only the first is read"
            return Damage("damaged_tar", detail) if len(block) == BLOCK and checksum_ok(block) else None
    return None
