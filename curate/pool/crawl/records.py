"""Records of a WARC or WAT file in order, from any place on, and what of the file cannot be read.

In: a file of gzip members, one a record, as Common Crawl has them; or one that is not packed, or packed as a whole.
Out: records with their offset, and `Lost` spans. FastWARC reads, and ends at what is damaged. Here the next member
after it is searched for, and checked by unpacking its first bytes. FastWARC reads a member short that the file's end
cuts, without a word: the last one is unpacked again to see.

A file of members can be read in pieces: a piece has the records whose members begin in it.
"""

import gzip
import io
import itertools
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from curate.base.wording import one_line

_MAGIC = b"\x1f\x8b\x08"
_MEMBER = re.compile(re.escape(_MAGIC))
_ZSTD = b"\x28\xb5\x2f\xfd"  # which FastWARC unpacks
_RECORD = re.compile(rb"WARC/\d")
_BREAK = re.compile(rb"\r?\n\r?\nWARC/\d")
_BLOCK = 1 << 20
_HEAD = 64  # bytes of a member, unpacked, by which it is a record's
MAX_RECORD = 1 << 25  # bytes, unpacked: of more, as a bomb has, the record is lost
_KEPT = MAX_RECORD + 4 * _BLOCK  # bytes, at least
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


class Record(NamedTuple):
    """A record."""

    offset: int  # of its member, or in what a file holds that is not packed so
    is_response: bool  # else it is one of metadata, by WARC-Type
    content: bytes
    about: Any  # FastWARC's record, for its `headers`


@dataclass(frozen=True)
class Lost:
    """A span of the file of which no record can be read: from `start` to before `stop`, in bytes."""

    start: int
    stop: int
    why: str


