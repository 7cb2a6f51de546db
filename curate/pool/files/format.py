"""Reads images in folders, with captions from a table, from metadata files, or from a .txt file beside each image.

A part is a range of consecutive rows, sorted by name. Parts must stay small and cannot carry their rows' names. So
planning writes the names to Parquet files, which the parts' fingerprints identify. Until the run ends, its folder has
copies of these files for other processes. Images and texts are read when they are measured. If a file has changed since
it was listed, the run ends.
"""

import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from operator import not_
from typing import Any, ClassVar, Self

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, PrivateAttr

from curate.base import ids
from curate.base.errors import reraised
from curate.base.numeric.arrays import Mask, whole
from curate.base.process import in_threads, process_folder, read_ahead
from curate.base.schema import OK
from curate.base.wording import pluralize
from curate.download.lists import kind_of
from curate.pool.files.captions import FILE_NAMES, joined
from curate.pool.files.captions import FileColumns as FileNames
from curate.pool.files.listing import FileTree
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles, name_columns, read_head, texts_of
from curate.pool.formats.grouping import group, group_size
from curate.pool.formats.input_format import Batches, InputPart, InputSample, PartRows, PlannedSource
from curate.read.columns import COLUMN_NAMES, find_columns, json_columns, text_columns
from curate.read.field_types import count_columns
from curate.read.listing import HASHED, InputFile, check_state
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.section import UserPath, UserPaths
from curate.recipe.source import Source
from curate.store.layout import LISTS
from curate.store.store import RunStore
from curate.tar.byte_sources import errors_of, open_copy

_COMPARABLE = (HASHED, "mtime:", "etag:", "ETag:")  # versions that a listing and a look at one file give equally
_MAPPED = 1 << 26  # larger files are mapped into memory instead of read
_IMAGES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
_TABLES, _FOLDERS, _VALUES = 10, 20, 5  # how many to try: tables, folders that names may be relative to, and names
_NAMES = COLUMN_NAMES | {"file": FILE_NAMES}


ROW_BYTES = 1 << 14  # a row's overhead besides its image
PART_BYTES = (1 << 10, 1 << 28)  # part sizes for small and large sources
_PARTS = 64  # a small source is split into about so many parts
_BATCH, _ABOUT = 1 << 14, b"curate"


class PartFiles:
    """The rows of a part, and their files."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows, about = rows, json.loads(rows.schema.metadata[_ABOUT])
        self.root: str = about["root"]  # folder that names are relative to
        self.others: dict[str, int] = about["others"]  # other files, counted by suffix
        fields: Any = whole(rows["fields"]) if "fields" in rows.column_names else None
        # The tables' columns for each row; None without tables
        self.table = None if fields is None else pa.table(fields.flatten(), names=[f.name for f in fields.type])

    def files(self, kind: str = "") -> list[InputFile | None]:
        """Return each row's image, or its caption file if `kind` is "text_", as listed; None for failed rows."""
        names = "status", kind.rstrip("_") or "name", f"{kind}size", f"{kind}fingerprint"
        return [
            InputFile(f"{self.root}/{name}", size, fingerprint) if status == OK and name else None
            for status, name, size, fingerprint in zip(*(self.rows[name].to_pylist() for name in names), strict=True)
        ]


