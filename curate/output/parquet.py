"""Shards of Parquet, of pools without images: the uid, all columns of the inputs, and the texts that were written."""

import pyarrow as pa

from curate.captions.mix import EmittedTexts
from curate.numeric.arrays import U64
from curate.output.layout import Shard, Slice
from curate.output.output_format import OutputFormat
from curate.output.settings import EmitSettings
from curate.pool.json_fields import json_bytes
from curate.pool.plan import Unit


class ParquetOutput(OutputFormat):
    """The Parquet file is the shard."""

    key = "parquet"
    suffix = "parquet"
    media_type = "application/x-parquet"
    file_set = ("parquet", "one row per sample")

    def accepts(self, has_images: bool) -> bool:
        """Return whether the pool has no images."""
        return not has_images

    def write(self, settings: EmitSettings, shard: Shard, repeated: U64) -> pa.Table:
        """Return the rows of the shard."""
        return pa.concat_tables(_read_rows(settings, part) for part in shard.slices)

    def card_lines(self, shards: int) -> list[str]:
        """Return what img2dataset finds."""
        return ["- `shards/*.parquet` hold all input columns of the kept rows, ready for img2dataset."]


def _read_rows(settings: EmitSettings, part: Slice) -> pa.Table:
    """Return the slice's rows: the uid, and all columns of the inputs.

    `uid` is the run's, whatever an input has in a column of that name. It comes first, so that it is what SQL, which ignores
    case, finds under that name.
    """
    kept = settings.kept_rows(part, ["uid"] if settings.captioning is None else ["uid", "caption"])
    inputs = settings.recent.get((part.unit.index, "inputs"), lambda: _read_inputs(settings, part.unit))
    columns = inputs.slice(part.first, part.count)
    table = pa.table([kept["uid"], *columns.columns], names=["uid", *columns.column_names])
    if settings.captioning is None:
        return table
    written = settings.texts_to_emit(part.unit, kept["uid"].to_pylist(), kept["caption"].to_pylist())
    return _with_texts(table, written)


def _read_inputs(settings: EmitSettings, unit: Unit) -> pa.Table:
    """Return all columns of the inputs, of the unit's kept rows."""
    assert settings.pool.output is not None
    rows = settings.tables(unit).read("decisions", ["row", "kept"])
    places = rows["row"].filter(rows["kept"]).to_numpy()
    return pa.concat_tables(settings.reader(unit).rows(places, settings.pool.output))


def _with_texts(table: pa.Table, written: list[EmittedTexts]) -> pa.Table:
    """Return the rows with the texts that were written: `curated_caption`, and `captions` as the json of tars has it."""
    chosen = [texts.chosen or texts.fields["original"] for texts in written]
    fields = [json_bytes(texts.fields).decode() for texts in written]
    table = table.append_column("curated_caption", pa.array(chosen, pa.string()))
    return table.append_column("captions", pa.array(fields, pa.string()))
