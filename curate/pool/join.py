"""Adds columns from a user's files to a source's rows, by key, URL, or uid (`input[].join`).

The files are Parquet or CSV with unique keys, or .npy files of uids (DataComp's subsets), which have the columns `uid`
and `times` (int32). A process reads them once and writes them to buckets on the machine's disk. Each bucket is sorted
by the keys' hashes (xxh3-128; a uid is its own hash). While sorting, memory holds one bucket; later, only the pages
that contain a unit's rows.
"""

import os
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from curate.base import ids
from curate.base.decoded_size import MAX_DECODED, check_decoded, read_footer
from curate.base.errors import RecipeError, RunError, reraised
from curate.base.numeric.arrays import I64, U64, whole
from curate.base.process import process_cache
from curate.base.wording import did_you_mean
from curate.read.columns import COLUMN_NAMES, SCORE_TYPES, score_column, score_type, unify_scores
from curate.read.listing import InputFile, list_files
from curate.read.text_tables import check_first_line, open_text
from curate.recipe.files import read_npy_header
from curate.recipe.source import Join

KEYS = ("key", "url", "uid")  # possible keys for lookup in rows of any source
_BATCH = 1 << 16  # rows per read
_BUCKET = 1 << 20  # rows per bucket, about
_ROW_BYTES = 16  # the minimum in a file, about
_MAX_BUCKETS = 1024  # files open at once
_PAIR = np.dtype("u8,u8")
_NOT_PYTHON = (SyntaxError, TypeError, tokenize.TokenError)  # the header of an .npy is Python
_UID_LIST = pa.schema([("uid", pa.string())]).append(pa.field("times", pa.int32()))  # of an .npy


def identify_join(join: Join, where: str) -> tuple[pa.Schema, str]:
    """Read a join's files; return its columns for table `scores`, and a digest of what determines them.

    Raises a RecipeError that begins with `where` if a file is missing, is unreadable, or lacks columns, or a key is not
    unique.
    """
    files, digest = _list(join, where)
    return process_cache(f"join {digest}", partial(_read, join, files, where)).columns, digest


def open_join(join: Join, digest: str) -> "JoinTable":
    """Return the table of an identified join; each process reads it once. Raises RunError if files have changed."""

    def read() -> JoinTable:
        where = f"join of {join.path}"
        files, now = _list(join, where)
        if now != digest:
            raise RunError(f"{where}: its files changed since the run was planned; run again")
        return _read(join, files, where)

    return process_cache(f"join {digest}", read)


class JoinTable:
    """The rows of a join in buckets, sorted by the hashes of their keys."""

    def __init__(self, on: str, columns: pa.Schema, buckets: int, times: Sequence[str] | None = None) -> None:
        """`times` are the columns (int32) that count how often a key occurs; None if keys are unique."""
        self.on, self.columns, self._count, self._times = on, columns, buckets, times
        self._buckets: list[pa.Table] = []

    def look_up(self, keys: pa.Array) -> pa.Table:
        """Return the columns of the rows with these keys (string[rows]); null if a key is null or missing."""
        rows, high, low = _hash_keys(self.on, keys)
        numbers = self._numbers(high)
        parts, rows_of_parts = [self.columns.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(numbers):
            bucket, in_bucket = self._buckets[number], numbers == number
            # mapped from the file, not copied
            highs, lows = (whole(bucket[half]).to_numpy() for half in ("high", "low"))
            at = _search(highs, lows, high[in_bucket], low[in_bucket])
            parts.append(bucket.select(self.columns.names).take(at[at >= 0]))
            rows_of_parts.append(rows[in_bucket][at >= 0])
        positions = np.full(len(keys), -1)
        positions[np.concatenate(rows_of_parts)] = np.arange(sum(map(len, rows_of_parts)))
        return pa.concat_tables(parts).take(pa.array(positions, mask=positions < 0))

    def fill(self, batches: Iterator[tuple[pa.Array, pa.Table]]) -> tuple[U64, U64] | None:
        """Add batches of keys (string) and columns. If keys must be unique, return the first duplicate's hash."""
        fields = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), *self.columns])
        # The files are deleted when this block ends; their maps last until the process ends, however it does.
        with tempfile.TemporaryDirectory(prefix="curate-join-") as folder:
            names = [os.path.join(folder, str(number)) for number in range(self._count)]
            with ExitStack() as stack:
                writers = [stack.enter_context(pa.ipc.new_stream(f"{name}.unsorted", fields)) for name in names]
                for keys, values in batches:
                    rows, high, low = _hash_keys(self.on, keys)
                    table = pa.table([pa.array(high), pa.array(low), *values.take(rows).columns], schema=fields)
                    numbers = self._numbers(high)
                    for number in np.unique(numbers):
                        writers[number].write_table(table.filter(pa.array(numbers == number)))
            for name in names:
                with pa.OSFile(f"{name}.unsorted", "r") as file:
                    table = pa.ipc.open_stream(file).read_all()
                os.unlink(f"{name}.unsorted")
                high, low = (table[half].to_numpy() for half in ("high", "low"))
                order = np.lexsort((low, high))
                high, low = high[order], low[order]
                is_first = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))[: len(high)]
                if self._times is None and not is_first.all():
                    return high[~is_first][:1], low[~is_first][:1]
                table = table.take(order[is_first]).combine_chunks()
                times = pa.array(np.diff(np.flatnonzero(is_first), append=len(high)), pa.int32())
                for column in self._times or ():
                    table = table.set_column(fields.get_field_index(column), fields.field(column), times)
                with pa.ipc.new_file(name, fields) as writer:
                    writer.write_table(table)
                self._buckets.append(pa.ipc.open_file(pa.memory_map(name)).read_all())
        return None

    def _numbers(self, high: U64) -> I64:
        return ((high >> np.uint64(32)) * np.uint64(self._count) >> np.uint64(32)).astype(np.int64)


