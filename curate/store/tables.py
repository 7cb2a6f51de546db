"""The tables of one unit in a run folder: one Parquet file each, read and written by name, their key and note in the footer.

In: a run folder, a unit's number, and perhaps the tables of the same unit in an older run, to adopt. Row-aligned tables have
one row a sample of the unit, in the same order, so that columns of two of them are put together without a join.
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate import schema
from curate.errors import DamagedError
from curate.store.layout import table_file
from curate.store.store import RunStore


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
        """Return the table, or some of its columns."""
        return self.store.read_parquet(self.file(table), columns)

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
        return self.store.footer(self.file("samples"))[2]

    def key(self, table: str) -> str | None:
        """Return the key that the table was made with, which must be there."""
        return self.store.footer(self.file(table))[0]

    def note(self, table: str) -> dict[str, Any]:
        """Return the note that the table was written with."""
        text = self.store.footer(self.file(table))[1]
        return dict(json.loads(text)) if text else {}

    def write(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None = None) -> None:
        """Put the table into place."""
        text = None if note is None else json.dumps(note, ensure_ascii=False, sort_keys=True)
        self.store.write_parquet(self.file(table), rows, key, text)

    def column_names(self, table: str) -> list[str]:
        """Return the table's columns."""
        return list(self.store.schema(self.file(table)).names)

    def is_current(self, table: str, key: str) -> bool:
        """Return whether the table was made with this key; that of the run to reuse is adopted first.

        Raises OSError where a file cannot be read now, so that nobody knows.
        """
        if self.store.is_current(self.file(table), key):
            return True
        if self.reuse is None or not self.reuse.would_be_current(table, key):
            return False
        return self._adopt(table, key, self.reuse)

    def would_be_current(self, table: str, key: str) -> bool:
        """Return what `is_current` would, and change nothing."""
        return any(tables.store.is_current(tables.file(table), key) for tables in (self, self.reuse) if tables)

    def _adopt(self, table: str, key: str, other: "UnitTables") -> bool:
        """Put the same table of another run into place, with this unit's number; False where it is damaged."""
        if other.unit == self.unit or "unit" not in other.column_names(table):
            self.store.adopt(other.store, other.file(table), self.file(table))
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


def _as_made(kind: pa.DataType) -> pa.DataType:
    """Return a list type as it was before Parquet renamed its items: files that are equal then have equal bytes."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type, kind.list_size)
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind
