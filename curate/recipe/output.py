"""The section `output` of a recipe: what to write for the kept rows."""

from operator import not_
from typing import Annotated, Any

from pydantic import Field

from curate.base.registry import Registry
from curate.recipe.section import AnyColumn, Column, Expression, KindOf, Section, is_none

OUTPUTS = Registry[Any]("output format", ".emit.registry:KINDS", "curate.outputs", ".emit.output_format:OutputFormat")
"""The output formats, `curate.emit.output_format.OutputFormat`, in the order in which they are tried."""
MAX_REPEATS = 1000  # of a row in the curated set


class Output(Section):
    """Format and columns of the shards, and how often each row counts.

    A sample's name is its key if that is a safe file name and unique among kept samples, otherwise its uid. The shards
    always have the input's columns: all of a Parquet file, or those of img2dataset plus up to 200 fields of the
    samples' json with numbers, texts, or booleans. All shards have the same columns: a field has the type of most of
    its values in the pool, and values of other types become null. A default of `columns` is left out if the input has a
    column with that name. `probability` is multiplied by `input_probability`, if the pool has it.

    `repeat` is an [expression](rules.md#expressions). NULL and values below 1 count as 1. DataComp's resharder repeats
    rows by `uids.npy`. To repeat the better half of the kept rows:

        derive: {place: quantile(clip_score)}
        rules: {best: {top: 0.2, of: clip_score}, duplicates: dedup}
        output: {repeat: CASE WHEN place > 0.5 THEN 2 ELSE 1 END}
    """

    gives = (Column("decisions", "repeats", "int32", "How often a row is in the set, 0 if not kept; with `repeat`."),)

    format: Annotated[str, KindOf(OUTPUTS)] | None = Field(None, exclude_if=is_none, examples=["webdataset"])
    """Format of the shards. null: `webdataset` for a pool with images, otherwise `parquet`."""
    rows_per_shard: int = Field(10_000, examples=[1000], ge=1, le=1_000_000, strict=True)
    """Rows per shard; the last may have fewer."""
    columns: tuple[AnyColumn, ...] | None = Field(None, exclude_if=is_none, examples=[["clip_score", "language"]])
    """Columns of `shards/*.parquet` besides the input's. null: all scores, language, and probability."""
    json_columns: tuple[AnyColumn, ...] = Field((), exclude_if=not_, examples=[["clip_score"]])
    """Columns to add to each sample's json; only for a pool with images."""
    repeat: Expression | None = Field(None, exclude_if=is_none, examples=["CASE WHEN rarest < 100 THEN 4 ELSE 1 END"])
    """How often a kept row is in `uids.npy`, 1 to 1,000. null: once."""
