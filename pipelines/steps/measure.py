"""Measuring and matching on Beam: units' tables are current after it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.match.matcher import compile_kernels
from curate.match.unit import MatchSettings, match_unit
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from pipelines.steps.units import Answers, Units


def measure(units: Units, context: RunContext) -> Answers:
    """Write `samples`, `scores`, `embeddings` and `members` of each unit; return the files that could not be read.

    These are few, and what is decided depends on which they are: PCollection[str].
    """
    return units.ask("Measure", _Steps(context).measure)


def match(units: Units, context: RunContext) -> None:
    """Write `matches` of each measured unit, whose captions are in memory where they were read just now."""
    units.then("Match", _Steps(context).match)


@dataclass(frozen=True)
class _Steps:
    """The steps, with settings that are made once in a process."""

    context: RunContext

    def __reduce__(self) -> tuple[Any, ...]:
        return _Steps, (self.context,)

    @cached_property
    def _measuring(self) -> MeasureSettings:
        return MeasureSettings.of(self.context)

    @cached_property
    def _matching(self) -> MatchSettings:
        return MatchSettings.of(self.context)

    def measure(self, tables: OpenTables, unit: Unit) -> Iterator[str]:
        with time_step(self.context.store, "measure", unit.name) as timer:
            yield from measure_unit(self._measuring, unit, tables)
            timer.rows, timer.idle = tables.rows(), not tables.written

    def match(self, tables: OpenTables, unit: Unit) -> Unit:
        compile_kernels()
        with time_step(self.context.store, "match", unit.name) as timer:
            match_unit(self._matching, tables)
            timer.rows, timer.idle = tables.rows(), "matches" not in tables.written
        return unit
