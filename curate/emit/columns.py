"""The columns of shards besides the fixed ones, from the recipe's `output`: scores, language, probability."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.errors import RecipeError, UnknownColumn
from curate.base.schema import INPUT_PROBABILITY
from curate.base.wording import did_you_mean
from curate.run.columns import score_schema, visible_columns
from curate.run.context import RunContext
from curate.signals.registry import find_signals
from curate.store.tables import UnitTables

# Fixed columns of the Parquet files beside tars: img2dataset's columns, the uid and the source. `sha256` is of the
# stored image; if the image differs from the download, the digest of the download is `original_sha256`.
SIDECAR = pa.schema(
    dict.fromkeys(("url", "key", "caption", "status", "error_message"), pa.string())
    | dict.fromkeys(("width", "height", "original_width", "original_height"), pa.int32())
    | dict.fromkeys(("exif", "sha256", "original_sha256", "uid", "source"), pa.string())
)
_TEXTS = ("curated_caption", "captions")  # for a captioned pool without images
_REPEATS = schema.REPEATS.name
_DECIDED = ("probability", "draw", _REPEATS)  # columns of `decisions`


class EmittedColumns(NamedTuple):
    """The names of the columns in a shard's Parquet file, and in each sample's json."""

    parquet: tuple[str, ...]
    json: tuple[str, ...]


def find_emitted(context: RunContext) -> EmittedColumns:
    """Return the columns that the recipe lists; by default scores, language and probability in the Parquet files.

    A default column is left out if the file has one with that name, and `repeats` is added if rows repeat. Raises
    RecipeError for an unknown column, for one that an input also has, and for an INPUT_PROBABILITY that is not numeric.
    """
    recipe, pool, output = context.recipe, context.pool, context.recipe.output
    signals = find_signals(recipe.measure, context.models)
    visible = visible_columns(recipe, signals, pool).names
    scores = score_schema(signals, pool).names[len(schema.ALIGNED) :]
    drawn = pool.scores.field(INPUT_PROBABILITY).type if INPUT_PROBABILITY in pool.scores.names else pa.float64()
    if not (pa.types.is_floating(drawn) or pa.types.is_integer(drawn)):
        accepted = "numbers, with which curate multiplies `probability`; or rename the column"
        raise RecipeError(f"input: column {INPUT_PROBABILITY!r} is {drawn}; accepted: {accepted}")
    repeats = [_REPEATS] if recipe.repeats else []
    available = [*visible, *recipe.derive, *_DECIDED[:2], *repeats]
    inputs = [] if pool.output is None else pool.output.names
    fixed = set(SIDECAR.names) if pool.has_images else {name.lower() for name in ("uid", *_TEXTS, *inputs)}
    if repeats and _REPEATS in fixed:
        raise RecipeError(f"output.repeat: the inputs have a column {_REPEATS!r}, which the output adds; rename it")
    if output.json_columns and not pool.has_images:
        reason = "the pool has no images, so the output has no json"
        raise RecipeError(f"output.json_columns: {reason}; accepted: output.columns")
    if output.columns is None:
        language = ["language"] if "language" in visible else []
        listed = [*scores, *language, _DECIDED[0]]
    else:
        listed = _check("output.columns", output.columns, available)
        copied = {name.lower() for name in inputs} - {name.lower() for name in (*pool.scores.names, *pool.supplied)}
        if name := next((name for name in listed if name.lower() in copied), None):
            reason = f"the output always has the inputs' column {name!r}"
            raise RecipeError(f"output.columns: {reason}; remove it from the list")
    parquet = [name for name in [*listed, *repeats] if name.lower() not in fixed]
    in_json = _check("output.json_columns", output.json_columns, [name for name in available if name != "uid"])
    return EmittedColumns(tuple(dict.fromkeys(parquet)), tuple(in_json))


def read_kept_samples(tables: UnitTables, columns: list[str]) -> pa.Table:
    """Return columns of `samples` for a unit's kept rows."""
    return tables.read("samples", columns).filter(tables.read("decisions", ["kept"])["kept"])


def read_kept(tables: UnitTables, names: Sequence[str], derived: Collection[str] = (), drawn: bool = False) -> pa.Table:
    """Return columns for a unit's kept rows; `derived` are the derived ones."""
    if not names:
        return pa.table({})
    decided = [name for name in names if name in _DECIDED]
    decisions = tables.read("decisions", ["kept", *decided])
    values = {name: decisions[name] for name in decided}
    if drawn and _DECIDED[0] in values:  # the pool has the probability of an earlier draw: multiply
        before = tables.read("scores", [INPUT_PROBABILITY])[0].cast(pa.float64())
        values[_DECIDED[0]] = pc.multiply(values[_DECIDED[0]], pc.if_else(before.is_valid(), before, pa.scalar(1.0)))
    if of_recipe := [name for name in names if name in derived]:
        values |= zip(of_recipe, tables.read("derived", of_recipe).columns, strict=True)
    measured = tables.read_measured([name for name in names if name not in values])
    table = pa.table([values[name] if name in values else measured[name] for name in names], names=list(names))
    return table.filter(decisions["kept"])


def _check(key: str, names: Sequence[str], available: Sequence[str]) -> list[str]:
    by_lower = {name.lower(): name for name in available}
    for name in names:
        if name.lower() not in by_lower:
            hint = did_you_mean(name, available)
            raise UnknownColumn(f"{key}: no column {name!r}; {hint}columns: {', '.join(available)}", name)
    return list(dict.fromkeys(by_lower[name.lower()] for name in names))
