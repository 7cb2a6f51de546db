"""Computes the memory that columns of a Parquet file need, before they are read: a few bytes may expand to any size.

A dictionary stores a long text once for all rows, and a delta (DELTA_BYTE_ARRAY) stores the difference from the
previous value. The footer has only encoded sizes. So text columns in these encodings are first decoded as dictionaries,
where each text appears once, and the rows that use each text are counted.
"""

import mmap
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.spec import AbstractBufferedFile

MAX_DECODED = 3 << 29  # maximum bytes of a pool's row groups that are read together
# Columns and their parents: Arrow crashes the process if thousands are nested
_MAX_NODES, _MAX_DEPTH = 10_000, 100
# In Thrift's compact protocol, a footer starts with its version and a list, the schema; lengths below 15 take one byte
_NODES = re.compile(rb"\x15[\x80-\xff]*[\0-\x7f]\x19(?:\xfc([\x80-\xff]*[\0-\x7f])|.)", re.DOTALL)
_VALUE = 4  # minimum bytes of a value in memory, even of a null
_VALUES = dict.fromkeys(("INT64", "INT96", "DOUBLE"), 8)
_LEVELS = 4  # additional bytes of a value in a list
_NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE: pages take no memory until they are written
_BUFFER = 1 << 16  # bytes of a column that are read at a time
_BATCH = 1 << 16  # rows
_DELTAS = "DELTA_BYTE_ARRAY"
_PADDING = 100  # Arrow reads this many bytes past a column's pages in files from some old writers


class TooLarge(pa.ArrowInvalid):
    """The columns need more memory than the limit."""


class _Unread:
    """A file object with a given size for pyarrow, which should read no bytes from it.

    A read raises no error, because pyarrow would keep the error, and all frames of its traceback, forever.
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
    """Return the footer of a file or buffer.

    Raises pyarrow's errors if it is damaged, and TooLarge for too many columns.
    """
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
    """Raise TooLarge if the footer alone shows that a row group of the file needs more than `limit` bytes."""
    for group in range(footer.num_row_groups):
        _check(_claimed(footer, [group], range(footer.num_columns)), limit)


def check_decoded(
    opened: Any, footer: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None, limit: int
) -> pq.ParquetFile:
    """Raise TooLarge if these columns (None: all) of row groups need more than `limit` bytes when they are read.

    `opened` is the file or a buffer. Returns the object from which to read them, in one thread: for a remote file, this
    is a copy in memory, so that the bytes are requested only once. Raises pyarrow's errors if the file is damaged.
    """
    schema = [footer.schema.column(i) for i in range(footer.num_columns)]
    wanted = [i for i, column in enumerate(schema) if columns is None or column.path.split(".")[0] in columns]
    claimed = _claimed(footer, groups, wanted)
    _check(claimed, limit)
    if isinstance(opened, AbstractBufferedFile):
        opened = _copied(opened, [footer.row_group(group).column(i) for group in groups for i in wanted])
    texts = [_Texts(opened, footer, group, wanted) for group in groups]
    bounds = [of_group.bound() for of_group in texts]
    if None in bounds or claimed + sum(filter(None, bounds)) > limit:
        for of_group in texts:
            claimed += of_group.count(limit - claimed)
            _check(claimed, limit)
    return pq.ParquetFile(opened, metadata=footer, pre_buffer=False)


def _page_span(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Return the start and end of a column chunk's pages in the file."""
    start, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset or 0
    start = dictionary if 0 < dictionary < start else start
    return start, start + chunk.total_compressed_size + _PADDING


