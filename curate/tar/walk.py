"""Parse the headers in a tar: each member's name, type, size, and offset, or the reason why the walk ends.

Whatever a header says, the walk moves forward, and it reads only a limited number of bytes of extension headers.
"""

import re
import zlib
from typing import NamedTuple

from curate.tar.byte_sources import ByteSource

BLOCK = 512
REGULAR, FOLDER = ord("0"), ord("5")
_CONTIGUOUS, _LONG_NAME, _GLOBAL, _PAX = ord("7"), ord("L"), ord("g"), b"xX"
_EXTENSIONS = b"xXgLK"
_NO_DATA = b"123456"  # links, devices, folders: some writers state a size for them, but none writes data

MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header; no system allows paths of more than a few kilobytes
_MAX_CHAIN = 16  # maximum extension headers before one member: writers need three
_CUT_EXTENSION = "the file ends inside or right after the extension header {last}, at byte {at}"
_BAD_EXTENSION = "the PAX or long-name header {last}, at byte {at}, is malformed, too long, or without a member"
_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
_PAX_LENGTH = re.compile(rb"(\d{1,9}) ")


class Header(NamedTuple):
    """A member, from its header and from the extension headers before it."""

    name: bytes
    type: int
    offset: int  # where its data starts in the file
    size: int

    @property
    def next(self) -> int:
        """Where the next header starts."""
        return self.offset + padded(self.size)


class WalkEnd(Exception):
    """There is no member at this position: the archive ends, or it is damaged."""

    def __init__(self, at: int, reason: str = "", detail: str = "") -> None:
        """`reason` is a code in schema.DAMAGE_REASONS, or empty. `detail` is a format with `last` (member) and `at`."""
        super().__init__(detail)
        self.at, self.reason, self.detail = at, reason, detail


def padded(size: int) -> int:
    """Return the number of bytes that data of this size needs in a tar."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def read_header(source: ByteSource, at: int) -> Header:
    """Return the member whose first header, which may be an extension, is at a position. Raises WalkEnd and OSError."""
    name, size, is_extended = None, -1, False
    for chain in range(_MAX_CHAIN + 1):
        block = _read_block(source, at, is_extended)
        length, kind = _number(block[124:136]), block[156]
        if kind not in _EXTENSIONS:
            return _member(block, at, name, length if size < 0 else size)
        if not 0 <= length <= MAX_EXTENSION or chain == _MAX_CHAIN:
            break
        if at + BLOCK + length > source.size:
            raise WalkEnd(at, "truncated_tar", _CUT_EXTENSION)
        body = bytes(source.read(at + BLOCK, length))
        if kind in _PAX:
            try:
                records = _pax_records(body)
            except ValueError:
                break
            name, size = records.get(b"path") or name, int(records.get(b"size") or -1)
        elif kind == _LONG_NAME:
            name = _until_nul(body)
        is_extended = is_extended or kind != _GLOBAL
        at += BLOCK + padded(length)
    raise WalkEnd(at, "damaged_tar", _BAD_EXTENSION)


def _read_block(source: ByteSource, at: int, is_extended: bool) -> bytes:
    """Return the header at a position. Raises WalkEnd, with damage if the file ends after an extension header."""
    if (rest := source.size - at) < BLOCK:
        if is_extended:
            raise WalkEnd(at, "truncated_tar", _CUT_EXTENSION)
        if at and not any(source.read(at, rest)):
            raise WalkEnd(at)  # only the end marker may be incomplete
        raise WalkEnd(at, "truncated_tar", f"the file ends inside the header {{last}}: {rest} bytes of it are present")
    block = bytes(source.read(at, BLOCK))
    if not any(block):
        raise WalkEnd(at, "damaged_tar", _BAD_EXTENSION) if is_extended else WalkEnd(at)
    if not checksum_ok(block):
        raise WalkEnd(at, "damaged_tar", "the header {last}, at byte {at}, has a wrong checksum")
    return block


def _member(block: bytes, at: int, name: bytes | None, size: int) -> Header:
    if size < 0:
        detail = "the header {last}, at byte {at}, has a size that is not a number or too large"
        raise WalkEnd(at, "damaged_tar", detail)
    if name is None:
        name = _until_nul(block[:100])
        if block[257:263] == b"ustar\0" and (prefix := _until_nul(block[345:500])):  # GNU stores times there
            name = prefix + b"/" + name
    kind = block[156]
    if kind == 0 and name.endswith(b"/"):
        kind = FOLDER
    elif kind in (0, _CONTIGUOUS):
        kind = REGULAR
    return Header(name, kind, at + BLOCK, 0 if kind in _NO_DATA else size)


def checksum_ok(block: bytes) -> bool:
    """Return whether the checksum in a header is the sum of its bytes, where the checksum itself counts as spaces."""
    stored, counted = _number(block[148:156]), block[:148] + b" " * 8 + block[156:]
    # The low half of an Adler-32 is 1 plus the sum of the bytes, modulo 65,521: six times as fast as `sum`
    total = sum((zlib.adler32(half) & 0xFFFF) - 1 for half in (counted[:256], counted[256:]))
    # Some old writers added the bytes as signed numbers
    return stored == total or 0 <= stored == total - 256 * sum(byte > 127 for byte in counted)


def _number(field: bytes) -> int:
    """Return a number in a header: octal text, or base-256 after 0x80.

    Return -1 if it is neither, is negative, or over 2**55.
    """
    if field[0] == 0x80:
        number = int.from_bytes(field[1:])
        return number if number < 1 << 55 else -1
    octal = _OCTAL.fullmatch(field)
    return int(octal[1] or b"0", 8) if octal else -1


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    """Return PAX records, `LENGTH KEY=VALUE NEWLINE`, by key. Raises ValueError for malformed records and sizes."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body) and body[at]:
        length = _PAX_LENGTH.match(body, at)
        end = at + int(length[1]) if length else 0
        if not length or not length.end() + 1 < end <= len(body) or body[end - 1 : end] != b"\n":
            raise ValueError("not a PAX record")
        key, _, value = body[length.end() : end - 1].partition(b"=")
        if key == b"size" and value and not (value.isdigit() and len(value) < 17):
            raise ValueError("not a size")
        records[key] = value
        at = end
    return records
