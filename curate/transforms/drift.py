"""Drift on Beam: small samples of embeddings from each unit, merged by source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from curate.pool.plan import Unit
from curate.publish.drift import Group, Sample, measure_drifts, merge, sample_unit
from curate.recipe.measure import Measure
from curate.store.facts import DriftFacts
from curate.store.store import RunStore
from curate.store.tables import UnitTables
from curate.transforms.fold import Fold


@dataclass
class MeasureDrift(beam.PTransform):
    """Measure the drift of each source from samples of its embeddings. Only where embeddings are kept."""

    store: RunStore
    measure: Measure

    def expand(self, results: beam.PCollection[Any]) -> beam.PCollection[list[DriftFacts]]:
        """PCollection[UnitResult] → PCollection of one list[DriftFacts], by way of one sample a unit and source."""
        return (
            results
            | "Sample" >> beam.FlatMap(lambda result: self._sample(result.unit))
            | "Merge" >> beam.CombinePerKey(Fold(lambda one, other: merge([one, other])))
            | "Together" >> beam.combiners.ToDict()
            | "Measure" >> beam.Map(measure_drifts)
        )

    def _sample(self, unit: Unit) -> Iterator[tuple[Group, Sample]]:
        return sample_unit(self.measure, unit.source, UnitTables(self.store, unit.index))
