"""The tables of a unit in a run folder: one Parquet file each, read and written by name, key and note in the footer.

In: a run folder, a unit's number, and perhaps the tables of the same unit in an older run, to adopt. Row-aligned tables
have one row a sample of the unit, in the same order, so that columns of two of them need no join.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from curate.base import schema
from curate.base.errors import DamagedError
from curate.base.numeric import sides
from curate.base.process import process_cache
from curate.store.chunks import Chunk, row_groups
from curate.store.layout import table_file
from curate.store.store import Keep, RunStore
from curate.store.table_file import TableFile, footer_metadata
from curate.store.validity import has_key, valid_digest

Answer = TypeVar("Answer")
_OF_SIDES = {"min_side": sides.min_side, "aspect": sides.aspect}


@dataclass(frozen=True)
class UnitTables:
    """A unit's tables.

    Those of `reuse` are adopted where they have the same key: of the same unit in a chunk of this run, and in the run
    to reuse, where it may have had another number.
    """

    store: RunStore
    unit: int
    reuse: "UnitTables | None" = None
    last: int | None = None  # of a chunk, whose units are one to its readers: the number of its last unit

    @property
    def locations(self) -> Iterator["UnitTables"]:
        """These tables, and after them where the same unit's tables may be found too."""
        yield self
        if self.reuse is not None:
            yield from self.reuse.locations

    def file(self, table: str) -> str:
        """Return the table's file, relative to the run folder."""
        return table_file(table, self.unit, self.last)

    def exists(self, table: str) -> bool:
        return self.store.exists(self.file(table))

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns; errors as of `RunStore.read_parquet`."""
        return self._ask(table, lambda file: file.read(columns))

    def read_measured(self, columns: list[str]) -> pa.Table:
        """Return columns of `samples`, `scores`, `related`, `matches`, and of `sides` where these have none."""
        read: dict[str, Any] = {}

        def take(table: str, names: Collection[str]) -> None:
            if used := [name for name in columns if name in names and name not in read]:
                read.update(zip(used, self.read(table, used).columns, strict=True))

        take("samples", schema.SAMPLES.names)
        if len(read) < len({*columns}):
            with suppress(FileNotFoundError):  # not `exists`, a request more
                take("scores", self.column_names("scores"))
        if schema.LANGUAGE_KEY.name in {*columns} - {*read}:
            take("matches", self.column_names("matches"))
        take("related", {*columns} - {*_OF_SIDES})
        for name in {*_OF_SIDES} & {*columns} - {*read}:
            read[name] = _OF_SIDES[name](*self.read("samples", ["width", "height"]).columns)
        return pa.table(read) if read else self.read("samples", ["row"])

    def read_uids(self) -> pa.ChunkedArray:
        """Return each row's uid (string[rows])."""
        return self.read("samples", ["uid"])["uid"]

    def rows(self) -> int:
        """Return how many rows the unit has; it must be measured."""
        return self._ask("samples", lambda file: file.rows)

    def key(self, table: str) -> str | None:
        """Return the key that the table was made with, which must be there."""
        return self._ask(table, lambda file: file.key)

    def note(self, table: str) -> dict[str, Any]:
        text = self._ask(table, lambda file: file.note)
        return dict(json.loads(text)) if text else {}

    def notes(self, table: str) -> list[dict[str, Any]]:
        """Return the note of each unit: of one, or of all of a chunk."""
        note = self.note(table)
        return [note] if self.last is None else [inner or {} for inner in note["units"]["notes"]]

    def column_names(self, table: str) -> list[str]:
        return self._ask(table, lambda file: file.names)

    def _ask(self, table: str, question: Callable[[TableFile], Answer]) -> Answer:
        with self.store.open_parquet(self.file(table)) as file:
            return question(file)

    def write(
        self,
        table: str,
        rows: pa.Table,
        key: str,
        note: dict[str, Any] | None = None,
        is_final: bool = True,
        keep: Keep | None = None,
    ) -> bool:
        """Put the table into place, unless another attempt's is there. Returns whether it was put there.

        One that is not final, for something may succeed another time, has no key: it holds until the run's next start.
        `keep` says whether the one that is there stays; None: if it is valid.
        """
        name, stated = self.file(table), key if is_final else ""
        keep = keep or partial(self.keep, table, key)
        is_put = self.store.write_parquet(name, rows, stated, _text(note), keep=keep)
        self._wrote(table, rows, stated, note, is_put)
        return is_put

    def rewrite(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None = None) -> None:
        """Put the table in the place of the one that is there, by which alone it is determined."""
        groups = None if self.last is None else list(row_groups(note or {}))
        self.store.write_parquet(self.file(table), rows, key, _text(note), groups)
        self._wrote(table, rows, key, note, True)

    def _wrote(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None, is_put: bool) -> None:
        """Take note of a table that was written, and whether it was put into place."""

    def is_done(self, table: str, key: str, adopt: bool = True) -> bool:
        """Return whether the unit's table is valid here, after it was adopted from where it is valid, if anywhere.

        With `adopt` false, only from a chunk of this run. Raises OSError if a file cannot be read now, so that nobody
        knows.
        """
        name = self.file(table)
        if has_key(self.store, name, key, since_start=True) and valid_digest(self.store, name):
            return True
        self.drop_read(table)
        others = (other for other in self.locations if other is not self and (adopt or other.store == self.store))
        return any(other.has_key(table, key) and self._adopt(table, key, other) for other in others)

    def find(self, table: str, key: str, by_footer: bool = False) -> "UnitTables | None":
        """Return where the table is valid with a key, or with `by_footer`, where it has the key; change nothing."""
        for tables in self.locations:
            if tables.has_key(table, key) and (by_footer or tables.is_valid(table)):
                return tables
        return None

    def is_valid(self, table: str) -> bool:
        """Return whether the table is there and valid, whatever its key; it is read whole."""
        return self.exists(table) and valid_digest(self.store, self.file(table)) is not None

    def has_key(self, table: str, key: str) -> bool:
        return has_key(self.store, self.file(table), key)

    def keep(self, table: str, key: str) -> bool:
        """Return whether the table, which another attempt put into place, is valid, so that this one drops its own."""
        name = self.file(table)
        return has_key(self.store, name, key, since_start=True) and bool(valid_digest(self.store, name, is_new=True))

    def drop_read(self, table: str) -> None:
        """Drop what was read of a table, whose file is another now."""

    def _adopt(self, table: str, key: str, other: "UnitTables") -> bool:
        """Put the same table of another location here, with this unit's number; False if it is damaged."""
        is_alike = other.unit == self.unit or "unit" not in other.column_names(table)
        if is_alike and not isinstance(other, ChunkTables):  # whose files have other units' tables too
            name = other.file(table)
            if digest := valid_digest(other.store, name):
                keep = partial(self.keep, table, key)
                self.store.adopt(other.store, name, self.file(table), digest, keep)
            return digest is not None
        try:
            if not other.is_valid(table):
                return False
            rows, note = other._ask(table, lambda file: (as_made(file.read()), file.note))
        except DamagedError:
            return False
        if not is_alike:
            number = pa.repeat(pa.scalar(self.unit, pa.int32()), len(rows))
            rows = rows.set_column(rows.schema.get_field_index("unit"), schema.SAMPLES.field("unit"), number)
        self.store.write_parquet(self.file(table), rows, key, note, keep=partial(self.keep, table, key))
        return True


