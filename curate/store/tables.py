"""A unit's tables in a run folder: one Parquet file each, with a key and a note in its footer.

In: a run folder, a unit's number, and optionally the tables of the same unit in an older run, which can be adopted.
Row-aligned tables have one row per sample of the unit, in the same order. So their columns can be combined without a
join.
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

    If a table is missing here, it is adopted from another location that has it with the wanted key: from the unit's
    chunk in this run, or from `reuse`, the older run, where the unit may have another number.
    """

    store: RunStore
    unit: int
    reuse: "UnitTables | None" = None
    last: int | None = None  # for a chunk, which readers treat as one unit: the number of its last unit; otherwise None

    @property
    def locations(self) -> Iterator["UnitTables"]:
        """These tables, and then the other locations of the same unit's tables."""
        yield self
        if self.reuse is not None:
            yield from self.reuse.locations

    def file(self, table: str) -> str:
        """Return the table's file, relative to the run folder."""
        return table_file(table, self.unit, self.last)

    def exists(self, table: str) -> bool:
        return self.store.exists(self.file(table))

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return the table, or some of its columns. Raises the same errors as `RunStore.read_parquet`."""
        return self._ask(table, lambda file: file.read(columns))

    def read_measured(self, columns: list[str]) -> pa.Table:
        """Return columns of `samples`, `scores`, `related` and `matches`, or columns computed from an image's sides."""
        read: dict[str, Any] = {}

        def take(table: str, names: Collection[str]) -> None:
            if used := [name for name in columns if name in names and name not in read]:
                read.update(zip(used, self.read(table, used).columns, strict=True))

        take("samples", schema.SAMPLES.names)
        if len(read) < len({*columns}):
            with suppress(FileNotFoundError):  # not `exists`, which costs another request
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
        """Return the number of rows of the unit. The unit must be measured."""
        return self._ask("samples", lambda file: file.rows)

    def key(self, table: str) -> str | None:
        """Return the key of the table. The table must exist."""
        return self._ask(table, lambda file: file.key)

    def note(self, table: str) -> dict[str, Any]:
        text = self._ask(table, lambda file: file.note)
        return dict(json.loads(text)) if text else {}

    def notes(self, table: str) -> list[dict[str, Any]]:
        """Return the note of the unit, or the notes of all units of a chunk."""
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
        """Write the table, unless another attempt's table is in place. Returns whether this table is in place.

        A table that is not final, because a later attempt may succeed where this one failed, has no key. It is valid
        until the run's next start. `keep` returns whether an existing table stays; by default, it stays if it is valid.
        """
        name, stated = self.file(table), key if is_final else ""
        keep = keep or partial(self.keep, table, key)
        is_put = self.store.write_parquet(name, rows, stated, _text(note), keep=keep)
        self._wrote(table, rows, stated, note, is_put)
        return is_put

    def rewrite(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None = None) -> None:
        """Replace the existing table by one that is computed only from it."""
        groups = None if self.last is None else list(row_groups(note or {}))
        self.store.write_parquet(self.file(table), rows, key, _text(note), groups)
        self._wrote(table, rows, key, note, True)

    def _wrote(self, table: str, rows: pa.Table, key: str | None, note: dict[str, Any] | None, is_put: bool) -> None:
        """Called after a table was written; `is_put` says whether this table is in place."""

    def is_done(self, table: str, key: str, adopt: bool = True) -> bool:
        """Return whether the unit's table is valid here, or can be adopted from another location, which is then done.

        With `adopt` false, it is adopted only from a chunk of this run. Raises OSError if a read fails, because then
        nobody knows whether the table is valid.
        """
        name = self.file(table)
        if has_key(self.store, name, key, since_start=True) and valid_digest(self.store, name):
            return True
        self.drop_read(table)
        others = (other for other in self.locations if other is not self and (adopt or other.store == self.store))
        return any(other.has_key(table, key) and self._adopt(table, key, other) for other in others)

    def find(self, table: str, key: str, by_footer: bool = False) -> "UnitTables | None":
        """Return the first location whose table has this key and is valid.

        With `by_footer`, check only the key in the footer.
        """
        for tables in self.locations:
            if tables.has_key(table, key) and (by_footer or tables.is_valid(table)):
                return tables
        return None

    def is_valid(self, table: str) -> bool:
        """Return whether the table exists and is valid with any key. This reads the whole file."""
        return self.exists(table) and valid_digest(self.store, self.file(table)) is not None

    def has_key(self, table: str, key: str) -> bool:
        return has_key(self.store, self.file(table), key)

    def keep(self, table: str, key: str) -> bool:
        """Return whether another attempt's table is valid, so that this attempt discards its own."""
        name = self.file(table)
        return has_key(self.store, name, key, since_start=True) and bool(valid_digest(self.store, name, is_new=True))

    def drop_read(self, table: str) -> None:
        """Forget a table's content in memory, because its file has changed."""

    def _adopt(self, table: str, key: str, other: "UnitTables") -> bool:
        """Copy the table from another location, and change the unit's number in it. Return False if it is damaged."""
        is_alike = other.unit == self.unit or "unit" not in other.column_names(table)
        if is_alike and not isinstance(other, ChunkTables):  # the chunk's file also has tables of other units
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
    """Undo Parquet's renaming of list items, so that equal tables give equal bytes."""
    columns = rows.schema
    for index, column in enumerate(columns):
        if isinstance(column.type, pa.ListType | pa.FixedSizeListType):
            size = column.type.list_size if isinstance(column.type, pa.FixedSizeListType) else -1
            columns = columns.set(index, column.with_type(pa.list_(column.type.value_type, size)))
    return rows.cast(columns)


