"""Images in folders, with captions from a table, from metadata files, or from a NAME.txt beside each.

A part is consecutive rows, sorted by name; its rows are in a file that planning writes (see `curate.pool.files.parts`).
An image and the text beside it are read when they are measured, and must be what was listed then: a file that changed
since ends the run. A caption without an image, or an image without a caption, is a row that failed.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import not_
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PrivateAttr, model_validator

from curate.base.numeric.arrays import Mask, whole
from curate.base.wording import pluralise
from curate.pool.files.captions import FileColumns as FileNames
from curate.pool.files.captions import find_tables, join_captions
from curate.pool.files.listing import FileTree
from curate.pool.files.parts import ROW_BYTES, make_parts, read_rows, share_rows
from curate.pool.files.reading import read_files, read_texts, with_forbidden
from curate.pool.formats import input_format as interface
from curate.pool.formats.input_format import Batch, FileColumns, InputPart, InputSample, PartRows, PlannedSource
from curate.read.columns import BYTES, find_columns, is_any, valid_text
from curate.read.field_types import count_columns
from curate.read.listing import InputFile
from curate.read.tar_samples import IMAGE_SUFFIXES
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.section import UserPaths
from curate.recipe.source import Source
from curate.store.store import RunStore


class FilesSource(Source):
    """Images of your own in folders, with captions from a table, from `metadata` files, or from a NAME.txt beside each.

    `path` is a folder, whose images count in any depth, or a glob such as `photos/*.jpg`. A table has a row for each
    caption, with the name of its image and any other columns; names count from the table's folder, or else from `path`.
    Without a `table`, Hugging Face's `metadata.csv`, `.jsonl` or `.parquet` in any folder are tables, whose names count
    from that folder; without these, the caption of `cat.jpg` is in `cat.txt`.

    - The table's columns are in the samples' json, and rules see them, as of Parquet sources.
    - A row without a file fails as `no_image`, an image without a caption as `no_caption`. Absolute names, URLs,
      names with `..`, and links that leave `path` fail as `unsafe_path`.
    - Several rows for one file are several samples, and so are `a.jpg` and `a.png`.
    - Hidden files are left out. `curate sql RUN links` counts the other files by suffix.
    - A sample's key is the file's name within `path`, without its suffix.
    """

    example: ClassVar[Any] = {"name": "photos", "format": "files", "path": "photos", "table": "captions.csv"}

    path: UserPaths = Field(examples=["photos", "photos/*.jpg"])
    """Folders or globs of images, of one file system."""
    table: UserPaths = Field((), exclude_if=not_, examples=["captions.csv"])
    """Tables of captions: CSV, TSV, JSON lines or Parquet, plain or packed. Without: metadata files, or NAME.txt."""
    columns: FileNames = Field(FileNames(), examples=[{"file": "photo", "caption": "title"}])
    """Which column of the tables holds what, where it is not found by its name."""

    _run: str = PrivateAttr("")  # the folder of the run that reads it

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if unused := [name for name in ("image", "width", "height") if getattr(self.columns, name)]:
            accepted = "`file` names the column of file names, and images are measured"
            raise ValueError(f"columns.{unused[0]}: the images are files; {accepted}")
        return self

    def placed_in(self, run: str, reuse: str | None = None, is_alone: bool = True) -> Self:
        """Return the source as this run reads it: the rows of its parts are in its folder."""
        placed = self.model_copy()
        placed._run = run
        return placed

    def row_fields(self) -> dict[str, Any]:
        """Return what determines the rows: not which columns are scores, nor where the tables are."""
        fields = super().row_fields()
        fields.pop("table", None)
        return fields | {"columns": self.columns.model_dump(exclude={"scores"})}


class FilesInput(interface.InputFormat):
    """Images that are files, and their captions."""

    key = "files"
    section = FilesSource

    def plan(self, source: FilesSource, embeddings: Sequence[PrecomputedEmbeddings], content: bool) -> PlannedSource:
        """List the files, and put them together with tables; no image is opened."""
        try:
            tree = FileTree.of(source)
            tables = find_tables(source, source.table, source.columns)
            with join_captions(source, tree, tables, source.columns, content, ROW_BYTES) as joined:
                parts = tuple(make_parts(source, tree, joined))
        except (OSError, ImportError) as error:
            raise source.error(f"{source.path} cannot be listed: {error}") from None
        if joined.tables is None:
            return PlannedSource(parts, (FileColumns(True, supplied=frozenset({"key"})),))
        columns = FileColumns.of(joined.tables.columns, source.columns)
        supplied = (columns.supplied & {"uid", "url", "language"}) | {"key"}
        return PlannedSource(parts, (FileColumns(True, columns.schema, supplied, columns.scores, columns.nameable),))

    def share(self, source: FilesSource, parts: Sequence[InputPart], run: RunStore) -> None:
        share_rows(source, parts, run)

    def read(
        self, source: FilesSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None
    ) -> Iterator[Batch]:
        """Read the captions of a part, as one batch; images as they are asked for."""
        files = read_rows(source, part, source._run)
        images, rows, table = files.images, files.rows, files.table
        faults = with_forbidden(images, rows, source.storage)
        columns = {"key": pc.replace_substring_regex(whole(rows["name"]), r"\.[^./]*$", "")}
        columns["bytes"] = whole(rows["size"])
        supplied: dict[str, pa.ChunkedArray] = {}
        if table is None:
            columns["caption"] = pa.array(read_texts(files.texts, source.storage), pa.binary())
        else:
            roles = find_columns(table.schema, source.columns)
            named = {name: getattr(roles, name) for name in ("url", "uid", "key", "language")}
            columns |= {name: valid_text(whole(table[column])) for name, column in named.items() if column}
            assert roles.caption is not None
            columns["caption"] = whole(table[roles.caption])
            supplied = {name: table[name] for name in scores.names if name in table.column_names}

        def read(wanted: Mask) -> Iterator[bytes | memoryview | None]:
            pairs = zip(images, wanted.tolist(), strict=True)
            return read_files((image if is_wanted else None for image, is_wanted in pairs), source.storage)

        fields = count_columns(_json_columns(table), len(rows))
        links = Counter({"rows": len(rows)}) + Counter({f".{suffix}": n for suffix, n in files.others.items()})
        yield Batch(columns, faults, read, supplied, fields=fields, links=links)

    def reread(self, source: FilesSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read images again, with the texts beside them; columns of tables are fields of the json."""
        files = read_rows(source, part, source._run).take(rows.places)
        objects: list[dict[str, Any]] = [{}] * len(rows.places)
        if (table := files.table) is not None:  # what JSON has no word for (dates, decimals) is text
            fields = table.select([field.name for field in _json_columns(table)])
            objects = json.loads(json.dumps(fields.to_pylist(), default=str))
        names, kinds = files.rows["name"].to_pylist(), rows.samples["format"].to_pylist()
        images, texts = (read_files(some, source.storage) for some in (files.images, files.texts))
        for name, kind, image, text, values in zip(names, kinds, images, texts, objects, strict=True):
            suffix = name.rpartition(".")[2].lower()
            if suffix not in IMAGE_SUFFIXES:
                suffix = "jpg" if kind == "jpeg" else kind
            yield InputSample([(suffix, image or b"")], values, text or b"")

    def reread_images(self, source: FilesSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read images again; of a part without a fingerprint, which is an image, that image for each row."""
        if part.fingerprint:
            images = read_rows(source, part, source._run).take(rows.places).images
        else:
            images = [InputFile(part.path, size or 0, "") for size in rows.samples["bytes"].to_pylist()]
        return (None if data is None else bytes(data) for data in read_files(images, source.storage))

    def missing_column(self, source: FilesSource, name: str) -> str:
        """Return which columns the tables of a source have."""
        if not source.table:
            return ""
        tables = find_tables(source, source.table, source.columns)
        return f"the columns of its tables: {', '.join(tables.columns.names)}"[:300] if tables else ""

    def describe(self, parts: Sequence[InputPart]) -> str:
        """Return how many rows the parts have."""
        return pluralise(sum(part.rows or 0 for part in parts), "image")

    def state(self, path: str, storage: dict[str, Any]) -> str:
        """Return nothing: each file is compared with what was listed when it is read."""
        return ""

    def example_file(self, source: Any, part: InputPart) -> str | None:
        """Return the first image of a part."""
        return next((image.path for image in read_rows(source, part, source._run).images if image), None)

    def shards(self, source: Any, part: InputPart, samples: pa.Table) -> pa.Array:
        """Return the path of each row's image; of a row without one the folder."""
        files = read_rows(source, part, source._run)
        return pa.array([image.path if image else files.root for image in files.images], pa.string())

    def weight(self, part: InputPart, has_images: bool) -> int:
        """Return the bytes of a part's images, and some for each row."""
        return part.size + (part.rows or 0) * ROW_BYTES


def _json_columns(table: pa.Table | None) -> list[pa.Field]:
    """Return the columns of a table that are fields of the json: all but bytes."""
    return [f for f in table.schema if not is_any(f.type, *BYTES)] if table else []
