"""The columns that a run's tables have beyond the fixed ones, and which of all columns rules see.

They follow from the recipe's section `measure`, its signals, and what the pool's own columns are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate import schema
from curate.pool.plan import Pool
from curate.recipe.measure import Measure
from curate.signals.signal import Signal


def score_schema(signals: Sequence[Signal], pool: Pool) -> pa.Schema:
    """Return the columns of table `scores`: those of signals, then those that the pool supplies."""
    columns = [column for signal in signals for column in signal.columns]
    return pa.schema([*schema.ALIGNED, *columns, *pool.scores])


def embedding_schema(measure: Measure, models: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of table `embeddings`: of each model whose embeddings are kept, the image's and the text's."""
    columns = []
    for one in measure.kept:
        kind = pa.list_(pa.float16(), models[one.name]["dimension"])
        columns += [pa.field(f"{one.prefix}{side}", kind) for side in ("image", "text")]
    return pa.schema([*schema.ALIGNED, *columns])


def visible_columns(measure: Measure, signals: Sequence[Signal], pool: Pool) -> pa.Schema:
    """Return the columns that rules see: what is measured or supplied, in `samples` and `scores`."""
    hidden = {"unit", "row", "offset", "status", "error"}
    if not pool.images:
        hidden |= {"bytes", "format", "sha256", "shard", "key"} | ({"width", "height", "url"} - pool.supplied)
    if not (pool.images and measure.image.phash):
        hidden.add("phash")
    hidden |= {"language"} - pool.supplied - {name for signal in signals for name in signal.sample_columns}
    columns = [field for field in schema.SAMPLES if field.name not in hidden]
    return pa.schema([*columns, *list(score_schema(signals, pool))[len(schema.ALIGNED) :]])
