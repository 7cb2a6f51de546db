"""Joins a source's files with their captions: from a table, from metadata files, or from a NAME.txt beside each image.

Names in a table are only compared with listed names, so a table cannot make curate open another file. DuckDB keeps the
rows in memory, and on disk if they are many.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files as resources
from typing import Any, ClassVar

import duckdb
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import whole
from curate.base.process import temporary_folder
from curate.base.schema import define
from curate.base.wording import one_line
from curate.download.lists import KINDS, UrlList, describe_list, read_groups
from curate.pool.files.listing import FileTree
from curate.read.columns import COLUMN_NAMES, Columns, find_column, find_columns, plain_type, valid_text
from curate.read.errors import InputError
from curate.read.listing import InputFile, list_files
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.source import Source

FILE_NAMES = ("file_name", "filename", "file", "filepath", "file_path", "image_path", "image", "path")
_TEXTS = ("caption", "uid", "url", "key", "language")
# beginnings of unsafe names
_UNSAFE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|[A-Za-z][\w+.-]*://|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
_BATCH = 1 << 14

_COUNTS = """
SELECT count(*), count(*) FILTER (status IN ('no_image', 'no_caption')),
    any_value(name ORDER BY number) FILTER (status = 'no_image') FROM rows
"""


class FileColumns(Columns):
    """Names of a caption table's columns with file names, captions, and so on, if curate does not recognize them.

    The keys of [`input.columns`](#inputcolumns) apply too, except `image`, `width`, and `height`. If you do not set
    `file`, curate uses the first of these columns that the table has: `file_name`, `filename`, `file`, `filepath`,
    `file_path`, `image_path`, `image`, `path`. If the table has none of them, curate uses a column whose name ends in
    `_file_name`.
    """

    example: ClassVar[Any] = {"file": "photo", "caption": "title"}

    file: str | None = Field(None, examples=["photo"])
    """Column with the images' file names."""
    # Keys of `Columns` that do not apply to folders of images
    image: ClassVar[None] = None  # type: ignore[misc]
    width: ClassVar[None] = None  # type: ignore[misc]
    height: ClassVar[None] = None  # type: ignore[misc]


@contextmanager
def joined(source: Source, tree: FileTree, table: Any, wanted: FileColumns, content: bool) -> Iterator[Any]:
    """Yield a database with table `rows`, and the columns of the caption tables (None if there are no such tables).

    Raises RecipeError if a table is missing or invalid, or if no image has a caption; OSError.
    """
    with temporary_folder() as folder, duckdb.connect(":memory:") as database:
        database.execute(f"SET TimeZone='UTC'; SET memory_limit='400MB'; SET temp_directory='{folder}'")
        database.execute(f"SET preserve_insertion_order=false; SET VARIABLE image_suffixes={list(IMAGE_SUFFIXES)}")
        _execute(database, "files")
        for batch in tree.list(content):
            database.register("batch", batch)
            database.execute("INSERT INTO files FROM batch")
        is_beside = not table or ("://" in tree.url) == ("://" in str(table))
        storage = source.storage if is_beside else {}
        if table:
            files = list_files(table, storage)
        else:
            metadata = database.execute("FROM metadata").fetchall()
            files = [InputFile(f"{tree.url}/{name}", size, version) for name, size, version in metadata]
        columns = _add_captions(source, database, tree.url, files, storage, wanted) if files else None
        _execute(database, "tables" if columns else "beside")
        _check(source, database, files)
        _execute(database, "others")
        yield database, columns


def _execute(database: Any, name: str) -> None:
    database.execute(resources("curate.pool.files").joinpath(f"{name}.sql").read_text("utf-8"))


def _add_captions(
    source: Source, database: Any, root: str, files: Sequence[InputFile], storage: dict[str, Any], wanted: FileColumns
) -> pa.Schema:
    """Write tables `captions` and `tables`, and return all columns. Raises RecipeError if a file is not a table."""
    named = {*FILE_NAMES, *(name for part in _TEXTS for name in COLUMN_NAMES[part])}
    named |= {name.lower() for part in ("file", *_TEXTS) if (name := getattr(wanted, part))}
    lists: list[tuple[UrlList, str]] = []
    columns, captions = pa.schema([]), dict[str | None, str]()
    for file in files:
        table = UrlList(file.path, file.fingerprint, storage, None, frozenset(named))
        if table.kind is None:
            raise source.error(f"{file.path}: is not a table; accepted: .{', .'.join(KINDS)}, plain or compressed")
        try:
            table_columns = describe_list(table)[0]
            captions.setdefault(find_columns(table_columns, wanted).caption, file.path)
            if len(captions) > 1:
                (first, path), (other, _) = captions.items()
                problem = f"its captions are in column {other!r}, but those in {path} are in {first!r}"
                raise InputError("wrong_type", f"{problem}; accepted: the same column in all tables")
            lists.append((table, _file_column(table_columns, wanted)))
            table_columns = pa.schema([f.with_type(_plain(f.type)) for f in table_columns])
            columns = pa.unify_schemas([columns, table_columns], promote_options="permissive")
            find_columns(columns, wanted)
        except InputError as fault:
            raise source.error(f"{file.path}: {fault.detail}") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise source.error(f"{file.path}: cannot be read as a table: {one_line(error, 300)}") from None
    kinds = define(number=pa.int64(), file=pa.string(), is_unsafe=pa.bool_(), beside=pa.string(), below=pa.string())
    kinds = kinds.append(pa.field("fields", pa.struct(list(columns))))
    database.register("batch", kinds.empty_table())
    database.execute("CREATE TABLE captions AS FROM batch")
    root, number = posixpath.normpath(root), 0
    for table, column in lists:
        folder = posixpath.dirname(table.path)
        for group in read_groups(table):
            for index, f in enumerate(group.schema):  # DuckDB rejects text that is not UTF-8, so it becomes null
                if pa.types.is_string(f.type):
                    group = group.set_column(index, f, valid_text(whole(group[f.name])))  # noqa: PLW2901
            whole_rows = pa.concat_tables([group, columns.empty_table()], promote_options="permissive")
            texts = group[column].to_pylist()
            names = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
            unsafe = [name is not None and _UNSAFE.match(name) is not None for name in names]
            usable = [None if bad else name for name, bad in zip(names, unsafe, strict=True)]
            beside = [name and _within(posixpath.join(folder, name), root) for name in usable]
            below = [name and posixpath.normpath(name) for name in usable]
            values = [range(number, number + len(names)), names, unsafe, beside, below]
            fields = whole(whole_rows.select(columns.names).cast(columns).to_struct_array())
            database.register("batch", pa.table([*map(pa.array, values, kinds.types), fields], schema=kinds))
            database.execute("INSERT INTO captions FROM batch")
            number += len(names)
    database.register("tables", pa.table({"name": [_within(table.path, root) for table, _ in lists]}))
    return columns


def _within(path: str, root: str) -> str | None:
    path = posixpath.normpath(path)
    return path[len(root.rstrip("/")) + 1 :] if path.startswith(f"{root.rstrip('/')}/") else None


def _plain(kind: pa.DataType) -> pa.DataType:
    kind = plain_type(kind)
    return pa.string() if pa.types.is_null(kind) else pa.float32() if pa.types.is_float16(kind) else kind


def _file_column(columns: pa.Schema, wanted: FileColumns) -> str:
    others = (name.lower() for name in columns.names if name.lower().endswith("_file_name"))
    if name := find_column(columns, "file", wanted.file, (*FILE_NAMES, *others)):
        return name
    problem = f"no column {wanted.file!r}" if wanted.file else "no column with file names"
    remedy = "name the right one with columns: {file: NAME}"
    raise InputError("wrong_type", f"{problem}; columns: {', '.join(columns.names)}; {remedy}")


def _check(source: Source, database: Any, tables: Sequence[InputFile]) -> None:
    count, bad, name = database.execute(_COUNTS).fetchall()[0]
    if not count:
        error, accepted = "no image", f"file names that end in .{', .'.join(IMAGE_SUFFIXES)}"
    elif tables:
        error = f"no file name in {tables[0].path} matches a file; for example, {name!r} does not exist"
        error = f"{tables[0].path} has no rows" if name is None else error
        accepted = "names relative to the table's folder, or to `path`"
    else:
        error = f"none of {count:,} images has a caption"
        accepted = "NAME.txt beside each image; a metadata.csv, .jsonl, or .parquet; or a caption table in `table`"
    if count == bad:
        raise source.error(f"{source.path}: {error}; accepted: {accepted}")