def _search(highs: U64, lows: U64, high: U64, low: U64) -> I64:
    if not len(highs):
        return np.full(len(high), -1)
    at = np.searchsorted(highs, high)
    while True:  # rows with equal high halves are adjacent, which an input's own uids may have
        inside = np.minimum(at, len(highs) - 1)
        same = (at < len(highs)) & (highs[inside] == high)
        later = same & (lows[inside] < low)
        if not later.any():
            return np.where(same & (lows[inside] == low), at, -1)
        at = at + later


def _hash_keys(on: str, keys: pa.Array) -> tuple[I64, U64, U64]:
    """Return the indices of the rows that have a key, and the two halves of each key's hash.

    Raises ValueError for an invalid uid.
    """
    rows = np.flatnonzero(pc.not_equal(keys, pa.scalar("")).fill_null(False).to_numpy(zero_copy_only=False))
    present = keys.take(rows)
    hashes = pc.ascii_lower(present) if on == "uid" else ids.hash_pairs(pa.nulls(len(present), pa.string()), present)
    return rows, *ids.uid_halves(hashes)


def _list(join: Join, where: str) -> tuple[list[InputFile], str]:
    with reraised(RecipeError, where, RecipeError, OSError, ImportError, ValueError):
        files = list_files(join.path, {}, content=True)
    if empty := next((file.path for file in files if not file.size), None):
        raise RecipeError(f"{where}: {empty} has 0 bytes; accepted: Parquet, CSV, or a .npy of uids")
    return files, ids.digest([1, join.on, list(join.columns.items()), [file.fingerprint for file in files]])


