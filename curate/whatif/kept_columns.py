"""A run's folder that may be read only, and keeps in memory the columns of units' tables that were read, for questions
that read the same ones again and again.

Embeddings and columns of text by which rows differ (uid, URL, caption) are read again each time: they are most of a run's
bytes, and are needed once. Trades memory, at most 2 GiB, for a second and less between the points of a sweep.
"""

import tempfile
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa

from curate.store.store import RunStore

LIMIT = 2 << 30  # bytes
_READ_AGAIN = {"uid", "url", "caption", "sha256", "key"}


@dataclass
class Columns:
    """Columns by file and name, of about `LIMIT` bytes at most."""

    kept: dict[tuple[str, str], pa.ChunkedArray] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True)
class KeptColumnsStore(RunStore):
    """The folder of a finished run, whose tables do not change."""

    columns: Columns = field(default_factory=Columns)

    def spool(self) -> IO[bytes]:
        """Return a file without a name, on this machine's disk."""
        return tempfile.TemporaryFile()

    def read_parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a table, or some of its columns."""
        if columns is None or not name.startswith("tables/"):
            return super().read_parquet(name, columns)
        found = {column: self.columns.kept[name, column] for column in columns if (name, column) in self.columns.kept}
        if missing := [column for column in columns if column not in found]:
            table = super().read_parquet(name, missing)
            for column, values in zip(table.column_names, table.columns, strict=True):
                found[column] = values
                has_room = self.columns.bytes + values.nbytes <= LIMIT
                if has_room and not name.startswith("tables/embeddings/") and column not in _READ_AGAIN:
                    self.columns.kept[name, column] = values
                    self.columns.bytes += values.nbytes
        return pa.table({column: found[column] for column in columns})
