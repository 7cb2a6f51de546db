"""Checkpoints: what slow work on a unit has given so far, so that a kill costs minutes and not the unit.

Work goes on in steps of consecutive rows, the same whatever the time, so what is published does not depend on where
checkpoints fell. Once `INTERVAL` has passed since the last one, what steps gave since then is put into place as Arrow
files in `parts/`; fast work leaves none. A rerun goes on after them. They are deleted once the unit's tables are there.

A file's name holds what it is of (a digest of all that determines it), its first row, and a digest of these and its
bytes: a file that is not what its name says is damaged, and not used.
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
_BEGUN = "begun"  # a file that is there where others may be
steps_done = Counter[str]()  # rows of steps by kind of work, in this process: for those who watch it


class Checkpoints:
    """Those of one kind of work on one unit, for one thread; `key` names what determines all of its tables."""

    def __init__(self, store: RunStore, work: str, unit: int, key: str, files: Iterable[str] | None = None) -> None:
        """`files` are those in the folder of the work, where they are known."""
        self._store, self._folder, self._key, self._work = store, unit_parts(work, unit), key, work
        self._last = time.monotonic()
        files = begun_files(store, self._folder) if files is None else files
        self._files = {name.rpartition("/")[2] for name in files}
        # Of each table how many rows are in place, and those that are not.
        self._waiting: dict[str, tuple[int, list[pa.Table]]] = {}

    def complete(
        self,
        identity: Any,
        schema: pa.Schema,
        steps: Callable[[int], Iterable[pa.Table]],
        check: Callable[[], None] = lambda: None,
    ) -> pa.Table:
        """Return a table of the rows that a killed process left, and those that the steps give; a column is one chunk.

        `identity`, plain data, and the key determine the table. `steps` leads from a row to tables of the rows from
        that one on, in order. `check`, called before rows are put into place, raises where none is to be.
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
                with reraised(
                    RunError, f"{path}: cannot be written", OSError
                ):  # else it would be taken for an input's error
                    if not self._files:
                        begin_files(self._store, self._folder)
                    self._store.write_bytes(f"{self._folder}/{file}", data)
                self._files.add(file)
                self._waiting[name] = first + rows, []
        self._last = time.monotonic()

    def _read(self, name: str) -> list[pa.Table]:
        """Return the tables of a table's first rows: of files that can be read and are sound, up to a gap."""
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
    """Return the files of a folder of slow work: none where it is not begun, which costs less than to list it."""
    return store.files(folder) if store.exists(f"{folder}/{_BEGUN}") else []


def begin_files(store: RunStore, folder: str) -> None:
    """Say that a folder of slow work is about to have files."""
    store.write_bytes(f"{folder}/{_BEGUN}", b"\n")


def delete_files(store: RunStore, folder: str, files: Collection[str]) -> None:
    """Delete the files of a folder of slow work; those of other attempts go once the run is published."""
    store.delete(folder, {_BEGUN, *files})


def _file(prefix: str, data: Any) -> str:
    state = xxhash.xxh3_128(prefix.encode())
    state.update(data)
    return f"{prefix}{state.hexdigest()}.arrow"
