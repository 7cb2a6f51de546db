"""Captions of all decided units; too many failures end the run."""

from collections.abc import Iterator
from typing import Any

from curate.base.numeric.arrays import I64
from curate.captions.settings import CaptionSettings
from curate.captions.unit import caption_unit
from curate.captions.work import Captioned, check_requests
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Answer, Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


def caption(units: Units, context: RunContext, audit: Answer, counts: Answer | None) -> tuple[Answer, Answer]:
    """Write the captions of each unit, once `audit`, of all units, says that the pool is not too damaged.

    `counts` are the survivors' (int64[entries]), None without match. Returns the audit, once all texts are written and
    not too many requests failed, and the list of Captioned.
    """
    captioned = units.ask("Caption: texts", _caption, audit, counts, context)
    return units.get("Caption: check", _check, audit, captioned, context), captioned


def _caption(
    tables: OpenTables, unit: Unit, audit: Any, counts: I64 | None, context: RunContext
) -> Iterator[Captioned]:
    with time_step(context.store, "caption", unit.name) as timer:
        timer.rows = audit.kept.get(unit.index, 0)
        yield caption_unit(CaptionSettings.of(context), unit, tables, counts)


def _check(audit: Any, captioned: list[Captioned], context: RunContext) -> Any:
    check_requests(captioned, context.recipe.max_failed)
    return audit
