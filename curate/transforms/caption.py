"""Captions on Beam: audits of units whose decisions stand, and once their texts stand, the same; too many failures end the run."""

from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.unit import Captioned, caption_unit, check_requests
from curate.publish.audit import Audit, check_damage
from curate.publish.settings import PublishSettings
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step


class Caption(beam.PTransform):
    """(PCollection[Audit], survivors' counts or None) → PCollection[Audit], after all texts stand, and [Captioned]."""

    def __init__(self, context: RunContext, counts: Any) -> None:
        super().__init__()
        self._context, self._counts = context, counts

    def expand(self, audits: beam.PCollection[Audit]) -> Any:
        """Units are asked for in parallel, once the pool is known not to be too damaged; failures are counted over all."""
        context = self._context
        counts = [] if self._counts is None else [AsSingleton(self._counts)]
        start = audits.pipeline | "Start" >> beam.Create([None])
        sound = start | "Damage" >> beam.Map(_check_damage, context, AsList(audits))
        captioned = audits | "Ask" >> beam.Map(_caption, context, AsSingleton(sound), *counts)
        return audits | "Check" >> beam.Map(_checked, context, AsList(captioned)), captioned


def _check_damage(_: None, context: RunContext, audits: list[Audit]) -> bool:
    with noting_errors(context.store):
        check_damage(PublishSettings.of(context), audits)
    return True


def _caption(audit: Audit, context: RunContext, sound: bool, counts: Any = None) -> Captioned:
    with noting_errors(context.store), time_step(context.store, "caption", audit.unit.name) as timer:
        timer.rows = audit.kept
        return caption_unit(context, audit.unit, counts)


def _checked(audit: Audit, context: RunContext, captioned: list[Captioned]) -> Audit:
    with noting_errors(context.store):
        check_requests(context, captioned)
    return audit
