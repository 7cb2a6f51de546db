"""Matching the captions of all units with the metadata's entries."""

from curate.match.matcher import compile_kernels
from curate.match.unit import MatchSettings, match_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


def match(units: Units, context: RunContext) -> None:
    """Write `matches` of each measured unit, whose captions are in memory where they were read just now."""
    units.then("Match", _match, MatchSettings.of(context))


def _match(tables: OpenTables, unit: Unit, settings: MatchSettings) -> Unit:
    compile_kernels()
    with time_step(settings.store, "match", unit.name) as timer:
        match_unit(settings, tables)
        timer.rows, timer.idle = tables.rows(), "matches" not in tables.written
    return unit
