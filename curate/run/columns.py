"""The columns of a run's tables, except the fixed ones, and the columns that rules can use."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.base import schema, stages
from curate.base.errors import RecipeError
from curate.pool.plan import Pool
from curate.pool.registry import find_format
from curate.read.columns import Columns
from curate.recipe.measure import Measure
from curate.recipe.recipe import REFERENCE, Recipe
from curate.recipe.relate import RELATIONS
from curate.run.context import RunContext
from curate.signals.registry import find_signals
from curate.signals.signal import ImageSignal, Signal, filled_columns


def score_schema(signals: Sequence[Signal], pool: Pool) -> pa.Schema:
    """Return the columns of the table `scores`: columns of signals, then columns from the pool."""
    columns = [column for signal in signals for column in signal.columns]
    return pa.schema([*schema.ALIGNED, *columns, *pool.scores])


def embedding_schema(measure: Measure, models: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of the table `embeddings`: image and text embeddings of each model with `keep: true`."""
    kinds = {model.prefix: pa.list_(pa.float16(), models[model.name]["dimension"]) for model in measure.kept}
    columns = [pa.field(f"{prefix}{side}", kind) for prefix, kind in kinds.items() for side in ("image", "text")]
    return pa.schema([*schema.ALIGNED, *columns])


def related_columns(recipe: Recipe) -> list[pa.Field]:
    """Return the columns that the table `related` adds."""
    requested = recipe.relate.requested
    return [field for key, name, section in requested for field in RELATIONS.find(key).columns(name, section)]


def visible_columns(recipe: Recipe, signals: Sequence[Signal], pool: Pool) -> pa.Schema:
    """Return the columns that rules can use: measured, related and supplied ones, and those from an image's sides."""
    hidden = {"unit", "row", "offset", "status", "error"}
    if not pool.has_images:
        hidden |= {"bytes", "format", "sha256", "original_sha256", "shard"}
        hidden |= {"width", "height", "url", "key"} - pool.supplied
    if not (pool.has_images and recipe.measure.image.phash):
        hidden.add("phash")
    hidden |= {"language"} - pool.supplied - set(filled_columns(signals))
    columns = [field for field in schema.SAMPLES if field.name not in hidden]
    scores = [*list(score_schema(signals, pool))[len(schema.ALIGNED) :], *related_columns(recipe)]
    names = {field.name.lower() for field in scores}
    if recipe.match and recipe.match.mode != REFERENCE and schema.LANGUAGE_KEY.name not in names:
        scores.append(schema.LANGUAGE_KEY)
    sides = [] if hidden & {"width", "height"} else [field for field in schema.SIDES if field.name not in names]
    return pa.schema([*columns, *scores, *sides])


def table_names(context: RunContext) -> tuple[str, ...]:
    """Return the names of each unit's tables, in the order in which they are written."""
    if context.tables is not None:
        return context.tables
    recipe, signals = context.recipe, find_signals(context.recipe.measure, context.models)
    has = {
        "scores": len(score_schema(signals, context.pool)) > len(schema.ALIGNED),
        "members": context.pool.has_images and any(find_format(source).has_members for source in recipe.input),
    }
    return tuple(name for name, section in stages.TABLES.items() if has.get(name, True) and recipe.has(section))


def check_columns(recipe: Recipe, pool: Pool, signals: Sequence[Signal]) -> None:
    """Check that the pool has what signals need, and that no two columns have the same name. Raises RecipeError."""
    from_images = [signal.name for signal in signals if isinstance(signal, ImageSignal)]
    if from_images and not pool.has_images:
        raise RecipeError(f"measure: {from_images[0]} needs images, and the pool has none")
    measured = filled_columns(signals)
    for source in recipe.input:
        columns = getattr(source, "columns", None)
        if isinstance(columns, Columns) and columns.language and "language" in measured:
            both = "columns.language names a column, and measure.language measures it"
            raise RecipeError(f"input {source.name!r}: {both}; leave one out")
    if recipe.match and recipe.match.mode != REFERENCE and "language" not in {*pool.supplied, *measured}:
        error = f"match.mode: {recipe.match.mode} matches captions by their languages, which the recipe does not have"
        accepted = "measure: {language: {}}, or a column of the pool: input: {columns: {language: NAME}}"
        raise RecipeError(
            f"{error}; accepted: {accepted}; or match: {{mode: {REFERENCE}}}, for metadata of one language"
        )
    supplied = {name.lower() for name in pool.scores.names}
    labels = dict.fromkeys(schema.OWN_COLUMNS, "every run")  # column → what adds it
    for name, label in ((column.name, signal.label) for signal in signals for column in signal.columns):
        if name in labels:
            has_one = f"{labels[name]} also has a column with this name"
            raise RecipeError(f"measure: {label} has a column {name}, and {has_one}; rename it")
        if name in supplied:
            error = f"{label} and the pool both have a column {name}; remove the signal or give it another name"
            accepted = "or take other columns of the pool, with columns.scores or join.columns"
            raise RecipeError(f"measure: {error}, {accepted}")
        labels[name] = label
    for name in (column.name for column in related_columns(recipe)):
        if name in labels or name in supplied:
            raise RecipeError(f"relate: a column {name} exists already; give the relation another name")
        labels[name] = "relate"
