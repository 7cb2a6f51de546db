"""Matching the captions of all units with the metadata's entries."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.match.matcher import compile_kernels
from curate.match.unit import MatchSettings, match_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


def match(units: Units, context: RunContext) -> None:
    """Write `matches` of each measured unit, whose captions are in memory where they were read just now."""
    units.then("Match", _Matching(context))


@dataclass(frozen=True)
class _Matching:
    """Match a unit, with settings that are made once in a process."""

    context: RunContext

    def __reduce__(self) -> tuple[Any, ...]:
        return _Matching, (self.context,)

    @cached_property
    def _settings(self) -> MatchSettings:
        return MatchSettings.of(self.context)

    def __call__(self, tables: OpenTables, unit: Unit) -> Unit:
        compile_kernels()
        with time_step(self.context.store, "match", unit.name) as timer:
            match_unit(self._settings, tables)
            timer.rows, timer.idle = tables.rows(), "matches" not in tables.written
        return unit
