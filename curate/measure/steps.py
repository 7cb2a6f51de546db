"""Measuring all units: their tables are current after it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.text_hash import compile_kernels
from curate.base.schema import OK
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Answer, Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


def measure(units: Units, context: RunContext) -> Answer:
    """Write `samples`, `scores`, `embeddings` and `members` of each unit; return the list of files that could not be
    read.

    These are few, and what is decided depends on which they are.
    """
    return units.ask("Measure", _Measuring(context))


@dataclass(frozen=True)
class _Measuring:
    """Measure a unit, with settings that are made once in a process."""

    context: RunContext

    def __reduce__(self) -> tuple[Any, ...]:
        return _Measuring, (self.context,)

    @cached_property
    def _settings(self) -> MeasureSettings:
        return MeasureSettings.of(self.context)

    def __call__(self, tables: OpenTables, unit: Unit) -> Iterator[str]:
        compile_kernels()  # seconds that count for no unit
        with time_step(self.context.store, "measure", unit.name) as timer:
            yield from measure_unit(self._settings, unit, tables)
            timer.rows, timer.idle = tables.rows(), not tables.written
            if tables.written:
                is_ok = pc.equal(tables.read("samples", ["status"])["status"], pa.scalar(OK))
                timer.failed = timer.rows - int(is_ok.to_numpy().sum())
