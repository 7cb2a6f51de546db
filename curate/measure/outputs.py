"""What signals observe of a part, as columns of one table, whose names hold the signal's.

Of a signal `S`: `S.COLUMN` of each column, `S errors` where it keeps some, `S image` and `S text` where it gives
embeddings.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import pyarrow as pa

from curate.base.numeric.vectors import no_embeddings
from curate.signals.signal import Embedder, ImageSignal, Signal, SignalOutput

Column: TypeAlias = "pa.ChunkedArray | pa.Array"


class EmbeddingColumns(NamedTuple):
    """The embeddings of rows by one model, see `curate.base.numeric.vectors`."""

    image: Column
    text: Column


def output_schema(signals: Sequence[Signal]) -> pa.Schema:
    """Return the columns of what signals observe."""
    return pa.schema([field for signal in signals for field in _fields(signal)])


def output_columns(signal: Signal, output: SignalOutput, rows: int) -> dict[str, pa.Array]:
    """Return a signal's output by name; without embeddings that it was to give, rows have none."""
    columns = dict(zip(score_names(signal), output.columns, strict=True))
    if isinstance(signal, ImageSignal) and signal.keeps_errors:
        columns[_errors(signal)] = output.errors
    if isinstance(signal, Embedder):
        image, text = output.embeddings or (no_embeddings(signal.dimension, rows),) * 2
        columns |= {_side(signal, "image"): image, _side(signal, "text"): text}
    return columns


def scores_of(signal: Signal, outputs: pa.Table) -> dict[str, Column]:
    """Return a signal's columns of `scores`, by their names there."""
    names = zip(signal.columns, score_names(signal), strict=True)
    return {field.name: outputs[name] for field, name in names}


def errors_of(signal: ImageSignal, outputs: pa.Table) -> pa.ChunkedArray:
    """Return the error of each row on which a signal that keeps errors failed (string)."""
    return outputs[_errors(signal)]


def embeddings_of(signal: Signal, outputs: pa.Table) -> EmbeddingColumns:
    """Return the embeddings that a signal gives."""
    return EmbeddingColumns(outputs[_side(signal, "image")], outputs[_side(signal, "text")])


def score_names(signal: Signal) -> list[str]:
    """Return the names of a signal's own columns."""
    return [f"{signal.name}.{field.name}" for field in signal.columns]


def _fields(signal: Signal) -> list[pa.Field]:
    fields = [field.with_name(name) for field, name in zip(signal.columns, score_names(signal), strict=True)]
    if isinstance(signal, ImageSignal) and signal.keeps_errors:
        fields.append(pa.field(_errors(signal), pa.string()))
    if isinstance(signal, Embedder):
        kind = pa.list_(pa.float16(), signal.dimension)
        fields += [pa.field(_side(signal, side), kind) for side in ("image", "text")]
    return fields


def _errors(signal: Signal) -> str:
    return f"{signal.name} errors"


def _side(signal: Signal, side: str) -> str:
    return f"{signal.name} {side}"


def by_name(table: pa.Table) -> dict[str, Column]:
    """Return the columns of a table."""
    return dict(zip(table.column_names, table.columns, strict=True))
