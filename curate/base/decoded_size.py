"""How much memory columns of a Parquet file take, before they are read: a few bytes may stand for any number of rows.

A dictionary holds a text of a megabyte once for all rows, and a delta (DELTA_BYTE_ARRAY) holds what differs from the
value before; what the footer says of sizes is of the encoded values.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_DECODED = 1 << 31  # bytes of row groups of a pool that are read together
_VALUE = 4  # bytes that any value takes in memory, a null too
_BUFFER = 1 << 16  # bytes that are read of a column to see its dictionary
_BATCH = 1024  # rows
_TEXT = "BYTE_ARRAY"
_DELTA = "DELTA_BYTE_ARRAY"


class TooLarge(pa.ArrowInvalid):
    """Columns would take more memory than they may."""


def check_claimed(footer: pq.FileMetaData, limit: int) -> None:
    """Raise TooLarge where by its footer alone one of a file's row groups takes more than `limit` bytes."""
    for group in range(footer.num_row_groups):
        of_group = footer.row_group(group)
        _check(_claimed(of_group, [of_group.column(i) for i in range(of_group.num_columns)]), limit)


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
        known += _claimed(of_group, chunks)
        _check(known, limit)
        texts = {chunk.path_in_schema: chunk for chunk in chunks if chunk.physical_type == _TEXT}
        deltas |= {path for path, chunk in texts.items() if _DELTA in chunk.encodings}
        encoded = [path for path, chunk in texts.items() if chunk.has_dictionary_page and path not in deltas]
        longest = _longest(opened, footer, group, encoded)
        most.update({path: longest.get(path, limit) * texts[path].num_values for path in encoded})
    if deltas or known + most.total() > limit:
        _check(known + _decoded(opened, footer, groups, sorted({*most, *deltas}), deltas, limit - known), limit)


def _claimed(group: pq.RowGroupMetaData, chunks: Sequence[pq.ColumnChunkMetaData]) -> int:
    rows = group.num_rows
    return sum(max(chunk.total_uncompressed_size, _VALUE * max(rows, chunk.num_values)) for chunk in chunks)


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
    total, most = 0, max(footer.row_group(group).total_byte_size for group in groups)
    rows = max(1, min(_BATCH, limit // 8 // max(1, most)))
    encoded = [path for path in paths if path not in deltas]
    file = pq.ParquetFile(opened, metadata=footer, read_dictionary=encoded, buffer_size=_BUFFER)
    for batch in file.iter_batches(rows, row_groups=list(groups), columns=paths, use_threads=False):
        total += sum(map(_bytes, batch.columns))
        if total > limit:
            break
    return total


def _bytes(array: Any) -> int:
    """Return the bytes of an array, each value of a dictionary as often as it is there."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return pc.sum(lengths.take(array.indices)).as_py() or 0
    if pa.types.is_struct(array.type):
        return sum(map(_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        return _bytes(array.keys) + _bytes(array.items)
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return _bytes(array.flatten()) if any(test(array.type) for test in tests) else int(array.nbytes)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"it holds more than {limit:,} bytes, unpacked; accepted: at most that")