def _copied(opened: AbstractBufferedFile, chunks: Sequence[pq.ColumnChunkMetaData]) -> pa.BufferReader:
    """Return an in-memory file that has only the column chunks, at their original offsets."""
    held = mmap.mmap(-1, opened.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    for start, end in sorted(map(_page_span, chunks)):
        opened.seek(start)
        held[start : min(end, opened.size)] = opened.read(end - start)
    return pa.BufferReader(held)


def _check_chunks(footer: pq.FileMetaData, group: int) -> None:
    """Raise pyarrow's errors if column chunks in a row group are damaged or encrypted.

    If Python code accessed such a chunk, the process would crash, because pyarrow does not catch the C++ exception
    there.
    """
    unread: Any = _Unread()
    file = pq.ParquetFile(unread, metadata=footer, buffer_size=_BUFFER)
    try:
        next(file.iter_batches(1, row_groups=[group], use_threads=False), None)
    except (pa.ArrowException, OSError):
        if not unread.is_asked:
            raise


def _width(column: pq.ColumnSchema) -> int:
    """Return the minimum number of bytes that a value needs, including its levels if it is in lists."""
    levels = _LEVELS if column.max_repetition_level else 0
    return levels + max(_VALUES.get(column.physical_type, _VALUE), column.length or 0)


def _claimed(footer: pq.FileMetaData, groups: Iterable[int], columns: Sequence[int]) -> int:
    """Return the number of bytes that the footer gives for columns of row groups. Raises as `_check_chunks`."""
    size = 0
    for group in groups:
        _check_chunks(footer, group)
        of_group = footer.row_group(group)
        for i in columns:
            chunk = of_group.column(i)
            values = _width(footer.schema.column(i)) * max(of_group.num_rows, chunk.num_values)
            size += max(chunk.total_uncompressed_size, chunk.total_compressed_size, values)
    return size


class _Texts:
    """Text columns in a row group with dictionary or delta encoding."""

    def __init__(self, opened: Any, footer: pq.FileMetaData, group: int, columns: Sequence[int]) -> None:
        of_group = footer.row_group(group)
        self.group, self.size, self.rows = group, of_group.total_byte_size, of_group.num_rows
        chunks = [of_group.column(i) for i in columns]
        chunks = [chunk for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
        self.deltas = [chunk for chunk in chunks if _DELTAS in chunk.encodings]
        self.others = [chunk for chunk in chunks if chunk.has_dictionary_page and _DELTAS not in chunk.encodings]
        self.paths = [chunk.path_in_schema for chunk in self.others]
        self.file = pq.ParquetFile(opened, metadata=footer, read_dictionary=self.paths, buffer_size=_BUFFER)

    def read(self, rows: int, paths: list[str]) -> Iterator[pa.RecordBatch]:
        return self.file.iter_batches(rows, row_groups=[self.group], columns=paths, use_threads=False)

    def bound(self) -> int | None:
        """Return the maximum bytes that the columns need, from the longest text of each dictionary; None if unknown."""
        if self.deltas:
            return None
        longest = [_longest(column) for batch in islice(self.read(1, self.paths), 1) for column in batch.columns]
        values = max((chunk.num_values for chunk in self.others), default=0)
        return None if None in longest else sum(filter(None, longest)) * values

    def count(self, limit: int) -> int:
        """Return the bytes that the columns need in addition to their encoded size. Decoding stops above the limit."""
        chunks = self.others + self.deltas
        total = -sum(chunk.total_uncompressed_size for chunk in chunks)
        largest = max((chunk.total_uncompressed_size for chunk in self.deltas), default=1)  # of a single text
        few = min(_BATCH, limit // 8 * self.rows // max(1, self.size), limit // 8 // max(1, largest))
        for batch in self.read(max(1, few), [chunk.path_in_schema for chunk in chunks]):
            total += sum(map(_bytes, batch.columns))  # inside a list or struct, Arrow supports only one dictionary
            if total > limit:
                break
        return max(0, total)


def _longest(array: Any) -> int | None:
    """Return the sum of the sizes of each dictionary's longest text; None if a dictionary is not read yet."""
    if pa.types.is_dictionary(array.type):
        length: int | None = pc.max(pc.binary_length(array.dictionary)).as_py()
        return length
    lengths = [_longest(inner) for inner in _inner(array)]
    return None if None in lengths else sum(filter(None, lengths))


def _bytes(array: Any) -> int:
    """Return the number of bytes in an array. A dictionary's value counts once for each row that uses it."""
    if pa.types.is_dictionary(array.type):
        return pc.sum(pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)).as_py() or 0
    inner = _inner(array)
    return sum(map(_bytes, inner)) if inner else int(array.nbytes)


def _inner(array: Any) -> list[Any]:
    if isinstance(array, pa.MapArray):
        return [array.keys, array.items]
    if isinstance(array, pa.StructArray):
        return list(array.flatten())
    return [array.flatten()] if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray) else []


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"unpacked, it has more than {limit:,} bytes; accepted: at most that")