@dataclass(frozen=True)
class OpenTables(UnitTables, AbstractContextManager["OpenTables"]):
    """A unit's tables during a step: each file is opened once, each column is read once. Written tables are not read.

    A missing file is looked up once, unless the step writes it. Use it as a context manager, which closes its files.
    """

    names: tuple[str, ...] | None = None  # tables that units have; other tables are not looked up; None: any
    written: set[str] = field(default_factory=set, compare=False)  # names of the tables that the step has written
    _files: dict[str, TableFile | None] = field(default_factory=dict, compare=False)

    def exists(self, table: str) -> bool:
        return (self.names is None or table in self.names) and super().exists(table)

    def read_uids(self) -> pa.ChunkedArray:
        """Return each row's uid (string[rows]), if possible from an open table: every row-aligned table has them."""
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
        """Keep the table for later reads. If another attempt's table is in place, later reads use that one."""
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
    """A unit's tables in the files of its chunk. They are read-only."""

    chunk: Chunk

    def file(self, table: str) -> str:
        """Return the name of the file that has the tables of all units in the chunk."""
        return table_file(table, *self.chunk)

    def _ask(self, table: str, question: Callable[[TableFile], Answer]) -> Answer:
        index, position = self._index(table), self.unit - self.chunk.first
        first, count = sum(index.rows[:position]), index.rows[position]
        number = bisect_right(index.ends, first) if count else 0
        rows = self._group(table, number).slice(first - index.ends[number - 1] if number else first, count)
        return question(TableFile.of(rows, footer_metadata(index.keys[position], index.notes[position])))

    def _group(self, table: str, number: int) -> pa.Table:
        """Return a row group of the chunk's file.

        The last one of each table is cached, because units are read in order.
        """
        name, of_table = self.file(table), f"group of {self.store.url} {table} "

        def read() -> pa.Table:
            with self.store.open_parquet(name) as file:
                return file.read_group(number)

        return process_cache(f"{of_table}{name} {self.store.state(name)} {number}", read, replaces=of_table)

    def has_key(self, table: str, key: str) -> bool:
        return self.is_valid(table) and self._index(table).keys[self.unit - self.chunk.first] == key

    def is_valid(self, table: str) -> bool:
        """Return whether the chunk's file exists and is valid. Each process reads the whole file once."""
        with suppress(FileNotFoundError, NotADirectoryError, DamagedError):
            return bool(self._index(table))
        return False

    def _index(self, table: str) -> "_Index":
        """Return the index of the chunk's file, read once per process and state. Raises OSError or DamagedError."""
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
    ends: list[int]  # the number of rows up to the end of each row group
