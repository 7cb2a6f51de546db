"""Reads the records of a WARC or WAT file in order, from any position, and reports unreadable spans.

Input: a gzipped file with one member per record, as Common Crawl writes it, or an uncompressed file. Output: records
with their offsets, and `Lost` spans. After damage, the reader searches for the next record. A gzipped file can be read
in pieces: a piece contains the records whose members begin in it.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from curate.base.wording import one_line

_MAGIC = b"\x1f\x8b\x08"
_MEMBER = re.compile(re.escape(_MAGIC))
_RECORD = re.compile(rb"WARC/\d")
_BREAK = re.compile(rb"\r?\n\r?\nWARC/\d")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_BLOCK, _STEP = 1 << 20, 1 << 16  # bytes per read, and per decompression step
_MAX_HEAD = 1 << 16  # bytes in a record's headers
_HEAD = 64  # unpacked bytes that identify a record
MAX_RECORD = 1 << 25  # unpacked bytes; a larger record, such as a bomb, is lost
_TYPES = ("response", "metadata")


class Record(NamedTuple):
    """A record of type response or metadata."""

    offset: int  # of its gzip member, or in an uncompressed file
    is_response: bool  # otherwise metadata, by WARC-Type
    content: bytes
    headers: dict[str, str]  # by lower-case name


@dataclass(frozen=True)
class Lost:
    """A span of the file that has no readable record: the bytes from `start` to just before `stop`."""

    start: int
    stop: int
    error: str

    def __str__(self) -> str:
        where = f"bytes {self.start:,} to {self.stop:,}"
        return f"{where if self.stop > self.start else f'the record at byte {self.start:,}'}: {self.error}"


class Stream:
    """A file whose records are read by offset. Methods raise OSError if it cannot be read."""

    def __init__(self, file: Any, name: str = "") -> None:
        self._file, self.name = file, name
        self._start, self._block = 0, b""
        self.size: int = file.seek(0, 2)  # in bytes
        self.has_members = not _RECORD.match(self.read_at(0, _HEAD))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes at an offset, fewer at the end of the file."""
        if offset < self._start or offset + size > self._start + len(self._block):
            self._file.seek(offset)
            self._start, self._block = offset, self._file.read(max(size, _BLOCK))
        return self._block[offset - self._start : offset - self._start + size]

    def is_member(self, offset: int) -> bool:
        """Return whether a record begins at an offset."""
        try:
            return _RECORD.match(zlib.decompressobj(31).decompress(self.read_at(offset, 512), _HEAD)) is not None
        except zlib.error:
            return False

    def find_next(self, offset: int) -> int | None:
        """Return where the first record begins that begins at `offset` or later, or None."""
        if self.has_members:
            return next(filter(self.is_member, self._search(_MEMBER, offset)), None)
        if offset == 0:
            return 0
        starts = (at + self.read_at(at, 8).index(b"W") for at in self._search(_BREAK, max(0, offset - 4)))
        return next((start for start in starts if start >= offset), None)

    def read_record(self, offset: int) -> tuple[int, dict[str, str], bytes | None]:
        """Return the end of the record at an offset, its headers, and its content, which is None if too large.

        Raises ValueError if it is damaged.
        """
        end, data = self._unpack(offset) if self.has_members else (0, self.read_at(offset, _MAX_HEAD))
        head = _HEAD_END.search(data, 0, _MAX_HEAD)
        if head is None or not _RECORD.match(data):
            raise ValueError("not a WARC record")
        lines = (line.partition(":") for line in re.split(r"\r?\n", data[: head.start()].decode(errors="replace")))
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        length_text = headers.get("content-length", "")
        if not length_text.isdecimal() or len(length_text) > 18:
            raise ValueError(f"the record's Content-Length is {length_text[:50]!r}; accepted: a number of bytes")
        length = int(length_text)
        if self.has_members:
            content, rest = data[head.end() : head.end() + length], data[head.end() + length :]
            if rest.strip(b"\r\n") and length <= MAX_RECORD:
                raise ValueError("a gzip member contains several records; accepted: one record per member")
        else:
            end = offset + head.end() + length
            if end > self.size:
                raise ValueError(f"the record should have {length:,} bytes, but the file ends before that")
            content = self.read_at(offset + head.end(), length) if length <= MAX_RECORD else b""
            rest = self.read_at(end, 8)
            end += len(rest) - len(rest.lstrip(b"\r\n"))
        if length > MAX_RECORD:
            return end, headers, None
        if len(content) < length:
            raise ValueError(f"the record should have {length:,} bytes, but has only {len(content):,}")
        return end, headers, content

    def _unpack(self, offset: int) -> tuple[int, bytes]:
        """Return the end of the gzip member at an offset, and its content, which is cut off slightly above the limit.

        Raises ValueError if it is damaged.
        """
        inflate, at, pieces, size = zlib.decompressobj(31), offset, list[bytes](), 0
        if self.read_at(offset, len(_MAGIC)) != _MAGIC:
            raise ValueError("not a WARC record")
        while not inflate.eof:
            if not (packed := inflate.unconsumed_tail):
                packed = self.read_at(at, _STEP)
                at += len(packed)
            if not packed:
                raise ValueError("the file ends in the middle of the record")
            try:
                piece = inflate.decompress(packed, _BLOCK)
            except zlib.error as error:
                raise ValueError(one_line(error, 200)) from None
            if size <= MAX_RECORD + _MAX_HEAD:
                pieces.append(piece)
                size += len(piece)
        return at - len(inflate.unused_data), b"".join(pieces)

    def _search(self, pattern: re.Pattern[bytes], offset: int) -> Iterator[int]:
        while block := self.read_at(offset, _BLOCK + 16):
            for match in pattern.finditer(block):
                if match.start() < _BLOCK:
                    yield offset + match.start()
            if len(block) <= _BLOCK:
                return
            offset += _BLOCK


def read_records(stream: Stream, start: int) -> Iterator[Record | Lost]:
    """Yield the records that begin at `start` or later, and the lost spans between them.

    Records other than response and metadata are skipped. Raises OSError if the file cannot be read.
    """
    at = stream.find_next(start)
    if start == 0 and at is None:
        yield Lost(0, stream.size, "no WARC record")
    elif start == 0 and at:
        yield Lost(0, at, "not a WARC record")
    while at is not None and at < stream.size:
        begin = at
        try:
            at, headers, content = stream.read_record(begin)
        except ValueError as damage:
            at = stream.find_next(begin + 1)
            yield Lost(begin, stream.size if at is None else at, str(damage))
            continue
        kind = headers.get("warc-type", "").lower()
        if content is None and kind in _TYPES:
            yield Lost(begin, begin, f"it has more than {MAX_RECORD:,} bytes; accepted: at most that")
        elif content is not None and kind in _TYPES:
            yield Record(begin, kind == "response", content, headers)
