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
    """What is written of the kept rows: shards, their columns, and how often a row counts.

    A sample's name is its key, if that is a safe file name and unique among kept samples; else its uid. Columns of the
    input are there in any case. Of Parquet without images these are all its columns. Of tars they are img2dataset's,
    and each further field of the samples' json that is a number, text or boolean (NSFW, LICENSE, similarity …), at most
    200:

    - A field has the type that most of its values in the pool have: `bool`, `int64`, `double` (where one is a float) or
      `string`.
    - A value of another type is null there. All shards have the same columns.
    - A default of `columns` is left out where the file has a column of that name.
    - `probability` is multiplied by `input_probability`, where the pool has such a column.

    `repeat` sees what rules see, `probability`, `entries` (how many the caption matches), and `rarest` (the smallest of
    their counts when balancing begins). NULL and less than 1 count as 1; at most 1,000. DataComp's resharder repeats
    rows by `uids.npy`. The better half of the kept rows twice, by a score of a top rule:

        derive: {place: quantile(clip_score)}
        rules: {best: {top: 0.2, of: clip_score}, duplicates: dedup}
        output: {repeat: CASE WHEN place > 0.5 THEN 2 ELSE 1 END}
    """

    gives = (Column("decisions", "repeats", "int32", "How often a row is in the set, 0 if not kept; with `repeat`."),)

    format: Annotated[str, KindOf(OUTPUTS)] | None = Field(None, exclude_if=is_none, examples=["webdataset"])
    """Format of the shards. null: `webdataset` of a pool with images, `parquet` of one without."""
    rows_per_shard: int = Field(10_000, examples=[1000], ge=1, le=1_000_000, strict=True)
    """Rows of every shard but the last."""
    columns: tuple[AnyColumn, ...] | None = Field(None, exclude_if=is_none, examples=[["clip_score", "language"]])
    """Columns of `shards/*.parquet` besides the input's. null: all scores, language and probability."""
    json_columns: tuple[AnyColumn, ...] = Field((), exclude_if=not_, examples=[["clip_score"]])
    """Columns that each sample's json has besides its own fields. Only of a pool with images."""
    repeat: Expression | None = Field(None, exclude_if=is_none, examples=["CASE WHEN rarest < 100 THEN 4 ELSE 1 END"])
    """How often a kept row is in `uids.npy`, 1 to 1,000. null: once."""
