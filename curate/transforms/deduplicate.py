"""Deduplication on Beam: hashes meet in buckets, then the records of rows that may be duplicates, pass by pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from curate.decide import dedup, duplicates
from curate.decide.groups import Groups
from curate.decide.settings import DecideSettings
from curate.decide.state import UnitState
from curate.numeric.arrays import U64
from curate.transforms.near import FindGroups


@dataclass
class Deduplicate(beam.PTransform):
    """Drop the duplicates pass by pass.

    Recall is int64[2] for each pass by nearness: the sum of `Nearness.recall`. `on_one_machine`: see `FindGroups`.
    """

    settings: DecideSettings
    n_buckets: int
    on_one_machine: bool

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection[UnitState] without duplicates, and PCollection[(place, recall)] of the passes.

        Hashes go to buckets, repeated ones back to their units, then candidates' records through the passes.
        """
        found = {
            place: states | f"Near {place}" >> FindGroups(self.settings, by, self.n_buckets, self.on_one_machine)
            for place, by in self.settings.near.items()
        }
        groups = [AsSingleton(pair[0]) for pair in found.values()]
        recalls = [
            pair[1] | f"Place {place}" >> beam.Map(lambda counts, place=place: (place, counts))
            for place, pair in found.items()
        ]
        by_unit = states | "ByUnit" >> beam.Map(lambda state: (state.unit.index, state))
        repeated = (
            states
            | "Hash" >> beam.FlatMap(lambda state, *found: self._hash(state, self._groups(found)), *groups)
            | "Buckets" >> beam.GroupByKey()
            | "Repeated" >> beam.FlatMap(_repeated)
        )
        records = (
            {"state": by_unit, "repeated": repeated}
            | "Candidates" >> beam.CoGroupByKey()
            | "Records" >> beam.FlatMap(lambda item, *found: self._first_records(item, self._groups(found)), *groups)
        )
        for i in range(len(self.settings.passes)):
            records = (
                records
                | f"Group {i}" >> beam.GroupByKey()
                | f"Resolve {i}" >> beam.FlatMap(lambda item, i=i: self._resolve(item[1], i))
            )
        left = (
            {"state": by_unit, "lost": records}
            | "Lost" >> beam.CoGroupByKey()
            | "Drop" >> beam.Map(lambda item: duplicates.drop_duplicates(item[1]["state"][0], item[1]["lost"]))
        )
        return left, tuple(recalls) | "Recalls" >> beam.Flatten(pipeline=states.pipeline)

    def _groups(self, found: tuple[Groups, ...]) -> dict[int, Groups]:
        return dict(zip(self.settings.near, found, strict=True))

    def _hash(self, state: UnitState, groups: dict[int, Groups]) -> Iterator[tuple[tuple[int, int], tuple[int, U64]]]:
        for bucket, hashes in duplicates.hash_keys(self.settings, state, self.n_buckets, groups):
            yield bucket, (state.unit.index, hashes)

    def _first_records(self, item: tuple[int, dict[str, Any]], groups: dict[int, Groups]) -> Iterator[tuple[int, Any]]:
        [state], repeated = item[1]["state"], item[1]["repeated"]
        if repeated:
            yield from self._split(duplicates.find_candidates(self.settings, state, repeated, groups), 0)

    def _resolve(self, parts: Iterable[Any], index: int) -> Iterator[tuple[int, Any]]:
        """Yield the records after a pass by bucket of the next one; after the last one the dead, by unit."""
        records = dedup.resolve(np.concatenate(list(parts)), index)
        if index + 1 < len(self.settings.passes):
            yield from self._split(records, index + 1)
            return
        lost = records[records["dead"]]
        for unit in np.unique(lost["unit"]):
            yield int(unit), lost[lost["unit"] == unit]

    def _split(self, records: Any, index: int) -> Iterator[tuple[int, Any]]:
        buckets = dedup.buckets_for(records, index, self.n_buckets)
        for bucket in np.unique(buckets):
            yield int(bucket), records[buckets == bucket]


def _repeated(item: tuple[tuple[int, int], Iterable[tuple[int, U64]]]) -> Iterator[tuple[int, tuple[int, U64]]]:
    """Yield the hashes of a bucket that repeat, for each unit that has some: (unit, (pass, hashes))."""
    (place, _), found = item
    parts = list(found)
    repeated = dedup.repeated(hashes for _, hashes in parts)
    if len(repeated):
        for unit, hashes in parts:
            shared = hashes[np.isin(hashes, repeated)]
            if len(shared):
                yield unit, (place, shared)