def _text(note: dict[str, Any] | None) -> str | None:
    return None if note is None else json.dumps(note, ensure_ascii=False, sort_keys=True)


def as_made(rows: pa.Table) -> pa.Table:
    """Return a table with its lists as they were before Parquet renamed their items: equal tables give equal bytes."""
    columns = rows.schema
    for index, column in enumerate(columns):
        if isinstance(column.type, pa.ListType | pa.FixedSizeListType):
            size = column.type.list_size if isinstance(column.type, pa.FixedSizeListType) else -1
            columns = columns.set(index, column.with_type(pa.list_(column.type.value_type, size)))
    return rows.cast(columns)


@dataclass(frozen=True)
class OpenTables(UnitTables, AbstractContextManager["OpenTables"]):
    """A unit's tables while a step works on it: each file is opened and each column read once, what it wrote never.

    A file that is missing is asked for once, too, unless the step writes it.

    As a context manager it closes what it opened.
    """

    names: tuple[str, ...] | None = None  # of the tables that units have: no other one is asked for; None: any may be
    written: set[str] = field(default_factory=set, compare=False)  # the tables that the step put into place
    _files: dict[str, TableFile | None] = field(default_factory=dict, compare=False)

    def exists(self, table: str) -> bool:
        return (self.names is None or table in self.names) and super().exists(table)

    def read_uids(self) -> pa.ChunkedArray:
        """Return each row's uid (string[rows]), of a table that is open, as each row-aligned one has them."""
        tables = ("samples", "embeddings", "related")
        return self.read(next((table for table in tables if self._files.get(table)), "samples"), ["uid"])["uid"]

    def _ask(self, table: str, question: Callable[[TableFile], Answer]) -> Answer:
        if table not in self._files:
            file = None
            if self.names is None or table in self.names:
                with suppress(FileNotFoundError):
                    file = self.store.open_parquet(self.file(table))
            self._files[table] = file
        if (file := self._files[table]) is None:
            raise FileNotFoundError(self.store.path(self.file(table)))
        return question(file)

    def _wrote(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None, is_put: bool) -> None:
        """Keep the table for readers; where another attempt's is there, they read that one."""
        self.drop_read(table)
        if is_put:
            self.written.add(table)
            self._files[table] = TableFile.of(rows, footer_metadata(key, _text(note)))

    def drop_read(self, table: str) -> None:
        if file := self._files.pop(table, None):
            file.close()

    def __exit__(self, *_: object) -> None:
        for file in filter(None, self._files.values()):
            file.close()