def make_parts(source: Source, root: str, database: Any) -> Iterator[InputPart]:
    """Yield a source's parts, and write their rows."""
    waiting: list[pa.Table] = []  # rows for the next part
    weight = database.execute(
        f"SELECT sum(coalesce(size, 0) + coalesce(text_size, 0) + {ROW_BYTES})::BIGINT FROM rows"
    ).fetchall()[0][0]

    def items() -> Iterator[tuple[int, str]]:
        for batch in database.sql("FROM rows ORDER BY name, number").to_arrow_reader(_BATCH):
            waiting.append(pa.table(batch))
            sizes = pc.add(batch["size"].fill_null(0), batch["text_size"].fill_null(0))
            weights = pc.if_else(batch["other"].is_valid(), 0, pc.add(sizes, ROW_BYTES))
            yield from zip(weights.to_pylist(), batch["name"].to_pylist(), strict=True)

    limit = group_size(weight, _PARTS, PART_BYTES)
    for items_of_part in group(items(), lambda item: item[0], lambda item: item[1], limit):
        table = pa.concat_tables(waiting)
        waiting[:] = [table.slice(len(items_of_part))]
        rows = table.slice(0, len(items_of_part)).drop_columns(["number"])
        fingerprint = ids.digest(rows.to_pylist())
        others = Counter(rows["other"].drop_null().to_pylist())
        about = json.dumps({"root": root, "others": others})
        rows = rows.filter(rows["other"].is_null()).replace_schema_metadata({_ABOUT: about})
        pq.write_table(rows, f"{process_folder()}/{_name(source, fingerprint)}")
        first = next(filter(None, PartFiles(rows.slice(0, 1)).files()), None)
        path, size = first.path if first else root, pc.sum(rows["size"]).as_py() or 0
        yield InputPart(path, size, fingerprint, rows=len(rows))


def read_part(source: "FilesSource", part: InputPart, positions: interface.Places | None = None) -> PartFiles:
    """Return rows of a part, up to its limit or at `positions`, from this process's plan or the run's folder.

    Raises OSError.
    """
    name = _name(source, part.fingerprint)
    planned = f"{process_folder()}/{name}"
    with open(planned, "rb") if os.path.exists(planned) else RunStore(source._run).open(f"{LISTS}/{name}") as file:
        rows = pq.read_table(file, use_threads=False)
    return PartFiles(rows.slice(0, part.limit) if positions is None else rows.take(positions))


def _name(source: Source, fingerprint: str) -> str:
    return f"{ids.digest([source.name, fingerprint])}.parquet"


class FilesSource(Source):
    """Folders of your own images, with captions in a table, in `metadata` files, or in NAME.txt beside each image.

    curate takes the captions from the first of these that exists:

    1. The `table`, if you set one. It has one row per caption, with the image's file name. The name is relative to the
       table's folder or to `path`.
    2. Files named `metadata.csv`, `metadata.jsonl`, or `metadata.parquet`, as on Hugging Face. They may be in any
       folder.
    3. Text files: the caption of `cat.jpg` is in `cat.txt`.

    More about samples:

    - Rules can use the table's other columns, and each sample's json includes them.
    - A row whose image is missing fails as `no_image`. An image without a caption fails as `no_caption`.
    - A row fails as `unsafe_path` if its file name is absolute, is a URL, contains `..`, or is a link that leads out of
      `path`.
    - If several rows name the same image, each row is a sample. `a.jpg` and `a.png` are two samples.
    - curate skips hidden files. `curate sql RUN links` counts the other files that are neither images nor captions, by
      suffix.
    - A sample's key is the image's path within `path`, without the suffix.
    """

    example: ClassVar[Any] = {"name": "photos", "format": "files", "path": "photos", "table": "captions.csv"}
    neutral_fields = frozenset({"table"})

    path: UserPath = Field(examples=["photos", "photos/*.jpg"])
    """Folder of images, including all its subfolders; or a glob, such as `photos/*.jpg`."""
    table: UserPaths = Field((), exclude_if=not_, examples=["captions.csv"])
    """Tables of captions: CSV, TSV, JSON lines, or Parquet files, plain or compressed."""
    columns: FileNames = Field(FileNames(), examples=[{"file": "photo", "caption": "title"}])
    """Names of the columns with file names, captions, and so on. Set only those that curate does not recognize."""

    _run: str = PrivateAttr("")  # the folder of the run that reads it

    def placed_in(self, run: str, reuse: str | None = None, is_alone: bool = True) -> Self:
        assigned = self.model_copy()
        assigned._run = run
        return assigned


