"""Captions on Beam: audits of decided units, and once their texts are there, the same; too many failures end the run."""

from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.settings import CaptionSettings
from curate.captions.unit import caption_unit
from curate.captions.work import Captioned, check_requests
from curate.publish.audit import Audit, PublishSettings, check_damage
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.store.timings import time_step
from curate.transforms.threads import MapInThreads


@dataclass
class Caption(beam.PTransform):
    """Write the captions of each unit; `counts` are the survivors' (a PCollection of one vector), None without match."""

    context: RunContext
    counts: Any

    def expand(self, audits: beam.PCollection[Audit]) -> Any:
        """PCollection[Audit] → PCollection[Audit], the same once all texts are there, and PCollection[Captioned].

        Requests are sent unit by unit in parallel, once the pool is known not to be too damaged; failures are counted over all.
        """
        counts = [] if self.counts is None else [AsSingleton(self.counts)]
        start = audits.pipeline | "Start" >> beam.Create([None])
        sound = start | "Damage" >> beam.Map(self._check_damage, AsList(audits))
        captioned = audits | "Ask" >> MapInThreads(self._caption, AsSingleton(sound), *counts)
        return audits | "Check" >> beam.Map(self._check, AsList(captioned)), captioned

    def _check_damage(self, _: None, audits: list[Audit]) -> bool:
        with noting_errors(self.context.store):
            check_damage(PublishSettings.of(self.context), audits)
        return True

    def _caption(self, audit: Audit, sound: bool, counts: Any = None) -> Captioned:
        context, unit = self.context, audit.unit
        with noting_errors(context.store), time_step(context.store, "caption", unit.name) as timer:
            timer.rows = audit.kept
            return caption_unit(CaptionSettings.of(context), unit, context.unit_tables(unit), counts)

    def _check(self, audit: Audit, captioned: list[Captioned]) -> Audit:
        with noting_errors(self.context.store):
            check_requests(captioned, self.context.recipe.max_failed)
        return audit