def _read(join: Join, files: Sequence[InputFile], where: str) -> JoinTable:
    """Raises RecipeError if files cannot be read, or have different types."""
    names = join.columns.items()
    with reraised(RecipeError, where, pa.ArrowException, OSError, ValueError):
        readers = [_open(file.path, join, where) for file in files]
        rows = sum(reader.rows or file.size // _ROW_BYTES for reader, file in zip(readers, files, strict=True))
        types = [[(new, score_type(reader.columns.field(old).type)) for new, old in names] for reader in readers]
        with reraised(RecipeError, f"{where}.columns: the files have a column in different types", pa.ArrowException):
            columns = unify_scores([pa.schema([(n, kind) for n, kind in of_file if kind]) for of_file in types])
        are_lists = all(reader.form == "npy" for reader in readers)
        times = [new for new, old in names if old == "times"] if are_lists else None
        table = JoinTable(join.on, columns, min(_MAX_BUCKETS, 1 + rows // _BUCKET), times)
        twice = table.fill(_renamed(readers, join, columns))
    if twice is not None:
        problem = _find_twice(readers, join, columns, twice)
        raise RecipeError(f"{where}: {problem}; accepted: one row for each {join.on}")
    return table


@dataclass(frozen=True)
class _Reader:
    """A file of a join: its columns, its rows (None if unknown), and its key column."""

    path: str
    form: str
    columns: pa.Schema
    rows: int | None
    key: str

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys([self.key, *names]))
        with _opened(self.path) as file:
            if self.form == "npy":
                remaining = _npy_rows(file, self.path)
                while data := file.read(_BATCH * _PAIR.itemsize):
                    pairs = np.frombuffer(data, _PAIR)
                    uids = ids.hex_uids(pairs["f0"], pairs["f1"])
                    remaining -= len(uids)
                    yield pa.record_batch([uids, pa.repeat(pa.scalar(1, pa.int32()), len(uids))], schema=_UID_LIST)
                if remaining:
                    differ = "fewer" if remaining > 0 else "more"
                    raise ValueError(f"{self.path}: has {abs(remaining):,} {differ} uids than its header says")
            elif self.form == "csv":
                types = {name: self.columns.field(name).type for name in wanted}
                options = pcsv.ConvertOptions(include_columns=wanted, column_types=types)
                yield from pcsv.open_csv(file, convert_options=options)
            else:
                footer = read_footer(file)
                for group in range(footer.num_row_groups):
                    checked = check_decoded(file, footer, [group], wanted, MAX_DECODED)
                    yield from checked.iter_batches(_BATCH, [group], wanted, use_threads=False)


def _open(path: str, join: Join, where: str) -> _Reader:
    """Raises RecipeError if the file lacks columns."""
    rows = None
    with _opened(path) as file:
        magic = file.read(6)
    with _opened(path) as file:  # open again, because a compressed file cannot seek back
        if magic[:4] == b"PAR1":
            form, footer = "parquet", read_footer(file)
            columns, rows = footer.schema.to_arrow_schema(), footer.num_rows
        elif magic == b"\x93NUMPY":
            form, rows, columns = "npy", _npy_rows(file, path), _UID_LIST
        else:
            check_first_line(path, {}, ",")
            form, columns = "csv", pcsv.open_csv(file).schema
    column_names = ", ".join(columns.names)[:300]
    by_lower = {name.lower(): name for name in reversed(columns.names)}
    key_names = COLUMN_NAMES[join.on] if join.on in KEYS else (join.on.lower(),)
    key = next((by_lower[name] for name in key_names if name in by_lower), None)
    if key is None:
        accepted = " or ".join(key_names)
        raise RecipeError(f"{where}: {path} has no column {accepted} to join on; columns: {column_names}")
    for name in (key, *join.columns.values()):
        if columns.names.count(name) > 1:
            problem = f"{path} has two columns {name!r}"
            raise RecipeError(f"{where}: {problem}; accepted: one column for each name that the join uses")
    if form == "csv":  # in CSV, 00012 must stay text
        columns = columns.set(columns.get_field_index(key), pa.field(key, pa.string()))
    if score_type(columns.field(key).type) != pa.string():
        problem = f"column {key!r} is {columns.field(key).type}"
        raise RecipeError(f"{where}: {path}: {problem}; accepted: text, like the pool's keys")
    for name in join.columns.values():
        if name not in columns.names:
            hint = did_you_mean(name, columns.names)
            raise RecipeError(f"{where}.columns: {path} has no column {name!r}; {hint}columns: {column_names}")
        if score_type(kind := columns.field(name).type) is None:
            raise RecipeError(f"{where}.columns: {path}: column {name!r} is {kind}; accepted: {SCORE_TYPES}")
    return _Reader(path, form, columns, rows, key)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    unread = reraised(ValueError, f"{path}: cannot be read", pa.ArrowException, OSError, ValueError, *_NOT_PYTHON)
    with unread, open_text(path, {}) as file:
        yield file


def _npy_rows(file: Any, path: str) -> int:
    """Return the number of uids in an .npy; the file is then at the first. Raises ValueError for other contents."""
    shape, _, kind = read_npy_header(file)
    if kind == _PAIR and len(shape) == 1:
        return shape[0]
    raise ValueError(f"{path}: not an array of uids; accepted: dtype u8,u8, as in uids.npy and DataComp's subset files")


def _renamed(readers: Sequence[_Reader], join: Join, columns: pa.Schema) -> Iterator[tuple[pa.Array, pa.Table]]:
    for reader in readers:
        first = 1
        for batch in reader.batches(list(join.columns.values())):
            values = [score_column(batch[old], columns.field(new).type) for new, old in join.columns.items()]
            keys = score_column(batch[reader.key], pa.string())
            is_key = pc.match_substring_regex(keys, r"\A([0-9a-fA-F]{32})?\z" if join.on == "uid" else "")
            if (bad := pc.index(is_key, False).as_py()) >= 0:
                raise ValueError(f"{reader.path}, row {first + bad:,}: uid {keys[bad].as_py()!r} is not 32 hex digits")
            first += len(keys)
            yield keys, pa.table(values, schema=columns)


def _find_twice(readers: Sequence[_Reader], join: Join, columns: pa.Schema, twice: tuple[U64, U64]) -> str:
    """Return a message: which key occurs twice, and in which rows of which files.

    `twice` are the two halves of the key's hash. Rows are numbered from 1.
    """
    key, locations = None, list[str]()
    for reader in readers:
        first = 1
        for keys, _ in _renamed([reader], join, columns):
            rows, high, low = _hash_keys(join.on, keys)
            for row in rows[(high == twice[0]) & (low == twice[1])].tolist():
                key = keys[row].as_py()
                locations.append(f"{reader.path} (row {first + row:,})")
            first += len(keys)
    return f"{join.on} {key!r} occurs twice: {' and '.join(locations[:2])}"
