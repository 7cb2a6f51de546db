"""Parquet files with captions, and optional columns for URLs, sizes, scores, and image bytes. A part is a row group.

All columns are read, including those for the output only, so that measuring finds damaged pages in any of them.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PrivateAttr

from curate.base.decoded_size import MAX_DECODED, TooLarge, check_decoded, read_footer
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import Mask, whole
from curate.base.process import CORES, Cache
from curate.base.wording import one_line
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles, name_columns, read_head, texts_of
from curate.pool.formats.input_format import Batches, InputPart, InputSample, PartRows, PlannedSource
from curate.pool.formats.missing import missing_rows
from curate.read import columns as pool_columns
from curate.read.columns import SCORE_TYPES, Columns, find_columns, integers, plain_columns, plain_type
from curate.read.errors import EmbeddingError, InputError, retry
from curate.read.field_types import count_columns
from curate.read.listing import InputFile, file_state, list_source
from curate.read.precomputed import FileRows, find_dimension, read_embeddings, sidecar_fingerprint
from curate.recipe.measure import PrecomputedEmbeddings
from curate.recipe.source import Source

_footers: Cache[pq.FileMetaData] = Cache(CORES)
_MAX_ROWS = 1 << 22  # per row group: a sample takes some 500 bytes of memory or more
_LOOKED = 20  # files whose columns messages list
_STATING = ("original_sha256", "sha256")
_THREADS = 16
_MANY, _TOGETHER = 1000, 1000  # if a file has more than _MANY row groups, parts have at least _TOGETHER rows
_TRIED = 20  # files to search for embeddings before the source counts as having none
# A file's parts and columns. Each row group is a part, so that damage is contained. A file without rows or with a fault
# is one part. If the file has a fault, its columns are None
_Footer = tuple[list[InputPart], pa.Schema | None]


class ParquetSource(Source):
    """Parquet files of captions, with images or URLs, such as LAION's and DataComp's published metadata.

    If the files have URLs but no images, the shards are Parquet files with all columns of the input. img2dataset can
    then download the images.
    """

    example: ClassVar[Any] = {"name": "laion", "format": "parquet", "path": "laion/part-{00000..00127}.snappy.parquet"}

    columns: Columns = Field(Columns(), examples=[{"caption": "TEXT", "scores": ["similarity"]}])
    """Names of the columns with captions, URLs, and so on. Set only those that curate does not recognize."""

    _names: dict[str, str] = PrivateAttr({})  # renamed columns


class ParquetInput(interface.InputFormat):
    """Rows of Parquet files, with or without an image column."""

    key = "parquet"
    section = ParquetSource

    def plan(self, source: ParquetSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        """List the row groups. Raises RecipeError if no file can be used, or if none has a named column."""
        files = list_source(source, content)
        with ThreadPoolExecutor(_THREADS) as pool:
            footers = list(pool.map(lambda file: _read_footer(source, file, embeddings, content), files))
        parts = tuple(part for of_file, _ in footers for part in of_file)
        schemas = dict.fromkeys(schema for _, schema in footers if schema)
        if not schemas and footers:
            reasons = "; ".join(f"{part.path}: {part.fault[1]}" for part in parts[:3] if part.fault)
            raise source.error(f"curate cannot use any of {len(footers)} files: {reasons}")
        names = {name for schema in schemas for name in schema.names}
        for role, requested in source.columns:
            for column in (requested,) if isinstance(requested, str) else requested or ():
                if column not in names:
                    raise source.error(f"columns.{role}: no column {column!r}; columns: {', '.join(sorted(names))}")
        dimensions = {options.name: _embedding_dimension(options, source, footers) for options in embeddings}
        columns = tuple(interface.FileColumns.of(schema, source.columns) for schema in schemas)
        unused = [side for side in ("width", "height") if getattr(source.columns, side)]
        if unused and any(kind.has_images for kind in columns):
            problem = "the source has images, and curate measures their sizes"
            raise source.error(f"columns.{unused[0]}: {problem}; leave it out")
        return PlannedSource(parts, columns, dimensions)

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        names = listed.ending(".parquet")
        head = read_head(names[0], listed.storage) if names else None
        columns = None if head is None else name_columns(texts_of(head))
        if head is None or columns is None:
            return None
        has_images = pool_columns.find_column(head.schema, "image", None, pool_columns.COLUMN_NAMES["image"])
        keys = {"path": listed.pattern(".parquet"), **({"columns": columns} if columns else {})}
        return interface.Recognized(keys, len(names), "basic" if has_images else "texts", tuple(head.column_names))

    def read(self, source: ParquetSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        try:
            table, roles = _read_rows(source, part, is_measured=False)
            if output is not None:
                _output_columns(table, output)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise _damage(source, part, error) from None

        assert roles.caption is not None
        columns = {"caption": _whole(table[roles.caption])}
        columns |= pool_columns.text_columns(table, roles, ("url", "uid", "key", "language"))
        images, fields, errors, image = None, Counter[tuple[str, str]](), None, roles.image
        if image:
            fields = count_columns(pool_columns.json_columns(table, image), len(table))
            sizes = [None if data is None else len(data) for data in image_bytes(table[image])]
            columns["bytes"] = pa.array(sizes, pa.int64())
            errors = missing_rows(table, columns["bytes"].is_valid())
            # Columns with each image's sha256, of the original download or of the stored image
            stating = [f.name for f in table.schema if f.name in _STATING and pa.types.is_string(f.type)]
            values = [pool_columns.valid_text(whole(table[name])).to_pylist() for name in sorted(stating)]
            digests = map(pool_columns.stated_sha256, *values) if values else [None] * len(table)
            columns["original_sha256"] = pa.array(digests, pa.string())

            def images(wanted: Mask) -> Iterator[bytes | None]:
                of_rows = zip(image_bytes(table[image]), wanted.tolist(), strict=True)
                return (data if is_wanted else None for data, is_wanted in of_rows)

        else:
            sides = [(name, getattr(roles, name)) for name in ("width", "height")]
            columns |= {name: integers(_whole(table[column])) for name, column in sides if column}
        supplied = {name: table[name] for name in scores.names if name in table.schema.names}

        def embeddings(names: tuple[str, str], dimension: int, usable: Mask) -> tuple[pa.Array, pa.Array]:
            with _opened(source, part) as (_, footer):
                first = sum(footer.row_group(i).num_rows for i in range(part.groups[0] if part.groups else 0))
            file_rows = FileRows(part.path, first, footer.num_rows, part.sidecar_fingerprint, source.storage)
            return read_embeddings(names, dimension, (table, usable), file_rows)

        yield interface.Batch(columns, errors, images, supplied, embeddings=embeddings, fields=fields)

    def reread(self, source: ParquetSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        """Read samples with an image column again: the other columns are fields of the json, except bytes."""
        table, roles = _read_rows(source, part)
        table = table.take(rows.places)
        assert roles.image is not None
        fields = {f.name: _json_values(table[f.name]) for f in pool_columns.json_columns(table, roles.image)}
        kinds = rows.samples["format"].to_pylist()
        for i, (data, kind) in enumerate(zip(image_bytes(table[roles.image]), kinds, strict=True)):
            suffix = "jpg" if kind == "jpeg" else str(kind)
            yield InputSample([(suffix, data or b"")], {name: fields[name][i] for name in fields})

    def reread_images(self, source: ParquetSource, part: InputPart, rows: PartRows) -> Iterator[bytes | None]:
        """Read images again: only the image column, in row groups with requested rows."""
        with _opened(source, part) as (opened, footer):
            file = pq.ParquetFile(opened, metadata=footer, pre_buffer=False)
            column = find_columns(file.schema_arrow, source.columns).image
            stop = 0
            for group in range(*(part.groups or (0, file.num_row_groups))) if column else ():
                first, stop = stop, stop + file.metadata.row_group(group).num_rows
                wanted = rows.places[(rows.places >= first) & (rows.places < stop)] - first
                if len(wanted):
                    images = file.read_row_group(group, [column], use_threads=False)[0]
                    yield from image_bytes(images.cast(plain_type(images.type)).take(wanted))

    def reread_table(self, source: ParquetSource, part: InputPart, rows: PartRows, output: pa.Schema) -> pa.Table:
        table, _ = _read_rows(source, part)
        return _output_columns(table.take(rows.places), output)

    def missing_column(self, source: ParquetSource, name: str) -> str:
        fields: list[pa.Field] = []
        for file in list_source(source, False)[:_LOOKED]:
            with suppress(pa.ArrowException, OSError), fsspec.open(file.path, "rb", **source.storage) as opened:
                fields += pq.read_schema(opened)
        field = next((field for field in fields if field.name.lower() == name.lower()), None)
        if field is None:
            return f"the columns of its files: {', '.join(dict.fromkeys(field.name for field in fields))}"[:300]
        if pool_columns.score_type(field.type) is None:
            return f"its column {field.name!r} is {field.type}; accepted: {SCORE_TYPES}"
        scores = ", ".join([*(source.columns.scores or ()), field.name])
        return f"its files have this column; to use it, write columns: {{scores: [{scores}]}}"


def _read_footer(source: ParquetSource, file: InputFile, embeddings: interface.Embeddings, content: bool) -> _Footer:
    of_file = InputPart(file.path, file.size, file.fingerprint, (0, 0), 0)

    def read() -> pq.FileMetaData:
        with fsspec.open(file.path, "rb", **source.storage) as opened:
            return read_footer(opened)

    problem = file.fault or (None if file.size else ("empty_file", "0 bytes"))
    try:
        if problem is None:
            metadata = retry(read, file.path)
            schema = metadata.schema.to_arrow_schema().remove_metadata()
            if source._names:
                schema = rename(schema.empty_table(), source._names).schema
            find_columns(schema, source.columns)
    except InputError as error:
        problem = error.reason, error.detail
    except (pa.ArrowException, ValueError) as error:
        problem = "not_parquet", one_line(error, 300)
    except OSError as error:
        problem = "unreadable", one_line(error, 300)
    if problem:
        return [replace(of_file, fault=problem)], None
    # If no column has that name, it is an array in the .npz beside the file
    in_sidecar = {name for options in embeddings for name in (options.image, options.text)} - set(schema.names)
    if in_sidecar:
        of_file = replace(of_file, sidecar_fingerprint=sidecar_fingerprint(file.path, source.storage, content))
    parts: list[InputPart] = []
    least = _TOGETHER if metadata.num_row_groups > _MANY else 0
    first = size = rows = 0
    for stop in range(1, metadata.num_row_groups + 1):
        group = metadata.row_group(stop - 1)
        size, rows = size + group.total_byte_size, rows + group.num_rows
        if rows >= least or stop == metadata.num_row_groups:
            parts.append(replace(of_file, size=size, groups=(first, stop), rows=rows))
            first, size, rows = stop, 0, 0
    return parts or [of_file], schema


def _embedding_dimension(embeddings: PrecomputedEmbeddings, source: Source, footers: Sequence[_Footer]) -> int:
    """Return the dimension of embeddings in the first file with some. Raises RecipeError if there is none."""
    errors: list[str] = []
    for parts, schema in footers:
        if schema and any(part.rows for part in parts) and len(errors) < _TRIED:
            try:
                return find_dimension(embeddings, parts[0].path, schema, source)
            except EmbeddingError as error:
                errors.append(f"{parts[0].path}: {error}")
    problem = f"source {source.name!r} does not supply them: {errors[0] if errors else 'no file has rows'}"
    accepted = "columns with lists of numbers, or arrays in a .npz file beside each file"
    raise RecipeError(f"measure.embeddings {embeddings.name!r}: {problem}; accepted: {accepted}")


@contextmanager
def _opened(source: ParquetSource, part: InputPart) -> Iterator[tuple[Any, pq.FileMetaData]]:
    """Yield the part's file, and its footer, which is cached for the file's row groups."""
    # before opening: a newer file's footer must not be cached for an older state
    state = file_state(part.path, source.storage)
    is_local = os.path.isabs(part.path)
    with pa.OSFile(part.path, "r") if is_local else fsspec.open(part.path, "rb", **source.storage) as opened:
        yield opened, _footers.get((part.path, state), lambda: read_footer(opened))


def _read_rows(source: ParquetSource, part: InputPart, is_measured: bool = True) -> tuple[pa.Table, Columns]:
    """Return a part's rows with all columns, in plain types, and the roles of columns.

    Raises TooLarge if a row group that was not measured before has too many rows or bytes.
    """
    with _opened(source, part) as (opened, footer):
        groups = range(*(part.groups or (0, 0)))
        if (rows := sum(footer.row_group(group).num_rows for group in groups)) > _MAX_ROWS:
            raise TooLarge(f"it has {rows:,} rows; accepted: row groups of at most {_MAX_ROWS:,}")
        file = pq.ParquetFile(opened, metadata=footer, pre_buffer=not os.path.isabs(part.path))
        if not is_measured:
            file = check_decoded(opened, footer, groups, None, MAX_DECODED)
        table = rename(plain_columns(file.read_row_groups(list(groups), use_threads=False)), source._names)
        return table, find_columns(table.schema, source.columns)


def seen_names(columns: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the stored name of each column by its name after renaming.

    If a renamed column takes the name of another column, the other column is left out.
    """
    return {names.get(name, name): name for name in columns if name in names or name not in names.values()}


