"""How much memory columns of a Parquet file take, before they are read: a few bytes may stand for any number of rows.

A dictionary holds a text of a megabyte once for all rows, and a delta (DELTA_BYTE_ARRAY) holds what differs from the
value before; what the footer says of sizes is of the encoded values, where it is true.

So columns of texts are measured by the headers of their pages, which Arrow decodes: before each page is a struct of
Thrift's compact protocol (PageHeader in parquet.thrift, of the format's specification).
"""

import mmap
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.spec import AbstractBufferedFile

MAX_DECODED = 3 << 29  # bytes of row groups of a pool that are read together
# Columns and what is around them: Arrow ends the process where thousands are nested
_MAX_NODES, _MAX_DEPTH = 10_000, 100
# In Thrift's compact form a footer begins with its version, then the schema: a list of so many, in one byte below 15
_NODES = re.compile(rb"\x15[\x80-\xff]*[\0-\x7f]\x19(?:\xfc([\x80-\xff]*[\0-\x7f])|.)", re.DOTALL)
_VALUE = 4  # bytes that any value takes in memory at least, a null too
_VALUES = dict.fromkeys(("INT64", "INT96", "DOUBLE"), 8)
_LEVELS = 4  # and one in a list besides
_NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE: pages that nobody writes take nothing, however many there are
_BUFFER = 1 << 16  # bytes that are read of a column at a time
_BATCH = 1 << 16  # rows
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DETAILS = {_DATA: (5, 1, 2), _DICTIONARY: (7, 1, 2), _DATA_V2: (8, 1, 4)}  # field, in it those of values and encoding
_IN_DICTIONARY, _DELTA_LENGTHS, _DELTAS = (2, 8), 6, 7
_ENTRY = 16  # bytes of memory that a value of a dictionary or of a page of deltas takes besides
_SMALLEST = 1 << 12  # bytes that a page counts for at least: of a few bytes each, there might be millions
_HEADERS = 1 << 9, 1 << 16, 1 << 24  # bytes that are read for a header, until it is whole; Arrow reads no longer one
_PADDING = 100  # bytes behind a column's pages, where Arrow reads on in files of some old writers


class _Page(NamedTuple):
    kind: int
    start: int  # of its bytes in the file
    stored: int  # bytes there
    size: int  # unpacked
    values: int
    encoding: int
    levels: int = 0  # of these, bytes of levels that are never packed
    is_packed: bool = True


def measure_pages(
    opened: Any, column: pq.ColumnSchema, chunk: pq.ColumnChunkMetaData, width: int, limit: int
) -> tuple[int, int]:
    """Return how many bytes the pages of a column chunk take unpacked, and what texts of its dictionary take at most.

    A value takes `width` bytes at least. After `limit` bytes no more is read. Raises pa.ArrowInvalid where a page is
    damaged.
    """
    from curate.base.packed import longest_text  # numba takes long to load

    size = values = indices = longest = 0
    for number, page in enumerate(_pages(opened, chunk)):
        size += max(page.size, _SMALLEST)
        is_text = page.kind == _DICTIONARY and column.physical_type == "BYTE_ARRAY"
        is_delta = page.kind != _DICTIONARY and page.encoding in (_DELTA_LENGTHS, _DELTAS)
        size += _ENTRY * page.values if page.kind == _DICTIONARY or is_delta else 0
        if page.kind == _DICTIONARY and number:
            raise pa.ArrowInvalid("it has a dictionary behind a page of values")
        if page.kind != _DICTIONARY:
            values += page.values
            indices += page.values if page.encoding in _IN_DICTIONARY else 0
        if max(size, width * values) > limit:
            break
        if is_text:
            longest = longest_text(_unpacked(opened, chunk, page))
        if is_delta:
            size += _prefixes(opened, column, chunk, page)
    return max(size, width * values), longest * indices


