"""Pages of a column of Parquet by their own headers: these Arrow decodes, whatever the footer says of them.

Before each page is a struct of Thrift's compact protocol (PageHeader in parquet.thrift, of the format's specification).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
    """Yield the pages of a column chunk that Arrow reads."""
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
