"""Puts the files of a source together with their captions: of a table, of metadata files, or of a NAME.txt beside each.

In: what `FileTree` lists, and tables. Out: batches of PLANNED, sorted by name: a row for each caption and each image
without one. What is neither is there to be counted. A name that a table states is only compared with the names that
are listed: no file is reached by it. Texts in NAME.txt are read when they are measured. Memory: DuckDB's, which puts
what is more into temporary files.
"""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base.numeric.arrays import whole
from curate.base.process import temporary_folder
from curate.base.wording import one_line
from curate.download.lists import KINDS, UrlList, describe_list, kind_of, read_groups
from curate.pool.files.listing import FileTree
from curate.read.columns import COLUMN_NAMES, Columns, find_columns, is_any, plain_type
from curate.read.faults import InputFault
from curate.read.listing import InputFile, list_files
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.source import Source

PLANNED = pa.schema(
    [
        ("name", pa.string()),  # of the image, relative to the source's root
        ("size", pa.int64()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),  # `ok`, or why there is no sample
        ("error", pa.string()),
        ("text", pa.string()),  # name, size and fingerprint of the file that has the caption, if one does
        ("text_size", pa.int64()),
        ("text_fingerprint", pa.string()),
        ("other", pa.string()),  # the suffix of a file that is no row, which has nothing else
        ("digest", pa.string()),  # of the table's columns
    ]
)  # and, from tables, struct `fields`: the table's columns
FILE_NAMES = ("file_name", "filename", "file", "filepath", "file_path", "image_path", "image", "path")
_METADATA = tuple(f"metadata.{kind}" for kind in ("csv", "jsonl", "parquet"))
_TEXTS = ("caption", "uid", "url", "key", "language")
_BATCH = 1 << 14
_UNSAFE_NAME = r"^/|^\\\\|^[A-Za-z]:[\\/]|^[A-Za-z][A-Za-z0-9+.-]*://|(^|[/\\])\.\.([/\\]|$)"
_MEMORY = "400MB"

_FILES = """
CREATE TABLE files (name VARCHAR, size BIGINT, fingerprint VARCHAR, status VARCHAR, error VARCHAR, is_chosen BOOLEAN);
CREATE VIEW named AS SELECT *, rowid AS id, lower(regexp_extract(name, '\\.([^./]+)$', 1)) AS suffix FROM files;
CREATE VIEW placed AS SELECT *, if(suffix = '', name, name[:-len(suffix) - 2]) AS stem,
    is_chosen AND (ends_with(name, '/') OR list_contains($images, suffix)) AS is_row FROM named
"""
# An image's own fault comes before that of its text
_BESIDE = """
CREATE TABLE texts AS SELECT stem, unnest(arg_min(struct_pack(id, name, size, fingerprint, status, error), name))
    FROM placed WHERE suffix = 'txt' GROUP BY stem;
CREATE VIEW rows AS SELECT i.name, i.size, i.fingerprint, 0 AS number, NULL AS digest,
    CASE WHEN i.status <> 'ok' THEN i.status ELSE coalesce(t.status, 'no_caption') END AS status,
    CASE WHEN i.status <> 'ok' THEN i.error WHEN t.status IS NULL THEN 'there is no NAME.txt beside it' ELSE t.error
    END AS error, t.name AS text, t.size AS text_size, t.fingerprint AS text_fingerprint
    FROM placed i LEFT JOIN texts t USING (stem) WHERE i.is_row;
CREATE VIEW others AS SELECT name, suffix FROM placed
    WHERE is_chosen AND NOT is_row AND id NOT IN (SELECT t.id FROM texts t JOIN placed i USING (stem) WHERE i.is_row)
"""
_FROM_TABLES = """
CREATE TABLE matched AS SELECT number, arg_min(id, rank) AS id FROM (
    SELECT t.number, f.id, 0 AS rank FROM captions t JOIN placed f ON f.name = t.beside WHERE f.is_chosen
    UNION ALL SELECT t.number, f.id, 1 FROM captions t JOIN placed f ON f.name = t.below WHERE f.is_chosen
) GROUP BY number;
CREATE VIEW rows AS
    SELECT coalesce(f.name, t.file, '') AS name, f.size, f.fingerprint, t.number, t.fields,
        md5(to_json(t.fields)::VARCHAR) AS digest, NULL AS text, NULL AS text_size, NULL AS text_fingerprint,
        CASE WHEN t.is_unsafe THEN 'unsafe_path' ELSE coalesce(f.status, 'no_image') END AS status,
        CASE WHEN t.is_unsafe THEN 'an absolute name, a URL, or one with ..'
            ELSE if(f.id IS NULL, 'no file has this name, by the table''s folder or by `path`', f.error) END AS error
    FROM captions t LEFT JOIN matched USING (number) LEFT JOIN placed f USING (id)
    UNION ALL BY NAME SELECT name, size, fingerprint, 0 AS number,
        if(status = 'ok', 'no_caption', status) AS status, if(status = 'ok', 'no table has its name', error) AS error
    FROM placed WHERE is_row AND id NOT IN (SELECT id FROM matched);
CREATE VIEW others AS SELECT name, suffix FROM placed WHERE is_chosen AND NOT is_row
    AND id NOT IN (SELECT id FROM matched) AND NOT list_contains($tables, name)
"""