def page_span(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Return where the pages of a column chunk begin and end in the file."""
    start, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset or 0
    start = dictionary if 0 < dictionary < start else start
    return start, start + chunk.total_compressed_size + _PADDING


def _pages(opened: Any, chunk: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    (at, end), values = page_span(chunk), 0
    while values < chunk.num_values and at < end:
        header, length = _header(opened, at)
        try:
            kind, size, stored = header[1], header[2], header[3]
            field, count, encoding = _DETAILS.get(kind, (1, 0, 0))  # of an index, say, there are none
            details = header[field] if count else {0: 0}
            page = _Page(kind, at + length, stored, size, details[count], details[encoding])
            if kind == _DATA_V2:
                page = page._replace(levels=details[5] + details[6], is_packed=bool(details.get(7, True)))
        except (KeyError, TypeError):
            raise pa.ArrowInvalid(f"a page's header at byte {at:,} lacks a field") from None
        if min(page[1:7]) < 0 or page.levels > min(size, stored):
            raise pa.ArrowInvalid(f"a page's header at byte {at:,} has a number below 0, or levels that it has not")
        yield page
        values += page.values if kind != _DICTIONARY else 0
        at = page.start + stored


def _header(opened: Any, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a page's header, by their numbers, and how many bytes it has."""
    for length in _HEADERS:
        opened.seek(at)
        try:
            return _struct(opened.read(length), 0)
        except IndexError:  # it ends behind them
            continue
    raise pa.ArrowInvalid(f"a page's header at byte {at:,} does not end")


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct that are int32, bool or structs, and where it ends; texts and int64 are skipped."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at, number, kind = at + 1, number + (head >> 4), head & 15
        if kind not in (1, 2, 5, 6, 8, 12) or head < 16 or number > 99 or depth > 9:
            raise pa.ArrowInvalid(f"a page's header has a field of type {kind}, which is not known")
        if kind == 12:
            fields[number], at = _struct(data, at, depth + 1)
        elif kind <= 2:
            fields[number] = kind == 1
        else:
            value = shift = 0
            while True:
                value, at, shift = value | (data[at] & 127) << shift, at + 1, shift + 7
                if data[at - 1] < 128:
                    break
            if kind == 5:
                fields[number] = value >> 1 ^ -(value & 1)
            elif kind == 8:
                at += value
    return fields, at + 1


def _unpacked(opened: Any, chunk: pq.ColumnChunkMetaData, page: _Page) -> Any:
    """Return the bytes of a page behind the levels that are never packed (uint8). Raises as pyarrow."""
    opened.seek(page.start + page.levels)
    data = opened.read(page.stored - page.levels)
    if page.is_packed and chunk.compression != "UNCOMPRESSED":
        codec: Any = chunk.compression.lower().replace("lz4", "lz4_raw")
        data = pa.decompress(data, page.size - page.levels, codec)
    return np.frombuffer(data, np.uint8)


def _prefixes(opened: Any, column: pq.ColumnSchema, chunk: pq.ColumnChunkMetaData, page: _Page) -> int:
    """Return the bytes that values of a page of deltas take from those before them. Raises as pyarrow."""
    from curate.base.packed import sum_deltas

    data = _unpacked(opened, chunk, page)
    for deepest in (column.max_repetition_level, column.max_definition_level) if page.kind == _DATA else ():
        data = data[4 + int.from_bytes(data[:4].tobytes(), "little") :] if deepest else data
    count, prefixes, end = sum_deltas(data, 0, page.values)
    if page.encoding == _DELTA_LENGTHS:
        prefixes = 0
    elif count >= 0:
        count, _, _ = sum_deltas(data, end, page.values)
    if count < 0:
        raise pa.ArrowInvalid(f"a page of deltas at byte {page.start:,} is damaged, or claims more values than it has")
    return int(prefixes)


class TooLarge(pa.ArrowInvalid):
    """Columns would take more memory than they may."""


class _Unread:
    """A file as pyarrow takes one, of any size, whose bytes are asked for only where all is well before.

    It raises nothing: pyarrow would keep the error for ever, and with it the frames of all who called.
    """

    closed = False
    is_asked = False

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def tell(self) -> int:
        return 1 << 60

    def read(self, length: int) -> bytes:
        self.is_asked = True
        return b""


def read_footer(opened: Any) -> pq.FileMetaData:
    """Return the footer of a file, or a buffer. Raises as pyarrow where it is damaged, or has too many columns."""
    end = opened.seek(0, 2) - 8
    opened.seek(max(0, end))
    tail = opened.read(8)
    opened.seek(max(0, end - int.from_bytes(tail[:4], "little")))
    nodes = _NODES.match(opened.read(32))
    digits = enumerate((nodes and nodes[1]) or b"")
    if tail[4:] == b"PAR1" and (not nodes or sum((byte & 127) << 7 * i for i, byte in digits) > _MAX_NODES):
        raise TooLarge(f"its footer has no schema, or over {_MAX_NODES:,} columns; accepted: at most that")
    footer = pq.read_metadata(opened)
    if any(footer.schema.column(i).path.count(".") > _MAX_DEPTH for i in range(footer.num_columns)):
        raise TooLarge(f"its columns are nested over {_MAX_DEPTH} deep; accepted: at most that")
    return footer


def check_claimed(footer: pq.FileMetaData, limit: int) -> None:
    """Raise TooLarge where by its footer alone one of a file's row groups takes more than `limit` bytes.

    Raises as pyarrow where the footer is damaged.
    """
    for group in range(footer.num_row_groups):
        _check_chunks(footer, group)
        _check(sum(_claimed(footer, group, i) for i in range(footer.num_columns)), limit)


def check_decoded(
    opened: Any, footer: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None, limit: int
) -> pq.ParquetFile:
    """Raise TooLarge where these columns (None: all) of row groups take more than `limit` bytes once they are read.

    `opened` is the file, or a buffer. Returns what they are to be read from, by one thread: of a remote file, a copy in
    memory, so that it is asked for them once. Raises as pyarrow where the file is damaged.
    """
    known, most = 0, Counter[str]()
    schema = [footer.schema.column(i) for i in range(footer.num_columns)]
    wanted = [i for i, column in enumerate(schema) if columns is None or column.path.split(".")[0] in columns]
    for group in groups:
        _check_chunks(footer, group)
        known += sum(_claimed(footer, group, i) for i in wanted)
    _check(known, limit)
    chunks = [(schema[i], footer.row_group(group).column(i)) for group in groups for i in wanted]
    if isinstance(opened, AbstractBufferedFile):
        opened = _copied(opened, [chunk for _, chunk in chunks])
    known = 0
    for column, chunk in chunks:
        size, longest = measure_pages(opened, column, chunk, _width(column), limit - known)
        known += max(size, chunk.total_uncompressed_size)
        _check(known, limit)
        most.update({column.path: longest} if longest else {})
    if known + most.total() > limit:
        _check(known + _decoded(opened, footer, groups, sorted(most), limit - known), limit)
    return pq.ParquetFile(opened, metadata=footer, pre_buffer=False)


def _copied(opened: AbstractBufferedFile, chunks: Sequence[pq.ColumnChunkMetaData]) -> pa.BufferReader:
    """Return a file of which memory holds column chunks alone, each in its place."""
    held = mmap.mmap(-1, opened.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    for start, end in sorted(map(page_span, chunks)):
        opened.seek(start)
        held[start : min(end, opened.size)] = opened.read(end - start)
    return pa.BufferReader(held)


def _check_chunks(footer: pq.FileMetaData, group: int) -> None:
    """Raise as pyarrow where it takes column chunks of a row group for damaged, or encrypted.

    To look at such a one in Python ends the process: what pyarrow raises there, it does not catch.
    """
    unread: Any = _Unread()
    file = pq.ParquetFile(unread, metadata=footer, buffer_size=_BUFFER)
    try:
        next(file.iter_batches(1, row_groups=[group], use_threads=False), None)
    except (pa.ArrowException, OSError):
        if not unread.is_asked:
            raise


def _width(column: pq.ColumnSchema) -> int:
    """Return the bytes that a value takes at least, with the levels of those that are in lists."""
    levels = _LEVELS if column.max_repetition_level else 0
    return levels + max(_VALUES.get(column.physical_type, _VALUE), column.length or 0)


def _claimed(footer: pq.FileMetaData, group: int, i: int) -> int:
    """Return the bytes that a column of a row group takes, as the footer has it."""
    of_group = footer.row_group(group)
    chunk = of_group.column(i)
    values = _width(footer.schema.column(i)) * max(of_group.num_rows, chunk.num_values)
    return max(chunk.total_uncompressed_size, chunk.total_compressed_size, values)


def _decoded(opened: Any, footer: pq.FileMetaData, groups: Sequence[int], paths: list[str], limit: int) -> int:
    """Return the bytes of columns with dictionaries, read a few rows at a time; more than `limit` where they are."""
    total, file = 0, pq.ParquetFile(opened, metadata=footer, read_dictionary=paths, buffer_size=_BUFFER)
    for group in groups:  # in a list or struct, Arrow takes dictionaries of one only
        rows, size = footer.row_group(group).num_rows, footer.row_group(group).total_byte_size
        few = max(1, min(_BATCH, limit // 8 * rows // max(1, size)))
        for batch in file.iter_batches(few, row_groups=[group], columns=paths, use_threads=False):
            total += sum(map(_bytes, batch.columns))
            if total > limit:
                return total
    return total


def _bytes(array: Any) -> int:
    """Return the bytes of an array, each value of a dictionary as often as it is there."""
    if pa.types.is_dictionary(array.type):
        return pc.sum(pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(map(_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        return _bytes(array.keys) + _bytes(array.items)
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return _bytes(array.flatten()) if any(test(array.type) for test in tests) else int(array.nbytes)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"it holds more than {limit:,} bytes, unpacked; accepted: at most that")