@dataclass(frozen=True, kw_only=True)
class ChunkTables(UnitTables):
    """A unit's tables in the files of its chunk, to be read only."""

    chunk: Chunk

    def file(self, table: str) -> str:
        """Return the file that holds the table, and those of the chunk's other units."""
        return table_file(table, *self.chunk)

    def _ask(self, table: str, question: Callable[[TableFile], Answer]) -> Answer:
        index, position = self._index(table), self.unit - self.chunk.first
        first, count = sum(index.rows[:position]), index.rows[position]
        number = bisect_right(index.ends, first) if count else 0
        rows = self._group(table, number).slice(first - index.ends[number - 1] if number else first, count)
        return question(TableFile.of(rows, footer_metadata(index.keys[position], index.notes[position])))

    def _group(self, table: str, number: int) -> pa.Table:
        """Return a row group of the chunk's file. Each table's last one stays in memory: units mostly come in order."""
        name, of_table = self.file(table), f"group of {self.store.url} {table} "

        def read() -> pa.Table:
            with self.store.open_parquet(name) as file:
                return file.read_group(number)

        return process_cache(f"{of_table}{name} {self.store.state(name)} {number}", read, replaces=of_table)

    def has_key(self, table: str, key: str) -> bool:
        return self.is_valid(table) and self._index(table).keys[self.unit - self.chunk.first] == key

    def is_valid(self, table: str) -> bool:
        """Return whether the chunk's file, which is read whole once per process, is there and valid."""
        with suppress(FileNotFoundError, NotADirectoryError, DamagedError):
            return bool(self._index(table))
        return False

    def _index(self, table: str) -> "_Index":
        """Return what the chunk's file says of its units, once per process and state. Raises OSError, DamagedError."""
        name = self.file(table)
        of_file = f"units of {self.store.path(name)} "

        def read() -> _Index | None:
            if valid_digest(self.store, name) is None:
                return None
            try:
                note = json.loads(self.store.footer(name)[1] or "")
                units = note["units"]
            except (DamagedError, ValueError, KeyError):
                return None
            notes = [inner and _text(inner) for inner in units["notes"]]
            return _Index(units["rows"], units["keys"], notes, list(accumulate(row_groups(note))))

        index = process_cache(f"{of_file}{self.store.state(name)}", read, replaces=of_file)
        if index is None:
            raise DamagedError(f"{self.store.path(name)}: is damaged; run again to recompute it")
        return index


class _Index(NamedTuple):
    rows: list[int]
    keys: list[str | None]
    notes: list[str | None]
    ends: list[int]  # of row groups: the rows of each and of those before it