class FileColumns(Columns):
    """Which column of a table of captions holds what, where it is not found by its name.

    Here are the other keys and names of [`input.columns`](#inputcolumns) too, but `image`, `width` and `height`. File
    names are in the first of the columns `file_name`, `filename`, `file`, `filepath`, `file_path`, `image_path`,
    `image`, `path`, else in the one whose name ends in `_file_name`.
    """

    example: ClassVar[Any] = {"file": "photo", "caption": "title"}

    file: str | None = Field(None, examples=["photo"])
    """Column of file names."""


@dataclass(frozen=True)
class CaptionTables:
    """Tables of captions with one set of columns."""

    lists: tuple[UrlList, ...]
    columns: pa.Schema
    file: str  # the column of file names


def find_tables(source: Source, table: str | tuple[str, ...], wanted: FileColumns) -> CaptionTables | None:
    """Return the tables that a source names. Raises RecipeError where one is missing, or is none."""
    if not table:
        return None
    is_beside = ("://" in source.paths[0]) == ("://" in (table if isinstance(table, str) else table[0]))
    try:
        return _describe(source, list_files(table, source.storage if is_beside else {}), wanted, is_beside)
    except (OSError, ImportError, ValueError) as error:
        raise source.error(f"table: {error}") from None


def _describe(source: Source, files: Sequence[InputFile], wanted: FileColumns, is_beside: bool) -> CaptionTables:
    """Return files as tables. Raises RecipeError where one is none, lacks a column, or does not fit the others."""
    named = (getattr(wanted, name) for name in ("file", *_TEXTS))
    texts = {*FILE_NAMES, *(name for of in _TEXTS for name in COLUMN_NAMES[of]), *filter(None, named)}
    storage = source.storage if is_beside else {}
    lists, schemas, file_columns = [], [], set[str]()
    for file in files:
        if kind_of(file.path) is None:
            kinds = ", ".join(f".{name}" for name in KINDS)
            raise source.error(f"{file.path}: no table, by its name; accepted: {kinds}, plain or packed")
        table = UrlList(file.path, file.fingerprint, storage, None, frozenset(map(str.lower, texts)))
        try:
            schema, _ = describe_list(table)
            schema = pa.schema([field.with_type(_readable(field.type)) for field in schema])
            find_columns(schema, wanted)
            file_columns.add(_find_file_column(schema, wanted))
        except InputFault as fault:
            raise source.error(f"{file.path}: {fault.detail}") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise source.error(f"{file.path}: cannot be read as a table: {one_line(error, 300)}") from None
        lists.append(table)
        schemas.append(schema)
    try:
        columns = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise source.error(f"tables: columns of one name hold different types: {one_line(error)}") from None
    if len(file_columns) > 1:
        raise source.error(f"tables: file names are in columns {', '.join(sorted(file_columns))}; accepted: in one")
    names = [name.lower() for name in columns.names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise source.error(f"tables: columns differ in case only ({twice[0]}); rename one")
    return CaptionTables(tuple(lists), columns, file_columns.pop())


def _readable(kind: pa.DataType) -> pa.DataType:
    """Return a type that DuckDB has."""
    kind = plain_type(kind)
    return pa.string() if pa.types.is_null(kind) else pa.float32() if pa.types.is_float16(kind) else kind


def _find_file_column(schema: pa.Schema, wanted: FileColumns) -> str:
    """Return the column of file names. Raises InputFault without one, or with several."""
    by_lower = {name.lower(): name for name in reversed(schema.names)}
    names = [by_lower[name] for name in FILE_NAMES if name in by_lower][:1]
    names = names or [name for name in schema.names if name.lower().endswith("_file_name")]
    if wanted.file:
        names = [wanted.file] if wanted.file in schema.names else []
    if len(names) != 1:
        what = f"columns {', '.join(names)} hold file names" if names else f"no column {wanted.file or 'of file names'}"
        remedy = "name one with columns: {file: NAME}"
        raise InputFault("wrong_type", f"{what}; columns: {', '.join(schema.names)}; {remedy}")
    if not is_any(kind := schema.field(names[0]).type, pa.types.is_string, pa.types.is_large_string):
        raise InputFault("wrong_type", f"file column {names[0]!r} is {kind}; accepted: text")
    return names[0]


@dataclass(frozen=True)
class JoinedFiles:
    """The files of a source with their captions, in a database that is gone with the block."""

    tables: CaptionTables | None
    weight: int  # bytes of all rows' images, and `row_bytes` for each
    rows: int
    _connection: Any

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield PLANNED, sorted by name, with `fields` from tables."""
        fields = ", fields" if self.tables else ""
        sql = f"SELECT {', '.join(PLANNED.names)}{fields} FROM planned ORDER BY name, number"
        yield from self._connection.sql(sql).to_arrow_reader(_BATCH)


@contextmanager
def join_captions(
    source: Source, tree: FileTree, tables: CaptionTables | None, wanted: FileColumns, content: bool, row_bytes: int
) -> Iterator[JoinedFiles]:
    """Yield the files of a tree with their captions, of which `tables` has the first say.

    Raises RecipeError where there are no images, or none has a caption, and OSError.
    """
    with temporary_folder() as folder, duckdb.connect(":memory:") as connection:
        settings = f"SET TimeZone='UTC'; SET memory_limit='{_MEMORY}'; SET temp_directory='{folder}'"
        connection.execute(f"{settings}; SET preserve_insertion_order=false")
        connection.execute(_FILES.replace("$images", str(list(IMAGE_SUFFIXES))))
        for batch in tree.list(content):
            connection.register("batch", pa.table(batch))
            connection.execute("INSERT INTO files SELECT * FROM batch")
        metadata = [] if tables else _find_metadata(source, tree, connection)
        if metadata:
            tables = _describe(source, metadata, wanted, True)
        if tables:
            _insert_captions(tables, tree, connection, with_below=not metadata)
            names = [_relative(table.path, tree.full_path("")) or "" for table in tables.lists]
            quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
            connection.execute(_FROM_TABLES.replace("$tables", f"[{quoted}]"))
        else:
            connection.execute(_BESIDE)
        connection.execute("CREATE TABLE planned AS SELECT *, NULL AS other FROM rows")
        counts = "count(*), coalesce(sum(size), 0)::BIGINT, count_if(status NOT IN ('no_image', 'no_caption'))"
        rows, size, usable = connection.execute(f"SELECT {counts} FROM planned").fetchone()
        _check_rows(source, tables, rows, usable, connection)
        connection.execute(
            "INSERT INTO planned BY NAME SELECT name, if(suffix = '' OR len(suffix) > 10, 'other', suffix) AS other "
            "FROM others"
        )
        yield JoinedFiles(tables, size + rows * row_bytes, rows, connection)


def _find_metadata(source: Source, tree: FileTree, connection: Any) -> list[InputFile]:
    """Return the metadata files of a tree. Raises RecipeError where one cannot be read."""
    sql = "SELECT name, size, fingerprint, error FROM files WHERE list_contains($1, parse_filename(name)) ORDER BY name"
    files = []
    for name, size, fingerprint, error in connection.execute(sql, [list(_METADATA)]).fetchall():
        if error:
            raise source.error(f"{tree.full_path(name)}: {error}")
        files.append(InputFile(tree.full_path(name), size, fingerprint))
    return files


def _relative(path: str, folder: str) -> str | None:
    """Return a path below a folder relative to it; None for another."""
    start = f"{folder.rstrip('/')}/"
    return path[len(start) :] if path.startswith(start) else None


def _insert_captions(tables: CaptionTables, tree: FileTree, connection: Any, with_below: bool) -> None:
    """Write table `captions`: of each row its number, file names relative to the root, and struct `fields`."""
    root, number = tree.full_path(""), 0
    struct = pa.struct(list(tables.columns))
    kinds = [("number", pa.int64()), ("file", pa.string()), ("is_unsafe", pa.bool_())]
    schema = pa.schema([*kinds, ("beside", pa.string()), ("below", pa.string()), ("fields", struct)])
    connection.register("batch", schema.empty_table())
    connection.execute("CREATE TABLE captions AS SELECT * FROM batch")
    for table in tables.lists:
        folder = posixpath.dirname(table.path)
        for group in read_groups(table):
            values = [group[f.name] if f.name in group.column_names else pa.nulls(len(group)) for f in tables.columns]
            fields = pa.table(
                [column.cast(f.type) for column, f in zip(values, tables.columns, strict=True)], tables.columns
            )
            stated = whole(group[tables.file].cast(pa.string()))
            is_unsafe = pc.match_substring_regex(stated, _UNSAFE_NAME)
            file = pc.replace_substring_regex(pc.replace_substring_regex(stated, r"/(\.?/)+", "/"), r"^(\./)+", "")
            none = pa.scalar(None, pa.string())
            beside = pc.if_else(is_unsafe, none, _below(file, folder, root))
            below = pc.if_else(is_unsafe, none, file) if with_below else pa.nulls(len(file), pa.string())
            numbers = pa.array(range(number, number + len(group)), pa.int64())
            columns = [numbers, stated, is_unsafe, beside, below, whole(fields.to_struct_array())]
            connection.register("batch", pa.table(columns, schema=schema))
            connection.execute("INSERT INTO captions SELECT * FROM batch")
            number += len(group)


def _below(files: pa.Array, folder: str, root: str) -> pa.Array:
    """Return names that count from a folder as names that count from the root; null for a file that is not below."""
    if folder == root:
        return files
    if (inner := _relative(folder, root)) is not None:
        return pc.binary_join_element_wise(pa.scalar(inner), files, "/")
    if (outer := _relative(root, folder)) is None:
        return pa.nulls(len(files), pa.string())
    start = f"{outer}/"
    rest = pc.utf8_slice_codeunits(files, len(start))
    return pc.if_else(pc.starts_with(files, start), rest, pa.scalar(None, pa.string()))


def _check_rows(source: Source, tables: CaptionTables | None, rows: int, usable: int, connection: Any) -> None:
    """Raise RecipeError where there are no images, or none has a caption."""
    if usable:
        return
    paths = ", ".join(source.paths)[:300]
    if not rows:
        raise source.error(f"{paths}: no image; accepted: files in {', '.join(IMAGE_SUFFIXES)}")
    if tables is None:
        where = "no NAME.txt beside it, no metadata.csv, .jsonl or .parquet, and no `table`"
        raise source.error(f"{paths}: none of {rows:,} images has a caption: {where}; name a table of captions")
    sql = "SELECT count(*), any_value(name ORDER BY number) FROM planned WHERE status = 'no_image'"
    count, name = connection.execute(sql).fetchone()
    what = f"none of {count:,} names in {tables.lists[0].path} is a file: {name[:100]!r}"
    raise source.error(f"{what}; accepted: names that count from the table's folder, or from {paths}")
