"""The section `output` of a recipe: what to write for the kept rows."""

from operator import not_
from typing import Annotated, Any

from pydantic import Field

from curate.base.registry import Registry
from curate.recipe.section import AnyColumn, Column, Expression, KindOf, Section, is_none

OUTPUTS = Registry[Any]("output format", ".emit.registry:KINDS", "curate.outputs", ".emit.output_format:OutputFormat")
"""The output formats, `curate.emit.output_format.OutputFormat`, in the order in which they are tried."""
MAX_REPEATS = 1000  # maximum number of times that the curated set has a row


class Output(Section):
    """Sets the format and columns of the shards, and how often each row repeats.

    **Names.** In the shards, curate names each sample by its key. It uses the uid instead if the key is not a safe file
    name, or if another kept sample has the same key.

    **Columns.** The shards always have the input's columns. If the pool has no images, these are all its columns. If it
    has images, they are img2dataset's columns, and up to 200 json fields with numbers, texts, or booleans. All shards
    have the same columns: a json field becomes a column with the type of most of its values in the pool, and values of
    other types become null. By default, `columns` does not add a column if the input already has one with the same
    name. If the pool has a column `input_probability`, curate multiplies `probability` by it.

    **Repeats.** `repeat` is an [expression](rules.md#expressions). NULL and values below 1 count as 1. DataComp's
    resharder repeats each row as often as its uid is in `uids.npy`. To repeat the better half of the kept rows:

        derive: {place: quantile(clip_score)}
        rules: {best: {top: 0.2, of: clip_score}, duplicates: dedup}
        output: {repeat: CASE WHEN place > 0.5 THEN 2 ELSE 1 END}
    """

    gives = (Column("decisions", "repeats", "int32", "How often `uids.npy` has the row. Only if `repeat` is set."),)

    format: Annotated[str, KindOf(OUTPUTS)] | None = Field(None, exclude_if=is_none, examples=["webdataset"])
    """Format of the shards. null: `webdataset` for a pool with images, otherwise `parquet`."""
    rows_per_shard: int = Field(10_000, examples=[1000], ge=1, le=1_000_000, strict=True)
    """Rows per shard. The last shard may have fewer."""
    columns: tuple[AnyColumn, ...] | None = Field(None, exclude_if=is_none, examples=[["clip_score", "language"]])
    """Columns to add to `shards/*.parquet`, besides the input's. null: all scores, `language`, and `probability`."""
    json_columns: tuple[AnyColumn, ...] = Field((), exclude_if=not_, examples=[["clip_score"]])
    """Columns to add to each sample's json, if the pool has images."""
    repeat: Expression | None = Field(None, exclude_if=is_none, examples=["CASE WHEN rarest < 100 THEN 4 ELSE 1 END"])
    """How often each kept row is in `uids.npy`, from 1 to 1,000 times. null: once."""
