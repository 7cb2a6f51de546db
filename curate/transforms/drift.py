"""Drift on Beam: small samples of embeddings from each unit, merged by source."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from curate.publish.drifts import Sample, measure_drifts, merge, sample_unit
from curate.run.context import RunContext
from curate.store.facts import DriftFacts


class MeasureDrift(beam.PTransform):
    """PCollection[UnitResult] → PCollection of one list: the rows of table `drift`."""

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, verdicts: beam.PCollection[Any]) -> beam.PCollection[list[DriftFacts]]:
        """Only where embeddings are kept."""
        context = self._context
        return (
            verdicts
            | "Sample" >> beam.FlatMap(lambda v: sample_unit(context, v.unit))
            | "Merge" >> beam.CombinePerKey(_Merged())
            | "Together" >> beam.combiners.ToDict()
            | "Measure" >> beam.Map(measure_drifts)
        )


class _Merged(beam.CombineFn):
    """One sample of many; a worker holds a few thousand rows, not the units' samples."""

    def create_accumulator(self) -> list[Sample]:
        return []

    def add_input(self, accumulator: list[Sample], element: Sample) -> list[Sample]:
        return [self._one([*accumulator, element])]

    def merge_accumulators(self, accumulators: Iterable[list[Sample]]) -> list[Sample]:
        samples = [sample for part in accumulators for sample in part]
        return [self._one(samples)] if samples else []

    def extract_output(self, accumulator: list[Sample]) -> Sample:
        return accumulator[0]

    def _one(self, samples: list[Sample]) -> Sample:
        return merge(samples)