class FilesInput(interface.InputFormat):
    """Image files and their captions."""

    key = "files"
    section = FilesSource

    def plan(self, source: FilesSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        unread = OSError, ImportError, ValueError, pa.ArrowException, duckdb.Error
        with reraised(source.error, "curate cannot read its files or tables", *unread):
            tree = FileTree.of(source)
            with joined(source, tree, source.table, source.columns, content) as (database, columns):
                parts = tuple(make_parts(source, tree.url, database))
        if columns is None:
            return PlannedSource(parts, (interface.FileColumns(has_images=True, supplied=frozenset({"key"})),))
        kind = interface.FileColumns.of(columns, source.columns)
        supplied = (kind.supplied & {"uid", "url", "language"}) | {"key"}
        return PlannedSource(parts, (replace(kind, has_images=True, supplied=supplied),))

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        """Recognize images that have captions: in a table, in metadata files, or in a NAME.txt beside each image.

        The table may be among the images or beside their folder. If the path is a table, this finds the folder of its
        images. Returns None if there are no images, or if a table names none of them.
        """
        tables = sorted(filter(kind_of, listed.names), key=lambda name: name.count("/"))
        images = listed.ending(*_IMAGES)
        paths, has_tables_alone = [listed.path], bool(tables) and not images
        if has_tables_alone:
            images = FoundFiles.look(os.path.dirname(tables[0]) or ".", listed.storage).ending(*_IMAGES)
            folders = dict.fromkeys(os.path.dirname(image) for image in images)
            paths = [os.path.commonpath(folders), *folders] if images else []
        elif listed.is_folder and "://" not in listed.path:
            parent = os.path.dirname(listed.path)
            tables += [os.path.join(parent, name) for name in sorted(os.listdir(parent or ".")) if kind_of(name)]
        for table, path in product(tables[:_TABLES] if images else (), paths[:_FOLDERS]):
            head = read_head(table, listed.storage)
            texts = {} if head is None else texts_of(head)
            file = next((column for column in texts if _names_files(texts[column], table, path, listed)), None)
            columns = name_columns(texts, _NAMES, file=file) if file else None
            if head is not None and columns is not None:
                keys: dict[str, Any] = {"path": os.path.normpath(path) if has_tables_alone else path}
                keys |= {} if os.path.basename(table).startswith("metadata.") else {"table": table}
                keys |= {"columns": columns} if columns else {}
                return interface.Recognized(keys, len(images) + 1, "own-images", tuple(head.column_names))
        if not images or has_tables_alone or listed.names == (listed.path,):  # a single image instead of a folder
            return None
        stems = {os.path.splitext(name)[0] for name in listed.ending(".txt")}
        captions = sum(os.path.splitext(name)[0] in stems for name in images)
        return interface.Recognized({"path": listed.path}, len(images) + captions if captions else 1, "own-images")

    def share(self, source: FilesSource, parts: Sequence[InputPart], run: RunStore) -> None:
        def put(name: str) -> None:
            with open(f"{process_folder()}/{name}", "rb") as rows, run.create(f"{LISTS}/{name}") as file:
                shutil.copyfileobj(rows, file, 1 << 20)

        deque(in_threads(put, {_name(source, part.fingerprint) for part in parts}), 0)

    def read(self, source: FilesSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        of_part = read_part(source, part)
        images, rows, table = of_part.files(), of_part.rows, of_part.table
        columns = {
            "key": pc.replace_substring_regex(whole(rows["name"]), r"\.[^./]*$", ""),
            "bytes": whole(rows["size"]),
        }
        supplied: dict[str, pa.ChunkedArray] = {}
        if table is None:
            columns["caption"] = pa.array(list(_read_files(source, of_part.files("text_"))), pa.binary())
        else:
            roles = find_columns(table.schema, source.columns)
            columns |= text_columns(table, roles, ("url", "uid", "key", "language"))
            assert roles.caption is not None
            columns["caption"] = whole(table[roles.caption])
            supplied = {name: table[name] for name in scores.names if name in table.column_names}

        def read(wanted: Mask) -> Iterator[bytes | memoryview | None]:
            pairs = zip(images, wanted.tolist(), strict=True)
            return _read_files(source, (image if is_wanted else None for image, is_wanted in pairs))

        fields = count_columns(json_columns(table) if table else (), len(rows))
        links = Counter({"rows": len(rows), **{f".{suffix}": count for suffix, count in of_part.others.items()}})
        errors = whole(rows["status"]), whole(rows["error"])
        yield interface.Batch(columns, errors, read, supplied, fields=fields, links=links)

    def reread(self, source: FilesSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read images again, with their text files; columns of tables become fields of the json."""
        of_part = read_part(source, part, rows.places)
        objects: list[dict[str, Any]] = [{}] * len(rows.places)
        if of_part.table is not None:  # types that JSON lacks (dates, decimals) become text
            fields = of_part.table.select([field.name for field in json_columns(of_part.table)])
            objects = json.loads(json.dumps(fields.to_pylist(), default=str))
        names: list[Any] = of_part.rows["name"].to_pylist()
        kinds = rows.samples["format"].to_pylist()
        images, texts = (_read_files(source, of_part.files(kind)) for kind in ("", "text_"))
        for name, kind, image, text, values in zip(names, kinds, images, texts, objects, strict=True):
            suffix = name.rpartition(".")[2].lower()
            if suffix not in IMAGE_SUFFIXES:
                suffix = "jpg" if kind == "jpeg" else kind
            yield InputSample([(suffix, image or b"")], values, text or b"")

    def reread_images(self, source: FilesSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read images again. If a part has no fingerprint, it is a single image, which belongs to every row."""
        images: list[InputFile | None]
        if part.fingerprint:
            images = read_part(source, part, rows.places).files()
        else:
            images = [InputFile(part.path, size or 0, "") for size in rows.samples["bytes"].to_pylist()]
        return (None if data is None else bytes(data) for data in _read_files(source, images))

    def describe(self, parts: Sequence[InputPart]) -> str:
        return pluralize(sum(part.rows or 0 for part in parts), "sample")

    def state(self, path: str, storage: dict[str, Any]) -> str:
        """Return nothing: each file is compared with its listing when it is read."""
        return ""

    def example_file(self, source: Any, part: InputPart) -> str | None:
        return next((image.path for image in read_part(source, part).files() if image), None)

    def shards(self, source: Any, part: InputPart, samples: pa.Table) -> pa.Array:
        of_part = read_part(source, part)
        return pa.array([image.path if image else of_part.root for image in of_part.files()], pa.string())

    def weight(self, part: InputPart, has_images: bool) -> int:
        return part.size + (part.rows or 0) * ROW_BYTES


def _names_files(values: list[str], table: str, path: str, listed: FoundFiles) -> bool:
    names = [value for value in values if value.lower().endswith(_IMAGES) and "://" not in value][:_VALUES]
    folders = (os.path.dirname(table) or ".", path)
    return any(listed.exists(f"{folder}/{name}") for name in names for folder in folders)


def _read_files(source: Source, files: Iterable[InputFile | None]) -> Iterator[bytes | memoryview | None]:
    """Yield the content of each file. Raises RunError if a file has changed since it was listed, and OSError."""
    return read_ahead(lambda file: None if file is None else _read(file, source.storage), files)


def _read(file: InputFile, storage: dict[str, Any]) -> bytes | memoryview:
    if os.path.isabs(file.path):  # check before opening: it may be a pipe now
        _check(file, storage)
    try:
        if file.size > _MAPPED:
            return open_copy(file.path, storage).read(0, file.size)
        fs, inner = fsspec.core.url_to_fs(file.path, **storage)
        with errors_of(file.path):
            data: bytes = fs.cat_file(inner)
            return data
    finally:
        _check(file, storage)


def _check(file: InputFile, storage: dict[str, Any]) -> None:
    if file.fingerprint.startswith(_COMPARABLE):
        check_state(file.path, storage, f"{file.size} bytes, {file.fingerprint}", file.fingerprint)
