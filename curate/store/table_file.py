"""Writes and reads a run's Parquet files, whose footers have a key and a note.

In: open files from any store. Out: tables, columns and footers. Each is read only once. A damaged file and a failed
read raise different errors.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DamagedError
from curate.base.wording import one_line

KEY = b"curate.key"
FOOTER_NOTE = b"curate.note"
SMALL = 1 << 20  # a file with at most this many bytes is read at once
_FEW = 64  # tables with at most this many rows are not compressed: starting a compressor per column takes half the time
# Text columns whose values rarely repeat. Captions of row-aligned tables use a dictionary: it costs 5% if none
# repeats, and saves most of the bytes if they do.
_PLAIN = frozenset(("uid", "url", "caption", "sha256", "original_sha256", "key", "duplicate_of", "entry"))
# For row-aligned tables: integers are close to the previous one; hex digits without lengths compress twice as well.
_ENCODINGS = dict.fromkeys(("unit", "row", "words", "characters"), "DELTA_BINARY_PACKED")
_ENCODINGS |= {"uid": "DELTA_LENGTH_BYTE_ARRAY"}

_open_parquet = partial(pq.ParquetFile, pre_buffer=False, page_checksum_verification=True)
Parsed = TypeVar("Parsed")


def write_table(file: Any, table: pa.Table, footer: Mapping[bytes, bytes], groups: Sequence[int] | None = None) -> None:
    """Write a table with this footer, in row groups of these sizes, or in one. Equal tables give equal bytes."""
    sizes = (len(table),) if groups is None else groups
    write_groups(file, map(table.slice, accumulate(sizes, initial=0), sizes), table.schema, len(table), footer)


def write_groups(file: Any, groups: Iterable[pa.Table], schema: pa.Schema, rows: int, footer: Any = None) -> None:
    """Write a table from its row groups; `rows` is the number of rows of all groups."""
    is_aligned = rows >= _FEW and schema.names[:2] == ["unit", "row"]
    plain = _PLAIN - {"caption"} if is_aligned else _PLAIN
    repeating = [f.name for f in schema if f.name not in plain and pa.types.is_string(f.type)]
    options: dict[str, Any] = {"use_dictionary": repeating or False, "write_page_checksum": True}
    options |= {"compression": "none"} if rows < _FEW else {"compression": "zstd", "compression_level": 1}
    if is_aligned:
        options["column_encoding"] = {name: _ENCODINGS[name] for name in schema.names if name in _ENCODINGS}
    schema = schema.with_metadata(dict(footer)) if footer else schema.remove_metadata()
    with pq.ParquetWriter(file, schema, **options) as out:
        for table in groups:
            out.write_table(table.replace_schema_metadata(schema.metadata), max(len(table), 1))


class TableFile(AbstractContextManager["TableFile"]):
    """An open Parquet file of a run. Its footer and each column are read only once.

    It does not use `pq.read_table`, because its read-ahead threads can abort Python at exit when they release a Python
    buffer.
    """

    def __init__(self, path: str, source: Any, read_again: Callable[[], bytes]) -> None:
        """`source` is an open file, which is closed with this object.

        `read_again` returns all its bytes, or raises OSError.
        """
        self._path, self._source, self._read_again = path, source, read_again
        self._columns: dict[str, pa.ChunkedArray] = {}
        with ExitStack() as stack:
            stack.callback(self.close)
            size = self._source.seek(0, os.SEEK_END)
            self._source.seek(0)
            if size <= SMALL:
                with self._source as file:
                    self._source = pa.BufferReader(file.read())
            self._file = self._parsed(lambda: _open_parquet(self._source))
            stack.pop_all()
        self.rows: int = self._file.metadata.num_rows
        self._metadata: Mapping[bytes, bytes] = self._file.metadata.metadata or {}

    @classmethod
    def of(cls, table: pa.Table, metadata: Mapping[bytes, bytes]) -> Self:
        """Return an object that behaves like the file of this table and footer, without a file."""
        self = cls.__new__(cls)
        self._columns = dict(zip(table.column_names, table.columns, strict=True))
        self._source, self.rows, self._metadata = None, len(table), metadata
        self.schema = table.schema
        return self

    @cached_property
    def schema(self) -> pa.Schema:
        return self._parsed(lambda: self._file.schema_arrow)

    def read_groups(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        yield from (self.read_group(number, columns) for number in range(self._file.metadata.num_row_groups))

    def read_group(self, number: int, columns: list[str] | None = None) -> pa.Table:
        """Return a row group, or some of its columns. Raises the same errors as `RunStore.read_parquet`."""
        return self._parsed(lambda: self._file.read_row_group(number, columns, use_threads=False))

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns. Raises the same errors as `RunStore.read_parquet`."""
        names = self.names if columns is None else columns
        if missing := [name for name in dict.fromkeys(names) if name not in self._columns]:
            table = self._parsed(lambda: self._file.read(missing, use_threads=False))
            self._columns.update(zip(table.column_names, table.columns, strict=True))
        fields = [self.schema.field(name) for name in names]
        return pa.table([self._columns[name] for name in names], schema=pa.schema(fields))

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def key(self) -> str | None:
        return footer_text(self._metadata, KEY)

    @property
    def note(self) -> str | None:
        return footer_text(self._metadata, FOOTER_NOTE)

    def _parsed(self, parse: Callable[[], Parsed]) -> Parsed:
        """Return the result of `parse`. If it fails, parse a copy in memory: if that fails too, the file is damaged."""
        try:
            return parse()
        except (pa.ArrowException, OSError):  # Arrow raises OSError for both failed reads and damage
            data = self._read_again()
        try:
            self._source.close()
            self._source = pa.BufferReader(data)
            self._file = _open_parquet(self._source)
            return parse()
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(f"{self._path}: is damaged ({one_line(error)}); delete it and run again") from None

    def close(self) -> None:
        """Close the file. Columns that were read remain available."""
        if self._source is not None:
            self._source.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def footer_metadata(key: str | None, note: str | None) -> dict[bytes, bytes]:
    """Return the metadata that a table's footer gets."""
    return {k: v.encode() for k, v in ((KEY, key), (FOOTER_NOTE, note)) if v is not None}


def footer_text(metadata: Mapping[bytes, bytes], name: bytes) -> str | None:
    """Return the text with this name in a footer; empty if there is none."""
    return metadata[name].decode() if metadata.get(name) else None
