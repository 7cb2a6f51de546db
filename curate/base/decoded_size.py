"""How much memory columns of a Parquet file take, before they are read: a few bytes may stand for any number of rows.

A dictionary holds a text of a megabyte once for all rows, and a delta (DELTA_BYTE_ARRAY) holds what differs from the
value before; what the footer says of sizes is of the encoded values.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_DECODED = 3 << 29  # bytes of row groups of a pool that are read together
# Columns and what is around them: Arrow ends the process where thousands are nested
_MAX_NODES, _MAX_DEPTH = 10_000, 100
# In Thrift's compact form a footer begins with its version, then the schema: a list of so many, in one byte below 15
_NODES = re.compile(rb"\x15[\x80-\xff]*[\0-\x7f]\x19(?:\xfc([\x80-\xff]*[\0-\x7f])|.)", re.DOTALL)
_VALUE = 4  # bytes that any value takes in memory at least, a null too
_VALUES = dict.fromkeys(("INT64", "INT96", "DOUBLE"), 8)
_BUFFER = 1 << 16  # bytes that are read of a column to see its dictionary
_BATCH = 1 << 16  # rows
_TEXT = "BYTE_ARRAY"
_DELTA = "DELTA_BYTE_ARRAY"


class TooLarge(pa.ArrowInvalid):
    """Columns would take more memory than they may."""


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
    """Raise TooLarge where by its footer alone one of a file's row groups takes more than `limit` bytes."""
    for group in range(footer.num_row_groups):
        of_group = footer.row_group(group)
        _check(_claimed(footer, of_group, [of_group.column(i) for i in range(of_group.num_columns)]), limit)


def check_decoded(
    opened: Any, footer: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None, limit: int
) -> None:
    """Raise TooLarge where these columns (None: all) of row groups take more than `limit` bytes once they are read.

    `opened` is the file, or a buffer. Raises as pyarrow where the file is damaged.
    """
    known, most, deltas = 0, Counter[str](), set[str]()
    for group in groups:
        of_group = footer.row_group(group)
        chunks = [of_group.column(i) for i in range(of_group.num_columns)]
        chunks = [chunk for chunk in chunks if columns is None or chunk.path_in_schema.split(".")[0] in columns]
        known += _claimed(footer, of_group, chunks)
        _check(known, limit)
        texts = {chunk.path_in_schema: chunk for chunk in chunks if chunk.physical_type == _TEXT}
        deltas |= {path for path, chunk in texts.items() if _DELTA in chunk.encodings}
        encoded = [path for path, chunk in texts.items() if chunk.has_dictionary_page and path not in deltas]
        longest = _longest(opened, footer, group, encoded)
        most.update({path: longest.get(path, limit) * texts[path].num_values for path in encoded})
    if deltas or known + most.total() > limit:
        _check(known + _decoded(opened, footer, groups, sorted({*most, *deltas}), deltas, limit - known), limit)


def _claimed(footer: pq.FileMetaData, group: pq.RowGroupMetaData, chunks: Sequence[pq.ColumnChunkMetaData]) -> int:
    lengths = {column.path: column.length for column in map(footer.schema.column, range(footer.num_columns))}
    widths = [max(_VALUES.get(c.physical_type, _VALUE), lengths[c.path_in_schema] or 0) for c in chunks]
    rows = group.num_rows
    return sum(
        max(chunk.total_uncompressed_size, width * max(rows, chunk.num_values))
        for chunk, width in zip(chunks, widths, strict=True)
    )


def _longest(opened: Any, footer: pq.FileMetaData, group: int, paths: list[str]) -> dict[str, int]:
    """Return how many bytes the longest value of each column's dictionary has, by its path, where it has values."""
    if not paths:
        return {}
    file = pq.ParquetFile(opened, metadata=footer, read_dictionary=paths, buffer_size=_BUFFER)
    batch = next(file.iter_batches(1, row_groups=[group], columns=paths, use_threads=False), None)
    lengths = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True) if batch else ():
        for path, array in _dictionaries(name, column):
            if len(array.dictionary):
                lengths[path] = pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    return lengths


def _dictionaries(path: str, array: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dictionaries in a column, with the paths that Parquet has for them in flat and nested fields."""
    if pa.types.is_dictionary(array.type):
        yield path, array
    elif pa.types.is_struct(array.type):
        for i, field in enumerate(array.type):
            yield from _dictionaries(f"{path}.{field.name}", array.field(i))


def _decoded(
    opened: Any, footer: pq.FileMetaData, groups: Sequence[int], paths: list[str], deltas: set[str], limit: int
) -> int:
    """Return the bytes of columns that may be large, read a few rows at a time; more than `limit` where they are."""
    total, rows = 0, sum(footer.row_group(group).num_rows for group in groups)
    sizes = [footer.row_group(group).total_byte_size for group in groups]
    # What a dictionary is of is in the file as it is; a delta may be as long as all before it.
    for is_delta, few in (False, limit // 8 * rows // max(1, sum(sizes))), (True, limit // 8 // max(1, *sizes)):
        some = [path for path in paths if (path in deltas) == is_delta]
        if not some:
            continue
        encoded = [] if is_delta else some
        file = pq.ParquetFile(opened, metadata=footer, read_dictionary=encoded, buffer_size=_BUFFER)
        few = max(1, min(_BATCH, few))  # noqa: PLW2901
        for batch in file.iter_batches(few, row_groups=list(groups), columns=some, use_threads=False):
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
