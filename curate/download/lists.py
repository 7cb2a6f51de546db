"""Lists of URLs in Parquet, CSV, TSV, and JSON lines, plain or compressed, which are read by ranges of rows.

A run converts each list to Parquet once, in its folder. Other processes read this copy (`share_list`).
"""

import io
import re
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby, islice
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base import ids
from curate.base.decoded_size import MAX_DECODED, check_claimed, check_decoded, read_footer
from curate.base.process import Cache, process_folder
from curate.read.columns import plain_columns
from curate.read.text_tables import MAX_VALUES, check_first_line, check_json_lines, open_text
from curate.store.layout import LISTS
from curate.store.store import RunStore

KINDS = {"parquet": "Parquet", "csv": "CSV", "tsv": "TSV"} | dict.fromkeys(("jsonl", "ndjson", "json"), "JSON lines")
TABULAR = ("csv", "tsv")
_COMPRESSED = ("gz", "bz2", "xz", "zst")
_GROUP = 10_000  # rows in a row group
_BUFFER = 1 << 16  # bytes per read of a column, if only its first rows are needed
_JSON_BYTES = 1 << 24  # bytes of JSON lines that are read at a time
_LINE_BYTES = 1 << 24  # maximum length of a JSON line, in bytes
_MAX_READ = 30_000  # columns of CSV that are read in total; a column that turns out to have another type is read again
_END = "\n" * 9
_UNFIT = re.compile(r"In CSV column #(\d+): .*conversion error to (\w+)")
# The next type to try for a column. The last type is text, or bytes if the text is not UTF-8
_WIDER: dict[str, pa.DataType] = {"null": pa.int64(), "int64": pa.float64(), "string": pa.binary()}

_converted: Cache[str] = Cache()  # converted files of this process, by digest


@dataclass(frozen=True)
class UrlList:
    """A list: a file with one of the suffixes in KINDS, and how to read it."""

    path: str
    fingerprint: str  # changes when the file changes
    storage: dict[str, Any] = field(default_factory=dict)  # options for its file system
    column_names: tuple[str, ...] | None = None  # for CSV or TSV without a header line; None if there is a header line
    texts: frozenset[str] = frozenset()  # columns (in lower case) to read as text, whatever their values are

    @property
    def kind(self) -> str | None:
        return kind_of(self.path)

    @property
    def digest(self) -> str:
        """A digest of everything that determines the rows."""
        return ids.digest([self.path, self.fingerprint, self.column_names, sorted(self.texts)])


def kind_of(path: str) -> str | None:
    """Return the entry in KINDS for a file's name, or None."""
    suffixes = path.rpartition("/")[2].lower().split(".")[1:]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else None


def describe_list(urls: UrlList) -> tuple[pa.Schema, int]:
    """Return a list's columns and number of rows. Raises pa.ArrowException if the list is damaged, and OSError."""
    with _opened(urls, None) as (file, _):
        check_claimed(file.metadata, MAX_DECODED)
        return file.schema_arrow.remove_metadata(), max(_ends(file), default=0)


def read_rows(urls: UrlList, rows: Sequence[int], run: RunStore | None = None) -> pa.Table:
    """Return the rows with these numbers (ascending, at least one), from a list or from its copy in the run's folder.

    Columns have plain types, because Arrow cannot select rows of view types. Raises pa.ArrowException if the list is
    damaged, and OSError.
    """
    with _opened(urls, run) as (file, source):
        ends, pieces = _ends(file), []
        for group, numbers in groupby(rows, partial(bisect_right, ends)):
            first = ends[group - 1] if group else 0
            checked = check_decoded(source, file.metadata, [group], None, MAX_DECODED)
            table = plain_columns(checked.read_row_group(group, use_threads=False))
            pieces.append(table.take([row - first for row in numbers]))
        return pa.concat_tables(pieces)


def read_groups(urls: UrlList) -> Iterator[pa.Table]:
    """Yield all rows in a list, in batches. Raises the same errors as `read_rows`."""
    with _opened(urls, None) as (file, source):
        for group in range(file.num_row_groups):
            checked = check_decoded(source, file.metadata, [group], None, MAX_DECODED)
            yield plain_columns(checked.read_row_group(group, use_threads=False))


def read_first_rows(urls: UrlList, count: int) -> pa.Table:
    """Return at most the first `count` rows, and read no more. Raises pa.ArrowException and OSError."""
    if urls.kind == "parquet":
        with fsspec.open(urls.path, "rb", **urls.storage) as opened:
            file = pq.ParquetFile(opened, metadata=read_footer(opened), buffer_size=_BUFFER)
            batches = islice(file.iter_batches(count, use_threads=False), 1)
            return plain_columns(pa.Table.from_batches(batches, file.schema_arrow.remove_metadata()))
    if urls.kind in TABULAR:
        with _tabular(urls, {}, '"') as batches:
            return pa.Table.from_batches(islice(batches, 1), batches.schema).slice(0, count)
    return next(_json_tables(urls, None, set()), pa.table({})).slice(0, count)


def _ends(file: pq.ParquetFile) -> list[int]:
    return list(accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)))


def share_list(urls: UrlList, run: RunStore) -> None:
    """Convert a list to Parquet in the run's folder, unless it is Parquet. The copy exists until the run ends."""
    if urls.kind != "parquet":
        with open(_convert_once(urls), "rb") as source, run.create(_shared(urls)) as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _shared(urls: UrlList) -> str:
    return f"{LISTS}/{urls.digest}.parquet"


