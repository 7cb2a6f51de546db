"""Captions on Beam: of decided units the texts; too many failures end the run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from curate.captions.settings import CaptionSettings
from curate.captions.unit import caption_unit
from curate.captions.work import Captioned, check_requests
from curate.pool.plan import Unit
from curate.publish.audit import Audit
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from pipelines.steps.functions import Map
from pipelines.steps.units import Units


def caption(units: Units, context: RunContext, audit: beam.PCollection[Audit], counts: Any) -> Any:
    """Write the captions of each unit, once `audit`, of all units, says that the pool is not too damaged.

    `counts` are the survivors' (a PCollection of one int64[entries]), None without match. Returns PCollection[Audit], the same
    once all texts are there and not too many requests failed, and PCollection[list[Captioned]].
    """
    steps = _Steps(context)
    side = [] if counts is None else [AsSingleton(counts)]
    captioned = units.ask(
        "Caption: texts", steps.caption, AsSingleton(audit), *side, combine=beam.combiners.ToList()
    ).get()
    return audit | "Caption: check" >> Map(steps.check, AsSingleton(captioned)), captioned


@dataclass(frozen=True)
class _Steps:
    context: RunContext

    def caption(self, tables: OpenTables, unit: Unit, audit: Audit, counts: Any = None) -> Iterator[Captioned]:
        with time_step(self.context.store, "caption", unit.name) as timer:
            timer.rows = audit.kept.get(unit.index, 0)
            settings = CaptionSettings.of(self.context)
            yield caption_unit(settings, unit, tables, counts)

    def check(self, audit: Audit, captioned: list[Captioned]) -> Audit:
        with noting_errors(self.context.store):
            check_requests(captioned, self.context.recipe.max_failed)
        return audit
