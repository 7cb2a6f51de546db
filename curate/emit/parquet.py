"""Writes Parquet shards for pools without images: the uid, all columns of the inputs, and synthetic texts."""

from typing import Any

import pyarrow as pa

from curate.base.numeric.arrays import U64, concat_small
from curate.emit.columns import read_kept_samples
from curate.emit.layout import Shard, Slice
from curate.emit.output_format import OutputFormat
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.read.json_fields import json_bytes
from curate.store.tables import UnitTables


class ParquetOutput(OutputFormat):
    """The Parquet file is the shard."""

    key = "parquet"
    suffix = "parquet"
    media_type = "application/x-parquet"
    file_set = ("parquet", "one row per sample")

    def accepts(self, has_images: bool) -> bool:
        return not has_images

    def write(self, settings: EmitSettings, shard: Shard, repeated: U64, stats: dict[str, Any]) -> pa.Table:
        return concat_small(_read_rows(settings, part) for part in shard.slices)

    def card_lines(self, shards: int) -> list[str]:
        return ["- `shards/*.parquet` hold all input columns of the kept rows, ready for img2dataset."]


def _read_rows(settings: EmitSettings, part: Slice) -> pa.Table:
    with settings.open_tables(part.unit) as tables:
        rows = settings.recent.get((part.unit.index, "inputs"), lambda: _read_unit(settings, part.unit, tables))
        values = settings.kept_values(part, tables, settings.emitted.parquet)
        table = rows.slice(part.first, part.count)
        table = pa.table([*table.columns, *values.columns], names=[*table.column_names, *values.column_names])
        if settings.captioning is None:
            return table
        uids, captions = settings.kept_rows(part, tables, ["uid", "caption"]).to_pydict().values()
        written = settings.texts_to_emit(tables, uids, captions)
    chosen = [texts.chosen or texts.fields["original"] for texts in written]
    fields = [json_bytes(texts.fields).decode() for texts in written]  # as in the json of tars
    table = table.append_column("curated_caption", pa.array(chosen, pa.string()))
    return table.append_column("captions", pa.array(fields, pa.string()))


def _read_unit(settings: EmitSettings, unit: Unit, tables: UnitTables) -> pa.Table:
    assert settings.pool.output is not None
    kept = read_kept_samples(tables, ["row", "uid"])
    inputs = pa.concat_tables(settings.reader(unit, tables).rows(kept["row"].to_numpy(), settings.pool.output))
    return pa.table([kept["uid"], *inputs.columns], names=["uid", *inputs.column_names])
