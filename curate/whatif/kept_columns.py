"""A run's folder that may be read only, and keeps in memory the columns of units' tables that were read, for questions
that read the same ones again and again.

Embeddings and columns of text by which rows differ (uid, URL, caption) are read again each time: they are most of a run's
bytes, and are needed once. Trades memory, at most 2 GiB, for a second and less between the points of a sweep.
"""

import tempfile
import threading
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa

from curate.store.store import RunStore

LIMIT = 2 << 30  # bytes
_READ_AGAIN = {"uid", "url", "caption", "sha256", "key"}


@dataclass
class Columns:
    """Columns by (file, name), up to `LIMIT`."""

    kept: dict[tuple[str, str], pa.ChunkedArray] = field(default_factory=dict)
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, file: str, name: str, column: pa.ChunkedArray) -> None:
        """Keep a column while there is room."""
        with self.lock:
            if (file, name) not in self.kept and self.bytes + column.nbytes <= LIMIT:
                self.kept[file, name] = column
                self.bytes += column.nbytes


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
        missing = [column for column in columns if (name, column) not in self.columns.kept]
        table = super().read_parquet(name, missing) if missing else None
        found = []
        for column in columns:
            if column not in missing or table is None:
                found.append(self.columns.kept[name, column])
                continue
            found.append(table[column])
            if not name.startswith("tables/embeddings/") and column not in _READ_AGAIN:
                self.columns.keep(name, column, table[column])
        return pa.table(found, names=columns)
