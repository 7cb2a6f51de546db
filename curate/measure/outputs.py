"""What signals observe of a part, as columns of one table, whose names hold the signal's.

Of a signal `S`: `S.COLUMN` of each column, `S errors` where it is of another package, `S image` and `S text` where it
gives embeddings.
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
    fields: list[pa.Field] = []
    for signal in signals:
        fields += [field.with_name(f"{signal.name}.{field.name}") for field in signal.columns]
        if isinstance(signal, ImageSignal) and signal.package:
            fields.append(pa.field(f"{signal.name} errors", pa.string()))
        if isinstance(signal, Embedder):
            kind = pa.list_(pa.float16(), signal.dimension)
            fields += [pa.field(f"{signal.name} {side}", kind) for side in EmbeddingColumns._fields]
    return pa.schema(fields)


def output_columns(signal: Signal, output: SignalOutput, rows: int) -> dict[str, pa.Array]:
    """Return a signal's output by name; without embeddings that it was to give, rows have none."""
    columns = [*output.columns, *([] if output.errors is None else [output.errors])]
    if isinstance(signal, Embedder):
        columns += output.embeddings or [no_embeddings(signal.dimension, rows)] * 2
    return dict(zip(output_schema([signal]).names, columns, strict=True))


def scores_of(signal: Signal, outputs: pa.Table) -> dict[str, Column]:
    """Return a signal's columns of `scores`, by their names there."""
    return {field.name: outputs[f"{signal.name}.{field.name}"] for field in signal.columns}


def errors_of(signal: ImageSignal, outputs: pa.Table) -> pa.ChunkedArray:
    """Return the error of each row on which a signal of another package failed (string)."""
    return outputs[f"{signal.name} errors"]


def embeddings_of(signal: Signal, outputs: pa.Table) -> EmbeddingColumns:
    """Return the embeddings that a signal gives."""
    return EmbeddingColumns(*(outputs[f"{signal.name} {side}"] for side in EmbeddingColumns._fields))


def by_name(table: pa.Table) -> dict[str, Column]:
    """Return the columns of a table."""
    return dict(zip(table.column_names, table.columns, strict=True))
