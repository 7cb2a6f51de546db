"""Measures row groups of a Parquet file: captions, with URLs, sizes, scores and image bytes where there are columns.

All columns are read, those too that only the output needs: a damaged page in one is found here, as every damage is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import schema
from curate.measure.images import image_columns, measure_images
from curate.pool.columns import Found, find_columns, without_views
from curate.pool.image import ImageOptions
from curate.pool.part import Measured
from curate.pool.plan import Part, Pool
from curate.pool.text import check_captions
from curate.recipe.recipe import Source
from curate.signals.precomputed import EmbeddingFault, Place, bring, nothing
from curate.signals.signal import Signal, SignalOutput


def measure_parquet(
    part: Part, source: Source, options: ImageOptions, signals: Sequence[Signal], pool: Pool
) -> Measured:
    """All rows of the part, a row group; none where it is damaged. Raises OSError where the file cannot be read."""
    try:
        table, found = read_rows(part, source)
        if pool.output is not None:
            output_columns(table, pool.output)  # what cannot be put out is found here too
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        # Arrow raises OSError on damaged pages too, and a store on a bad day: bytes that can be read are damaged.
        with fsspec.open(part.path, "rb", **source.storage) as opened:
            only = pq.read_metadata(opened).num_row_groups <= 1
            opened.seek(0)
            while opened.read(1 << 24):
                pass
        group = part.groups[0] if part.groups else 0
        detail = f"row group {group}, {part.rows or 0:,} rows: {' '.join(str(error).split())}"
        return Measured(failure=("not_parquet" if only else "damaged_row_group", detail[:300]))
    rows = len(table)
    captions = check_captions(_plain(table, found.caption))
    status, errors = captions.status, captions.error
    looked: list[SignalOutput] = []
    columns: dict[str, Any] = {"caption": captions.caption, "words": captions.words, "characters": captions.characters}
    for name, column in (("url", found.url), ("own_uid", found.uid), ("key", found.key), ("language", found.language)):
        if column:
            columns[name] = _valid_text(_plain(table, column))
    if found.image:
        facts, looked = measure_images(_images(table[found.image], status), captions.caption, options, signals)
        bad = np.array([fact is None or fact.status != schema.OK for fact in facts], bool)
        image_status = pa.array([("no_image" if fact is None else fact.status) for fact in facts], pa.string())
        image_error = pa.array([fact and fact.error for fact in facts], pa.string())
        columns |= image_columns(facts) | {"bytes": _sizes(table[found.image])}
        status, errors = _first_fault((status, errors), (image_status, image_error), bad)
    else:
        for name, column in (("width", found.width), ("height", found.height)):
            if column:
                columns[name] = _integers(_plain(table, column))
        if found.url:
            missing = pc.fill_null(pc.equal(columns["url"], ""), True)
            fault = pa.repeat("no_url", rows), pa.nulls(rows, pa.string())
            status, errors = _first_fault((status, errors), fault, missing.to_numpy(zero_copy_only=False))
    columns |= {"status": status, "error": errors}
    scores = {f.name: _score(table[f.name], f.type) for f in pool.scores if f.name in table.schema.names}
    gauged, faults = _with_brought(signals, looked, part, table, pc.equal(status, schema.OK), source)
    return Measured(columns, scores, gauged=gauged, faults=faults)


def _with_brought(
    signals: Sequence[Signal], looked: Sequence[SignalOutput], part: Part, table: pa.Table, ok: pa.Array, source: Source
) -> tuple[list[SignalOutput], dict[str, tuple[str, bool]]]:
    """What each signal gauged, in order, with the embeddings that the pool brings, and the faults of these by signal."""
    images, place = iter(looked), None
    gauged, faults = [], {}
    for signal in signals:
        if not signal.bring:
            gauged.append(next(images))
            continue
        try:
            place = place or _place(part, source)
            gauged.append(bring(signal, place, table, ok.to_numpy(zero_copy_only=False), source))
        except EmbeddingFault as error:
            faults[signal.name] = str(error)[:300], error.passing
            gauged.append(nothing(signal, len(table)))
    return gauged, faults


def _place(part: Part, source: Source) -> Place:
    with fsspec.open(part.path, "rb", **source.storage) as opened:
        metadata = pq.read_metadata(opened)
    first = part.groups[0] if part.groups else 0
    rows_before = sum(metadata.row_group(i).num_rows for i in range(first))
    return Place(part.path, rows_before, metadata.num_rows, part.beside)


def read_rows(part: Part, source: Source) -> tuple[pa.Table, Found]:
    """The part's rows with all columns, views as plain types, and which columns hold what."""
    first, stop = part.groups or (0, 0)
    with fsspec.open(part.path, "rb", **source.storage) as opened:
        file = pq.ParquetFile(opened, pre_buffer=False)
        found = find_columns(file.schema_arrow, source.columns)
        table = file.read_row_groups(list(range(first, stop)), use_threads=False)
    return table.cast(pa.schema([field.with_type(without_views(field.type)) for field in table.schema])), found


def output_columns(table: pa.Table, output: pa.Schema) -> pa.Table:
    """The columns that an imageless pool puts out, in its types, null where the file has none of that name.

    Raises ArrowInvalid for a value that its type there cannot hold; integers beside floats become floats.
    """
    columns = []
    for field in output:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        exact = not (pa.types.is_integer(column.type) and pa.types.is_floating(field.type))
        columns.append(column.cast(field.type, safe=exact))
    return pa.table(columns, schema=output)


def image_bytes(column: pa.ChunkedArray) -> Iterator[bytes | None]:
    """The bytes of each image: the column's value, or its field `bytes`."""
    for chunk in column.chunks:
        values = chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk
        for value in values:
            yield value.as_py()


def _images(column: pa.ChunkedArray, status: pa.Array) -> Iterator[bytes | None]:
    for data, found in zip(image_bytes(column), status.to_pylist(), strict=True):
        yield data if found == schema.OK else None


def _sizes(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if data is None else len(data) for data in image_bytes(column)], pa.int64())


def _first_fault(
    old: tuple[pa.Array, pa.Array], new: tuple[pa.Array, pa.Array], bad: np.ndarray[Any, Any]
) -> tuple[pa.Array, pa.Array]:
    """Status and errors with the new ones where a row was ok before and is bad now."""
    mask = pc.and_(pc.equal(old[0], schema.OK), pa.array(bad))
    status, errors = (pc.if_else(mask, n, o) for o, n in zip(old, new, strict=True))
    return status, errors


def _plain(table: pa.Table, name: str) -> pa.Array:
    """The column as one array, dictionaries unpacked, a column of nulls as text."""
    column = table[name].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    return column


def _valid_text(column: pa.Array) -> pa.Array:
    """The column as string, null where the bytes are not UTF-8."""
    column = column.cast(pa.string())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary()).to_pylist()
        column = pa.array([_decoded(value) for value in raw], pa.string())
    return column


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _integers(column: pa.Array) -> pa.Array:
    """Sizes in pixels as int32, null where they are none."""
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    good = (values >= 0) & (values < 2**31)
    return pa.array(np.where(good, values, 0).astype(np.int32), mask=~good)


def _score(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """A score column in the pool's type; NaN is null, since it has no place in an order."""
    array = column.combine_chunks()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array.cast(kind, safe=False)
