"""The keys of all tables that a run writes, each asked of the step that owns it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from curate.base import ids
from curate.base.process import in_threads
from curate.captions.settings import CaptionSettings
from curate.decide.settings import decisions_key
from curate.emit.settings import EmitSettings
from curate.match.unit import MatchSettings
from curate.measure.settings import TABLES, MeasureSettings
from curate.pool.plan import Unit
from curate.run.columns import table_names
from curate.run.context import RunContext


def table_keys(context: RunContext) -> dict[str, Callable[[Unit], str]]:
    """Return, for each table of a run, what gives its key from a unit that all files of can be read."""
    measure, decided = MeasureSettings.of(context), decisions_key(context)
    keys: dict[str, Callable[[Unit], str]] = {name: partial(measure.key, name) for name in measure.tables}
    if context.recipe.match:
        match = MatchSettings.of(context)
        keys["matches"] = lambda unit: match.key(measure.key("samples", unit))
    keys |= dict.fromkeys(("derived", "decisions"), lambda unit: decided)
    if context.recipe.captions:
        captions = CaptionSettings.of(context)
        keys |= dict.fromkeys(("answers", "captions", "regions"), lambda unit: captions.key(unit, decided))
    return {name: keys[name] for name in table_names(context)}


def run_keys(context: RunContext, units: Sequence[Unit]) -> dict[str, str]:
    """Return the digest of each table's keys over all units, and the keys of the pool and of the shards."""
    tables = {name: ids.digest([key(unit) for unit in units]) for name, key in table_keys(context).items()}
    return {"pool": context.pool.key, **tables, "shards": EmitSettings.of(context).key}


def count_current(context: RunContext, units: Sequence[Unit]) -> dict[str, int]:
    """Return of how many units each table is current, or would be once adopted from the run to reuse."""
    keys = table_keys(context)

    def are_current(unit: Unit) -> list[bool]:
        tables = context.unit_tables(unit)
        alone = replace(tables, reuse=None)  # decisions are never adopted: cheap, and by what could be read
        places = {"derived": alone, "decisions": alone}
        return [
            places.get(name, tables).would_be_current(name, key(unit))
            or (name in TABLES and tables.would_be_current(name, key(unit.before)))
            for name, key in keys.items()
        ]

    counts = dict.fromkeys(keys, 0)
    for current in in_threads(are_current, units):
        counts = {name: counts[name] + is_current for name, is_current in zip(keys, current, strict=True)}
    return counts
