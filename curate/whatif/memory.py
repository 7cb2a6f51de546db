"""A job that keeps in memory the columns that it has read, for questions that ask for the same ones again and again, and
leaves the run's folder as it is.

Embeddings and columns of text by which rows differ (uid, URL, caption) are read anew: they are most of a run's bytes, and
are needed once. Trades memory, at most 2 GiB, for a second and less between the points of a sweep.
"""

import tempfile
import threading
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa

from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.store import RunStore

LIMIT = 2 << 30  # bytes
_READ_ANEW = {"uid", "url", "caption", "sha256", "key"}


@dataclass(frozen=True)
class ReadFolder(RunStore):
    """The folder of a run that may be read only."""

    def spool(self) -> IO[bytes]:
        """A file without a name, on this machine's disk."""
        return tempfile.TemporaryFile()


@dataclass
class Memory:
    """Columns by (table, unit, name); what does not fit into `LIMIT` is read anew each time."""

    columns: dict[tuple[str, int, str], pa.ChunkedArray] = field(default_factory=dict)
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, key: tuple[str, int, str], column: pa.ChunkedArray) -> None:
        """Keeps the column while there is room."""
        with self.lock:
            if key not in self.columns and self.bytes + column.nbytes <= LIMIT:
                self.columns[key] = column
                self.bytes += column.nbytes


@dataclass(frozen=True)
class RememberingJob(RunContext):
    """A job of a finished run: what stands in its tables does not change."""

    memory: Memory = field(default_factory=Memory)

    def read(self, name: str, unit: Unit | int, columns: list[str] | None = None) -> pa.Table:
        """A unit's table, or some of its columns."""
        if columns is None:
            return super().read(name, unit, columns)
        index = unit if isinstance(unit, int) else unit.index
        known = self.memory.columns
        missing = [column for column in columns if (name, index, column) not in known]
        table = super().read(name, unit, missing) if missing else None
        found = []
        for column in columns:
            if column not in missing or table is None:
                found.append(known[name, index, column])
                continue
            found.append(table[column])
            if name != "embeddings" and column not in _READ_ANEW:
                self.memory.keep((name, index, column), table[column])
        return pa.table(found, names=columns)
