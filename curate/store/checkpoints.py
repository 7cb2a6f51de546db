"""Checkpoints of slow work on a unit, so that a killed worker loses minutes of work and not the whole unit.

The work runs in fixed steps of consecutive rows, so the published result does not depend on when a checkpoint is
written. Every `INTERVAL`, new results are stored as Arrow files in `parts/`. Work that is faster stores none. A rerun
continues after the stored rows. The files are deleted once the unit's tables are complete.

A file's name has three parts: a digest of everything that determines its content, its first row, and a digest of the
first two parts and the bytes. A file that does not match its name is damaged, and is ignored.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import xxhash

from curate.base import ids
from curate.base.errors import RunError, reraised
from curate.store.layout import unit_parts
from curate.store.store import RunStore

INTERVAL = 60.0  # seconds
MEASURED = "measured"
_BEGUN = "begun"  # marks a folder that may have checkpoints
steps_done = Counter[str]()  # rows done by kind of work in this process, for observers


class Checkpoints:
    """Checkpoints for one kind of work on one unit, in one thread; `key` identifies what determines its tables."""

    def __init__(self, store: RunStore, work: str, unit: int, key: str, files: Iterable[str] | None = None) -> None:
        """`files` are the files that are already in the work's folder, if they are known."""
        self._store, self._folder, self._key, self._work = store, unit_parts(work, unit), key, work
        self._last = time.monotonic()
        files = begun_files(store, self._folder) if files is None else files
        self._files = {name.rpartition("/")[2] for name in files}
        # For each table: the number of stored rows, and the rows that are not stored yet.
        self._waiting: dict[str, tuple[int, list[pa.Table]]] = {}

    def complete(
        self,
        identity: Any,
        schema: pa.Schema,
        steps: Callable[[int], Iterable[pa.Table]],
        check: Callable[[], None] = lambda: None,
    ) -> pa.Table:
        """Return a table: first the rows that a killed process stored, then the results of the remaining steps.

        The table has one chunk. `identity`, plain data, and the key determine it. `steps(row)` yields tables in order,
        beginning with this row. `check` is called before rows are stored, and raises an error if they must not be
        stored.
        """
        name = ids.digest([self._key, identity])
        tables = self._read(name)
        rows = sum(map(len, tables))
        self._waiting[name] = rows, []
        for table in steps(rows):
            tables.append(table)
            steps_done[self._work] += len(table)
            self._waiting[name][1].append(table)
            if time.monotonic() - self._last >= INTERVAL:
                check()
                self._write()
        return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()

    def delete(self) -> None:
        if self._files:
            delete_files(self._store, self._folder, self._files)

    def _write(self) -> None:
        for name, (first, tables) in self._waiting.items():
            if rows := sum(map(len, tables)):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_file(sink, tables[0].schema) as writer:
                    writer.write_table(pa.concat_tables(tables))
                data = memoryview(sink.getvalue())
                file = _file(f"{name}-{first:09d}-", data)
                path = f"{self._store.path(self._folder)}/{file}"
                # otherwise, it would be reported as an error in an input
                with reraised(RunError, f"{path}: cannot be written", OSError):
                    if not self._files:
                        begin_files(self._store, self._folder)
                    self._store.write_bytes(f"{self._folder}/{file}", data)
                self._files.add(file)
                self._waiting[name] = first + rows, []
        self._last = time.monotonic()

    def _read(self, name: str) -> list[pa.Table]:
        """Return the stored parts of a table, starting at its first row, up to the first missing or damaged file."""
        tables: list[pa.Table] = []
        for file in sorted(self._files):
            prefix = f"{name}-{sum(map(len, tables)):09d}-"
            if file.startswith(prefix):
                with suppress(OSError):
                    data = self._store.read_bytes(f"{self._folder}/{file}")
                    if file == _file(prefix, data):
                        tables.append(pa.ipc.open_file(data).read_all())
        return tables


def begun_files(store: RunStore, folder: str) -> list[str]:
    """Return the checkpoint files of a folder. If the folder is not marked, return none without listing it."""
    return store.files(folder) if store.exists(f"{folder}/{_BEGUN}") else []


def begin_files(store: RunStore, folder: str) -> None:
    """Mark a folder before checkpoints are written to it."""
    store.write_bytes(f"{folder}/{_BEGUN}", b"\n")


def delete_files(store: RunStore, folder: str, files: Collection[str]) -> None:
    """Delete the checkpoints in a folder. Publishing the run deletes other attempts' checkpoints."""
    store.delete(folder, {_BEGUN, *files})


def _file(prefix: str, data: Any) -> str:
    state = xxhash.xxh3_128(prefix.encode())
    state.update(data)
    return f"{prefix}{state.hexdigest()}.arrow"