def rename(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return a table with its columns renamed."""
    if not names:
        return table
    stored = seen_names(table.column_names, names)
    return table.select(list(stored.values())).rename_columns(list(stored))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = whole(column)
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _damage(source: ParquetSource, part: InputPart, error: Exception) -> InputError:
    """Return what is wrong with a row group. Raises OSError if the file itself cannot be read."""
    with fsspec.open(part.path, "rb", **source.storage) as opened:
        is_only = pq.read_metadata(opened).num_row_groups <= 1 and not isinstance(error, TooLarge)
        opened.seek(0)
        while opened.read(1 << 24):
            pass
    detail = f"row group {part.groups[0] if part.groups else 0}, {part.rows or 0:,} rows: {one_line(error)}"
    return InputError("not_parquet" if is_only else "damaged_row_group", detail[:300])


def _output_columns(table: pa.Table, output: pa.Schema) -> pa.Table:
    """Return the columns of `output` in its types; a column that the file lacks is null.

    Integers become floats if other files have floats. Raises ArrowInvalid if a type cannot represent a value.
    """
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in output:
        column = table[field.name] if field.name in table.schema.names else pa.nulls(len(table))
        is_exact = not (pa.types.is_integer(column.type) and pa.types.is_floating(field.type))
        columns.append(column.cast(field.type, safe=is_exact))
    return pa.table(columns, schema=output)


def image_bytes(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    """Yield the bytes of each image: the column's value, or its field `bytes`."""
    for chunk in column.chunks:
        for value in chunk.field("bytes") if isinstance(chunk, pa.StructArray) else chunk:
            yield value.as_py()


def _json_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values for JSON; types that it lacks (dates, decimals, bytes) become text.

    Text that is not UTF-8 has replacement characters; a date after 9999 or in an unknown zone is a number.
    """

    def value(scalar: pa.Scalar) -> Any:
        try:
            return scalar.as_py()
        except UnicodeDecodeError:
            raw = scalar.cast(pa.large_binary()) if isinstance(scalar, pa.StringScalar | pa.LargeStringScalar) else None
            return raw and raw.as_py().decode(errors="replace")
        except (ValueError, OverflowError, KeyError, pa.ArrowException):
            return getattr(scalar, "value", None)

    return json.loads(json.dumps(list(map(value, column)), default=str))  # type: ignore[no-any-return]
