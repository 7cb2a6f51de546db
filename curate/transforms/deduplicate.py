"""Deduplication on Beam: hashes meet in buckets, then the records of rows that may be duplicates, pass by pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from curate.decide import dedup
from curate.decide.groups import Groups
from curate.decide.per_unit import drop_duplicates, find_candidates, hash_keys
from curate.decide.settings import DecideSettings
from curate.decide.state import UnitState
from curate.numeric.arrays import U64
from curate.transforms.near import FindGroups


@dataclass
class Deduplicate(beam.PTransform):
    """Drop the duplicates pass by pass."""

    settings: DecideSettings
    n_buckets: int
    on_one_machine: bool  # see `FindGroups`

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection[UnitState] without duplicates, and PCollection[(place, recall)].

        Hashes go to buckets, repeated ones back to their units, then candidates' records through the passes.
        """
        found = {
            place: states | f"Near {place}" >> FindGroups(self.settings, by, self.n_buckets, self.on_one_machine)
            for place, by in self.settings.near.items()
        }
        groups = [AsSingleton(pair[0]) for pair in found.values()]
        recalls = [
            pair[1] | f"Place {place}" >> beam.Map(lambda counts, place: (place, counts), place)
            for place, pair in found.items()
        ]
        by_unit = states | "ByUnit" >> beam.Map(lambda state: (state.unit.index, state))
        repeated = (
            states
            | "Hash" >> beam.FlatMap(self._hash, *groups)
            | "Buckets" >> beam.GroupByKey()
            | "Repeated" >> beam.FlatMap(_repeated)
        )
        records = (
            {"state": by_unit, "repeated": repeated}
            | "Candidates" >> beam.CoGroupByKey()
            | "Records" >> beam.FlatMap(self._first_records, *groups)
        )
        for i in range(len(self.settings.passes)):
            records |= f"Group {i}" >> beam.GroupByKey()
            records |= f"Resolve {i}" >> beam.FlatMap(self._resolve, i)
        left = (
            {"state": by_unit, "lost": records}
            | "Lost" >> beam.CoGroupByKey()
            | "Drop" >> beam.Map(lambda item: drop_duplicates(item[1]["state"][0], item[1]["lost"]))
        )
        return left, tuple(recalls) | "Recalls" >> beam.Flatten(pipeline=states.pipeline)

    def _groups(self, found: tuple[Groups, ...]) -> dict[int, Groups]:
        return dict(zip(self.settings.near, found, strict=True))

    def _hash(self, state: UnitState, *found: Any) -> Iterator[tuple[tuple[int, int], tuple[int, U64]]]:
        for bucket, hashes in hash_keys(self.settings, state, self.n_buckets, self._groups(found)):
            yield bucket, (state.unit.index, hashes)

    def _first_records(self, item: tuple[int, dict[str, Any]], *found: Any) -> Iterator[tuple[int, Any]]:
        [state], repeated = item[1]["state"], item[1]["repeated"]
        if repeated:
            records = find_candidates(self.settings, state, repeated, self._groups(found))
            yield from _by_number(records, dedup.buckets_for(records, 0, self.n_buckets))

    def _resolve(self, item: tuple[int, Iterable[Any]], index: int) -> Iterator[tuple[int, Any]]:
        """Yield the records after a pass by bucket of the next one; after the last one the dead, by unit."""
        records = dedup.resolve(np.concatenate(list(item[1])), index)
        if index + 1 < len(self.settings.passes):
            yield from _by_number(records, dedup.buckets_for(records, index + 1, self.n_buckets))
        else:
            lost = records[records["dead"]]
            yield from _by_number(lost, lost["unit"])


def _by_number(records: dedup.Records, numbers: Any) -> Iterator[tuple[int, dedup.Records]]:
    for number in np.unique(numbers):
        yield int(number), records[numbers == number]


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
