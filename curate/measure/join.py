"""Columns of a unit's tables, joined from its parts, or computed from columns of the unit."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.errors import RunError
from curate.measure.part import MeasuredPart
from curate.measure.settings import MeasureSettings
from curate.numeric.vectors import embedding_matrix, no_embeddings
from curate.pool.plan import Unit
from curate.signals.signal import Embeddings, Signal

Pair = tuple[pa.ChunkedArray, pa.ChunkedArray]


def join_samples(unit: Unit, parts: Sequence[MeasuredPart]) -> pa.Table:
    """Return table `samples`."""
    tables = []
    first = 0
    for part, measured in zip(unit.parts, parts, strict=True):
        rows = measured.rows
        if rows:
            columns = {name: measured.samples[name] for name in measured.samples.column_names} | {
                "unit": pa.repeat(pa.scalar(unit.index, pa.int32()), rows),
                "row": pa.array(np.arange(first, first + rows, dtype=np.int32)),
                "source": pa.repeat(unit.source, rows),
                "shard": pa.repeat(part.path, rows),
            }
            tables.append(pa.table([columns[name] for name in schema.SAMPLES.names], schema=schema.SAMPLES))
        first += rows
    return pa.concat_tables(tables).combine_chunks() if tables else schema.SAMPLES.empty_table()


def join_supplied(settings: MeasureSettings, parts: Sequence[MeasuredPart]) -> list[pa.ChunkedArray]:
    """Return the score columns that the pool supplies."""
    return list(pa.concat_tables([part.scores for part in parts]).columns) if settings.pool.scores else []


def join_members(base: pa.Table, parts: Sequence[MeasuredPart]) -> pa.Table:
    """Return table `members`, whose first columns are `base`."""
    table = base
    for field in list(schema.MEMBERS)[len(schema.ALIGNED) :]:
        arrays = [
            pa.nulls(part.rows, field.type) if part.members is None else part.members[field.name] for part in parts
        ]
        chunks = [
            chunk for array in arrays for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])
        ]
        table = table.append_column(field.name, pa.chunked_array(chunks, field.type))
    if table.num_rows != base.num_rows:
        raise RunError("members and samples of a unit differ in length")
    return table.cast(schema.MEMBERS)


def readable_captions(samples: pa.Table) -> pa.Array:
    """Return the captions, null where a row cannot be read."""
    is_ok = pc.equal(samples["status"], schema.OK)
    return pc.if_else(is_ok, samples["caption"], pa.scalar(None, pa.string())).combine_chunks()


def observed_columns(signals: Sequence[Signal], parts: Sequence[MeasuredPart]) -> dict[str, list[pa.ChunkedArray]]:
    """Return the columns of each signal that observed the parts."""
    columns: dict[str, list[pa.ChunkedArray]] = {}
    for place, signal in enumerate(signals):
        for i, field in enumerate(signal.columns):
            arrays = [p.outputs[place].columns[i] if p.outputs else pa.nulls(p.rows, field.type) for p in parts]
            columns.setdefault(signal.name, []).append(pa.chunked_array(arrays, field.type))
    return columns


def observed_embeddings(signals: Sequence[Signal], parts: Sequence[MeasuredPart]) -> dict[str, Pair]:
    """Return the image and text embeddings of each model that observed the parts, and of those that the pool supplies."""
    found = {}
    for place, signal in enumerate(signals):
        if signal.dimension is not None:
            kind = pa.list_(pa.float16(), signal.dimension)
            pairs = [part.outputs[place].embeddings if part.outputs else None for part in parts]
            zeros = [(no_embeddings(signal.dimension, part.rows),) * 2 for part in parts]
            made = [pair or none for pair, none in zip(pairs, zeros, strict=True)]
            image, text = (pa.chunked_array([pair[side] for pair in made], kind) for side in range(2))
            found[signal.name] = (image, text)
    return found


def computed_columns(
    settings: MeasureSettings, samples: pa.Table, known: Collection[str], embeddings: dict[str, Pair]
) -> dict[str, list[pa.Array]]:
    """Return the columns of signals of captions and of embeddings, but those that are known."""
    columns: dict[str, list[pa.Array]] = {}
    for signal in (signal for signal in settings.signals if signal.name not in known):
        if signal.from_captions:
            columns[signal.name] = list(signal.from_captions(readable_captions(samples)))
        if signal.from_embeddings and signal.of:
            rows = _as_arrays(*embeddings[signal.of], samples["caption"])
            columns[signal.name] = [
                _scatter(values, rows.rows, len(samples)) for values in signal.from_embeddings(rows)
            ]
    return columns


def _as_arrays(images: pa.ChunkedArray, texts: pa.ChunkedArray, captions: pa.ChunkedArray) -> Embeddings:
    """Return the embeddings of the rows that have some; where a row lacks a side, that is zero."""
    sides = [embedding_matrix(column).astype(np.float32) for column in (images, texts)]
    rows = np.flatnonzero(sides[0].any(axis=1) | sides[1].any(axis=1))
    return Embeddings(rows, sides[0][rows], sides[1][rows], captions.take(pa.array(rows)).combine_chunks())


def _scatter(values: pa.Array, rows: np.ndarray[Any, Any], n: int) -> pa.Array:
    """Return the values in their rows, null elsewhere."""
    places = np.zeros(n, np.int64)
    places[rows] = np.arange(len(rows))
    missing = np.ones(n, bool)
    missing[rows] = False
    return values.take(pa.array(places, mask=missing))