class _Unpacked:
    """What a gzip file holds. Its last bytes are kept: to go back a record unpacks nothing again.

    To go back further unpacks it from its beginning, which a file may cost twice: then it counts as damaged.
    """

    def __init__(self, file: Any) -> None:
        self._gzip = gzip.GzipFile(fileobj=file)
        self._kept, self._start = bytearray(), 0
        self._at, self._rewinds = 0, 2
        self.close = self._gzip.close

    def read(self, size: int) -> bytes:
        """Return bytes from the place on; what precedes damage before it is raised."""
        with suppress(*_DAMAGE) if self._at < self._start + len(self._kept) else nullcontext():
            self._fill(self._at + size)
        data = self._kept[self._at - self._start : self._at - self._start + size]
        self._at += len(data)
        return bytes(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, at most to the end. Raises EOFError where it is too far back."""
        if offset < self._start:
            if not self._rewinds:
                raise EOFError("damaged behind records that are too large to go back to")
            self._rewinds -= 1
            self._gzip.seek(0)
            self._kept, self._start = bytearray(), 0
        self._fill(offset)
        self._at = min(offset, self._start + len(self._kept))
        return self._at

    def tell(self) -> int:
        return self._at

    def _fill(self, end: int) -> None:
        while self._start + len(self._kept) < end and (more := self._gzip.read1(_BLOCK)):
            self._kept += more
            if len(self._kept) > 2 * _KEPT:
                self._start += len(self._kept) - _KEPT
                del self._kept[:-_KEPT]


class Stream:
    """A file as FastWARC reads it, which tells an error of reading from one of damage: both are OSError.

    A file that is packed as a whole is unpacked here, so that its end is checked. Offsets are then of what it holds.
    """

    def __init__(self, file: Any, name: str = "") -> None:
        self._file = file
        self.name = name
        self.error: OSError | None = None
        self.damage = ""  # of a file that is packed as a whole
        self.size: int = file.seek(0, 2)  # in bytes, of the file
        self.has_members = self._has_members()
        if not self.has_members and self.read_at(0, 3) == _MAGIC:
            file.seek(0)
            self._file = _Unpacked(file)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)  # type: ignore[no-any-return]
        except _DAMAGE as error:  # of what is packed as a whole
            self.damage = one_line(error, 200)
            return b""
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; where damage is before it, to the end."""
        try:
            return int(self._file.seek(offset, whence))
        except _DAMAGE as error:
            self.damage, self._file = one_line(error, 200), io.BytesIO()
            return offset

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from a place on, fewer at the end of the file."""
        self.seek(offset)
        return self.read(size)

    def _has_members(self) -> bool:
        """Return whether a record's member begins in the first bytes, behind the first one, which is of one record."""
        with suppress(zlib.error):
            if _BREAK.search(zlib.decompressobj(31).decompress(self.read_at(0, _BLOCK), _BLOCK)):
                return False
        begin = itertools.takewhile(lambda at: at < _BLOCK, self._search(_MEMBER, 1))
        return any(map(self.is_member, begin))

    def member_end(self, offset: int) -> int | None:
        """Return where the gzip member at a place ends; None where it is cut or damaged."""
        unpack = zlib.decompressobj(31)
        self.seek(offset)
        at = offset
        try:
            while not unpack.eof:
                block = unpack.unconsumed_tail or self.read(_BLOCK)
                if not block:
                    return None
                at += 0 if unpack.unconsumed_tail else len(block)
                unpack.decompress(block, _BLOCK)
        except zlib.error:
            return None
        return at - len(unpack.unused_data)

    def record_end(self, offset: int, length: int) -> int:
        """Return where a record that was read ends, whose content has some length; `offset` where that is not known."""
        if self.has_members:
            end = self.member_end(offset)
            return offset if end is None else end
        head = self.read_at(offset, _BLOCK).find(b"\r\n\r\n") + 4
        return offset if length < 0 or head < 4 else offset + head + length

    def is_member(self, offset: int) -> bool:
        """Return whether a record's member begins at a place."""
        try:
            return _RECORD.match(zlib.decompressobj(31).decompress(self.read_at(offset, 512), _HEAD)) is not None
        except zlib.error:
            return False

    def find_next(self, offset: int) -> int | None:
        """Return the first place from `offset` on where a record begins; None without one."""
        if self.has_members:
            return next(filter(self.is_member, self._search(_MEMBER, offset)), None)
        if offset == 0:
            return 0
        for at in self._search(_BREAK, max(0, offset - 4)):
            place = at + self.read_at(at, 8).index(b"W")
            if place >= offset:
                return place
        return None

    def _search(self, pattern: re.Pattern[bytes], offset: int) -> Iterator[int]:
        while block := self.read_at(offset, _BLOCK + 16):
            for match in pattern.finditer(block):
                if match.start() < _BLOCK:
                    yield offset + match.start()
            if len(block) <= _BLOCK:
                return
            offset += _BLOCK


def read_records(stream: Stream, start: int) -> Iterator[Record | Lost]:
    """Yield the records from the first that begins at `start` or later, and spans that are lost between them.

    Of types other than response and metadata there is none. Raises OSError where the file cannot be read.
    """
    at = stream.find_next(start)
    if start == 0 and (at is None or not (stream.has_members or stream.read_at(0, 4) in (b"WARC", _ZSTD))):
        yield Lost(0, stream.size, "no record of a WARC file")
        return
    if start == 0 and at:
        yield Lost(0, at, "bytes that are no record")
    while at is not None:
        ends = yield from _read_on(stream, at)
        if ends is None:
            return
        begin, why = ends
        at = stream.find_next(begin + 1)
        yield Lost(begin, at, why) if at is not None else Lost(begin, stream.size, stream.damage or why)


def _read_on(stream: Stream, start: int) -> Generator[Record | Lost, None, tuple[int, str] | None]:
    """Yield records from one on; return where what cannot be read begins, and why, or None at the end of the file."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = (WarcRecordType.response, WarcRecordType.metadata)
    stream.seek(start)
    last, length = start, -1  # where the last record begins, and how long its content is
    try:
        for record in ArchiveIterator(stream, parse_http=False):
            if stream.has_members and length >= 0 and record.stream_pos == last:
                return last, "a member of several records, in a file whose first member is one"
            last, length = record.stream_pos, record.content_length
            if record.record_type not in wanted:  # read over, so that the end of the last one is known
                continue
            content = record.reader.read() if length <= MAX_RECORD else b""
            if length > MAX_RECORD:
                yield Lost(last, last, f"a record of more than {MAX_RECORD:,} bytes")
            elif len(content) < length:
                return last, f"a record of {length:,} bytes, of which the file has {len(content):,}"
            else:
                yield Record(last, record.record_type == WarcRecordType.response, content, record)
    except OSError as error:
        if stream.error:
            raise stream.error from None
        return stream.record_end(last, length), one_line(error, 200)
    if stream.has_members:
        member_end = stream.member_end(last)
        if member_end is None:
            return last, "the end of the file cuts the record"
        if member_end < stream.size:
            return member_end, "bytes that are no record"
    return (stream.record_end(last, length), stream.damage) if stream.damage else None
