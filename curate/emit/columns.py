"""The columns that shards have besides the fixed ones: scores, language and probability, as the recipe's `output` says.

In: a run's recipe and columns, and the tables of its units. Out: names, and columns of `samples`, `scores`, `derived` and `decisions`.
"""

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

# What the Parquet files beside tars have in any case: img2dataset's columns, the uid and the source. `sha256` is of the stored image;
# that of the image as img2dataset downloaded it, where it differs, is `original_sha256`.
SIDECAR = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        ("original_sha256", pa.string()),
        ("uid", pa.string()),
        ("source", pa.string()),
    ]
)
_TEXTS = ("curated_caption", "captions")  # of a pool without images that is captioned
_REPEATS = schema.REPEATS.name
_DECIDED = ("probability", "draw", _REPEATS)  # columns of `decisions`


class EmittedColumns(NamedTuple):
    """The names of those in the Parquet file of a shard, and in the json of each sample."""

    parquet: tuple[str, ...]
    json: tuple[str, ...]


def find_emitted(context: RunContext) -> EmittedColumns:
    """Return the columns that the recipe asks for; by default scores, language and probability in the Parquet files.

    A default column is left out where the file has one of that name already, and `repeats` is always there where rows repeat.

    Raises RecipeError for a column that there is not, or that an input has under this name, and for an INPUT_PROBABILITY that is
    no number.
    """
    recipe, pool, output = context.recipe, context.pool, context.recipe.output
    signals = find_signals(recipe.measure, context.models)
    visible = visible_columns(recipe.measure, signals, pool).names
    scores = score_schema(signals, pool).names[len(schema.ALIGNED) :]
    if INPUT_PROBABILITY in pool.scores.names and not _is_number(pool.scores.field(INPUT_PROBABILITY).type):
        found = pool.scores.field(INPUT_PROBABILITY).type
        raise RecipeError(
            f"input: column {INPUT_PROBABILITY!r} is {found}; accepted: numbers, by which `probability` is multiplied, or another name"
        )
    repeats = [_REPEATS] if output.repeat else []
    known = [*visible, *recipe.derive, *_DECIDED[:2], *repeats]
    inputs = [] if pool.output is None else pool.output.names
    there = set(SIDECAR.names) if pool.has_images else {name.lower() for name in ("uid", *_TEXTS, *inputs)}
    if repeats and _REPEATS in there:
        raise RecipeError(
            f"output.repeat: the inputs have a column {_REPEATS!r} already, which the output adds; rename it"
        )
    if output.json_columns and not pool.has_images:
        raise RecipeError(
            "output.json_columns: the pool has no images, so the output has no json; accepted: output.columns"
        )
    asked = [*scores, *(["language"] if "language" in visible else []), _DECIDED[0]]
    if output.columns is not None:
        asked = _check("output.columns", output.columns, known)
        own = {name.lower() for name in (*pool.scores.names, *pool.supplied)}
        taken = [name for name in asked if name.lower() in {n.lower() for n in inputs} - own]
        if taken:
            raise RecipeError(
                f"output.columns: the inputs have a column {taken[0]!r}, which the output has anyway; leave it out"
            )
    parquet = [name for name in [*asked, *repeats] if name.lower() not in there]
    in_json = _check("output.json_columns", output.json_columns, [name for name in known if name != "uid"])
    return EmittedColumns(tuple(dict.fromkeys(parquet)), tuple(in_json))


def read_kept(
    tables: UnitTables, columns: Sequence[str], derived: Collection[str] = (), was_drawn: bool = False
) -> pa.Table:
    """Return columns of a unit's kept rows; `derived` are those that the recipe derives.

    Where the pool says with which probability its rows were drawn before (`was_drawn`), `probability` is the product of both.
    """
    if not columns:
        return pa.table({})
    decided = [name for name in columns if name in _DECIDED]
    decisions = tables.read("decisions", ["kept", *decided])
    found = {name: decisions[name] for name in decided}
    if was_drawn and _DECIDED[0] in found:
        before = tables.read("scores", [INPUT_PROBABILITY])[0].cast(pa.float64())
        found[_DECIDED[0]] = pc.multiply(found[_DECIDED[0]], pc.fill_null(before, 1.0))
    if own := [name for name in columns if name in derived]:
        found |= dict(zip(own, tables.read("derived", own).columns, strict=True))
    measured = tables.read_measured([name for name in columns if name not in found])
    table = {name: found[name] if name in found else measured[name] for name in columns}
    return pa.table(table).filter(decisions["kept"])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _check(key: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names as `known` has them. Raises UnknownColumn."""
    by_lower = {name.lower(): name for name in known}
    for name in names:
        if name.lower() not in by_lower:
            hint = did_you_mean(name, known)
            raise UnknownColumn(f"{key}: no column {name!r}; {hint}columns: {', '.join(known)}", name)
    return list(dict.fromkeys(by_lower[name.lower()] for name in names))
