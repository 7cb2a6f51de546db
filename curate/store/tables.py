"""The tables of one unit in a run folder: one Parquet file each, read and written by name, their key and note in the footer.

In: a run folder, a unit's number, and perhaps the tables of the same unit in an older run, to adopt. Row-aligned tables have
one row a sample of the unit, in the same order, so that columns of two of them are put together without a join.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from curate import schema
from curate.errors import DamagedError
from curate.store.layout import table_file
from curate.store.manifest import check_written
from curate.store.store import ParquetInput, RunStore, footer_metadata

Found = TypeVar("Found")


@dataclass(frozen=True)
class UnitTables:
    """A unit's tables.

    Those of `reuse`, the same unit in the run to reuse, where it may have had another number, are adopted where they
    have the same key.
    """

    store: RunStore
    unit: int
    reuse: "UnitTables | None" = None

    def file(self, table: str) -> str:
        """Return the table's file, relative to the run folder."""
        return table_file(table, self.unit)

    def exists(self, table: str) -> bool:
        """Return whether the table's file is there."""
        return self.store.exists(self.file(table))

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns; errors as of `RunStore.read_parquet`."""
        return self._ask(table, lambda file: file.read(columns))

    def read_measured(self, columns: list[str]) -> pa.Table:
        """Return columns of `samples` and `scores`, side by side."""
        in_samples = [name for name in columns if name in schema.SAMPLES.names]
        in_scores = [name for name in columns if name not in schema.SAMPLES.names]
        table = self.read("samples", in_samples or ["row"])
        if in_scores:
            for name, column in zip(in_scores, self.read("scores", in_scores).columns, strict=True):
                table = table.append_column(name, column)
        return table

    def rows(self) -> int:
        """Return how many rows the unit has; it must be measured."""
        return self._ask("samples", lambda file: file.rows)

    def key(self, table: str) -> str | None:
        """Return the key that the table was made with, which must be there."""
        return self._ask(table, lambda file: file.key)

    def note(self, table: str) -> dict[str, Any]:
        """Return the note that the table was written with."""
        text = self._ask(table, lambda file: file.note)
        return dict(json.loads(text)) if text else {}

    def column_names(self, table: str) -> list[str]:
        """Return the table's columns."""
        return self._ask(table, lambda file: file.names)

    def _ask(self, table: str, question: Callable[[ParquetInput], Found]) -> Found:
        with self.store.open_parquet(self.file(table)) as file:
            return question(file)

    def write(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None = None) -> None:
        """Put the table into place."""
        self.store.write_parquet(self.file(table), rows, key, _text(note))

    def is_current(self, table: str, key: str, adopt: bool = True) -> bool:
        """Return whether the table was made with this key and is what was written; that of the run to reuse is adopted first.

        Raises OSError where a file cannot be read now, so that nobody knows.
        """
        if self.store.is_current(self.file(table), key) and self.is_as_written(table):
            return True
        self.forget(table)
        if not adopt or self.reuse is None or not self.reuse.would_be_current(table, key):
            return False
        return self._adopt(table, key, self.reuse)

    def forget(self, table: str) -> None:
        """Forget what was read of a table, whose file is another now."""

    def is_as_written(self, table: str) -> bool:
        """Return whether the table, which is read whole, is what was written."""
        return check_written(self.store, self.file(table)) is not None

    def would_be_current(self, table: str, key: str) -> bool:
        """Return what `is_current` would, as far as footers say, and change nothing."""
        return any(tables.store.is_current(tables.file(table), key) for tables in (self, self.reuse) if tables)

    def _adopt(self, table: str, key: str, other: "UnitTables") -> bool:
        """Put the same table of another run into place, with this unit's number; False where it is damaged."""
        digest = check_written(other.store, other.file(table))
        if digest is None:
            return False
        if other.unit == self.unit or "unit" not in other.column_names(table):
            self.store.adopt(other.store, other.file(table), self.file(table), digest)
            return True
        try:
            rows = other.read(table)
        except DamagedError:
            return False
        number = pa.repeat(pa.scalar(self.unit, pa.int32()), len(rows))
        rows = rows.set_column(rows.schema.get_field_index("unit"), schema.SAMPLES.field("unit"), number)
        rows = rows.cast(pa.schema([field.with_type(_as_made(field.type)) for field in rows.schema]))
        self.store.write_parquet(self.file(table), rows, key, other.store.footer(other.file(table))[1])
        return True


def _text(note: dict[str, Any] | None) -> str | None:
    return None if note is None else json.dumps(note, ensure_ascii=False, sort_keys=True)


def _as_made(kind: pa.DataType) -> pa.DataType:
    """Return a list type as it was before Parquet renamed its items: files that are equal then have equal bytes."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type, kind.list_size)
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


@dataclass(frozen=True)
class OpenTables(UnitTables):
    """A unit's tables while one step works on it: each file is opened once and each column read once, and the step reads what it wrote.

    As a context manager it closes what it opened.
    """

    written: set[str] = field(default_factory=set, compare=False)  # the tables that the step wrote
    _files: dict[str, ParquetInput] = field(default_factory=dict, compare=False)

    def _ask(self, table: str, question: Callable[[ParquetInput], Found]) -> Found:
        if table not in self._files:
            self._files[table] = self.store.open_parquet(self.file(table))
        return question(self._files[table])

    def write(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None = None) -> None:
        """Put the table into place, and keep it for those who read it."""
        super().write(table, rows, key, note)
        self.forget(table)
        self.written.add(table)
        self._files[table] = ParquetInput.of(rows, footer_metadata(key, _text(note)))

    def forget(self, table: str) -> None:
        """Forget what was read of a table, whose file is another now."""
        if table in self._files:
            self._files.pop(table).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
