"""Captions on Beam: units whose decisions stand, and once their texts stand, the same; too many failures end the run."""

from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.unit import Captioned, caption_unit, check_requests
from curate.job import Job


class Caption(beam.PTransform):
    """(PCollection[Verdicts], survivors' counts or None) → PCollection[Verdicts], after all texts stand, and [Captioned]."""

    def __init__(self, job: Job, counts: Any) -> None:
        super().__init__()
        self._job, self._counts = job, counts

    def expand(self, verdicts: beam.PCollection[Any]) -> Any:
        """Units are asked for in parallel; what could not be answered is counted over all of them."""
        job = self._job
        counts = [] if self._counts is None else [AsSingleton(self._counts)]
        captioned = verdicts | "Ask" >> beam.Map(_caption, job, *counts)
        return verdicts | "Check" >> beam.Map(_checked, job, AsList(captioned)), captioned


def _caption(verdict: Any, job: Job, counts: Any = None) -> Captioned:
    with job.reporting():
        return caption_unit(job, verdict.unit, counts)


def _checked(verdict: Any, job: Job, captioned: list[Captioned]) -> Any:
    with job.reporting():
        check_requests(job, captioned)
    return verdict