@contextmanager
def _opened(urls: UrlList, run: RunStore | None) -> Iterator[tuple[pq.ParquetFile, Any]]:
    if urls.kind == "parquet":
        opened = fsspec.open(urls.path, "rb", **urls.storage)
    elif run is not None and run.exists(_shared(urls)):
        opened = run.open(_shared(urls))
    else:
        opened = fsspec.open(_convert_once(urls), "rb")
    with opened as file:
        yield pq.ParquetFile(file, metadata=read_footer(file), pre_buffer=False), file


def _convert_once(urls: UrlList) -> str:
    return _converted.get(urls.digest, partial(_convert, urls))


def _convert(urls: UrlList) -> str:
    """Convert a list to Parquet in this process's folder, and return the path."""
    path = f"{process_folder()}/{urls.digest}.parquet"
    if urls.kind not in TABULAR:
        names = set[str]()
        if not (schemas := [table.schema for table in _json_tables(urls, None, names)]):
            raise pa.ArrowInvalid("all lines are blank; accepted: JSON lines, one object per line")
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        with pq.ParquetWriter(path, schema) as writer:
            for table in _json_tables(urls, schema, names):
                writer.write_table(table, row_group_size=_GROUP)
        return path
    try:
        _write_tabular(urls, path, '"')
    except pa.ArrowInvalid:
        if urls.kind != "tsv":
            raise
        _write_tabular(urls, path, "")
    return path


def _json_tables(urls: UrlList, columns: pa.Schema | None, names: set[str]) -> Iterator[pa.Table]:
    import pyarrow.json  # a slow import, which lists in Parquet do not need

    options = pyarrow.json.ParseOptions(explicit_schema=columns)
    with open_text(urls.path, urls.storage) as file:
        while data := file.read(_JSON_BYTES):
            data += (rest := file.readline(_LINE_BYTES + 1))
            if len(rest) > _LINE_BYTES:
                raise pa.ArrowInvalid(f"a line is too long; accepted: at most {_LINE_BYTES:,} bytes per line")
            if data.lstrip().startswith(b"["):
                raise pa.ArrowInvalid("the file is a JSON array; accepted: JSON lines, one object per line")
            if data.strip():
                if columns is None:
                    check_json_lines(data, names)
                if data.count(b"{") * len(names) > MAX_VALUES:
                    raise pa.ArrowInvalid(f"its lines have {len(names):,} columns, most of them without a value")
                whole = pyarrow.json.ReadOptions(block_size=len(data) + 1)
                yield pyarrow.json.read_json(io.BytesIO(data), whole, options)


def _write_tabular(urls: UrlList, path: str, quote: str) -> None:
    """Convert a list in CSV or TSV. `quote` is the quotation mark, or empty for none.

    Raises pa.ArrowInvalid, also if a quoted value in a TSV file spans several lines. Then the mark does not quote.
    """
    with _tabular(urls, {}, quote) as batches:
        names = batches.schema.names
    types: dict[str, pa.DataType] = {name: pa.string() for name in names if name.lower() in urls.texts}
    for _ in range(max(1, _MAX_READ // len(names))):
        try:
            with _tabular(urls, types, quote) as batches, pq.ParquetWriter(path, batches.schema) as writer:
                for batch in batches:
                    if urls.kind == "tsv" and quote and any(map(_has_lines, batch)):
                        raise pa.ArrowInvalid("a value in quotation marks has several lines")
                    if urls.kind == "csv" and any(str(value).endswith(_END) for value in batch[-1][-1:]):
                        raise pa.ArrowInvalid("a quotation mark is not closed before the end")
                    writer.write_batch(batch, row_group_size=_GROUP)
            return
        except pa.ArrowInvalid as error:
            unfit = _UNFIT.search(str(error))
            if unfit is None:
                raise
            # All values before this one had the old type
            name, wider = names[int(unfit[1])], _WIDER.get(unfit[2], pa.string())
            if types.get(name) == wider:
                raise
            types[name] = wider
    raise pa.ArrowInvalid(f"{len(types):,} columns or more have numbers first and text later; convert it to Parquet")


@contextmanager
def _tabular(urls: UrlList, types: dict[str, pa.DataType], quote: str) -> Iterator[Any]:
    import pyarrow.csv

    is_csv, names = urls.kind == "csv", None if urls.column_names is None else list(urls.column_names)
    mark = "," if is_csv else "\t"
    if names is None:
        check_first_line(urls.path, urls.storage, mark)
    with open_text(urls.path, urls.storage) as file:
        read, convert = pyarrow.csv.ReadOptions(column_names=names), pyarrow.csv.ConvertOptions(column_types=types)
        parse = pyarrow.csv.ParseOptions(delimiter=mark, quote_char=quote or False, newlines_in_values=is_csv)
        end = iter([_END.encode() * is_csv])  # an unclosed quotation mark makes this part of the last value
        ended = SimpleNamespace(read=lambda size: file.read(size) or next(end, b""), closed=False)
        try:
            yield pyarrow.csv.open_csv(ended, read, parse, convert)
        except pa.ArrowInvalid as error:
            if "straddl" in str(error):  # a line is longer than a block
                accepted = "at most that. Maybe a quotation mark is not closed"
                raise pa.ArrowInvalid(f"a row has more than {read.block_size:,} bytes; accepted: {accepted}") from None
            raise


def _has_lines(column: pa.Array) -> bool:
    return pa.types.is_string(column.type) and bool(pc.any(pc.match_substring_regex(column, "[\t\n]")).as_py())
