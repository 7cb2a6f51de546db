"""Deduplication on Beam: near rows become groups, then hashes of keys meet in buckets, then records of possible duplicates.

What crosses the network for a pass by nearness: of hashes 8 bytes a distinct hash and band, of embeddings one a row and cell
that it visits; of edges a spanning forest. The groups come back to every worker, 16 bytes for each row or hash that is near
another. A runner on one machine would hold all of that in memory, so there the units' states come together, and
`Nearness.search` works on all cores.
"""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton, TaggedOutput

from curate.decide import dedup
from curate.decide.groups import Groups, forest
from curate.decide.passes.dedup_pass import Nearness, join_parts
from curate.decide.per_unit import UnitState, drop_duplicates, find_candidates, hash_keys, read_nodes
from curate.decide.rounds import find_groups
from curate.decide.settings import DecideSettings
from curate.numeric.arrays import U64
from curate.transforms.fold import fold_all
from curate.transforms.threads import FlatMapInThreads, MapInThreads


@dataclass
class Deduplicate(beam.PTransform):
    """Drop the duplicates pass by pass."""

    settings: DecideSettings
    n_buckets: int
    on_one_machine: bool  # see `_FindGroups`

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection[UnitState] without duplicates, and PCollection[(place, recall)].

        Hashes go to buckets, repeated ones back to their units, then candidates' records through the passes.
        """
        found = {
            place: states | f"Near {place}" >> _FindGroups(self.settings, by, self.n_buckets, self.on_one_machine)
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
            | "Hash" >> FlatMapInThreads(self._hash, *groups)
            | "Buckets" >> beam.GroupByKey()
            | "Repeated" >> beam.FlatMap(_repeated)
        )
        records = (
            {"state": by_unit, "repeated": repeated}
            | "Candidates" >> beam.CoGroupByKey()
            | "Records" >> FlatMapInThreads(self._first_records, *groups)
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


@dataclass
class _FindGroups(beam.PTransform):
    """Find the groups of a pass by nearness, and measure its recall."""

    settings: DecideSettings
    nearness: Nearness
    n_buckets: int
    on_one_machine: bool  # whether the runner works on this machine alone

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection of one Groups over the rows still in, and one int64[2], the sum of `Nearness.recall`."""
        if self.on_one_machine:
            together = states | "Together" >> beam.combiners.ToList()
            found = together | "Search" >> beam.Map(lambda units: find_groups(self.settings, self.nearness, units))
            return found | "Groups" >> beam.Keys(), found | "Recall" >> beam.Values()
        plan = states.pipeline | beam.Create([None])
        for n in range(self.nearness.rounds):
            surveys = states | f"Survey {n}" >> MapInThreads(self._survey, AsSingleton(plan))
            gathered = surveys | f"Gather {n}" >> beam.combiners.ToList()
            plan |= f"Plan {n}" >> beam.Map(self.nearness.plan, AsSingleton(gathered))
        split = states | "Split" >> beam.FlatMap(
            # Not a generator itself, of which Beam would infer types that tagged outputs do not have.
            lambda state, plan: iter(self._split(state, plan)),
            AsSingleton(plan),
        ).with_outputs("recall", main="parts")
        edges = (
            split.parts
            | "Meet" >> beam.GroupByKey()
            | "Edges" >> MapInThreads(lambda item: self.nearness.edges(item[0], join_parts(item[1])))
        )
        groups = edges | "Forest" >> beam.CombineGlobally(_Forest()) | "Groups" >> beam.Map(Groups.of)
        return groups, split.recall | "Recall" >> fold_all(operator.add)

    def _survey(self, state: UnitState, plan: Any) -> Any:
        return self.nearness.survey(*read_nodes(self.settings, self.nearness, state), plan)

    def _split(self, state: UnitState, plan: Any) -> Iterator[Any]:
        """Yield parts by bucket, and what `recall` says as output `recall`."""
        nodes, values = read_nodes(self.settings, self.nearness, state)
        yield TaggedOutput("recall", self.nearness.recall(nodes, values, plan))
        yield from self.nearness.split(nodes, values, plan, self.n_buckets)


class _Forest(beam.CombineFn):
    """Merge edges into a spanning forest; a worker holds about as many as there are nodes."""

    def create_accumulator(self) -> list[U64]:
        return []

    def add_input(self, accumulator: list[U64], element: U64) -> list[U64]:
        accumulator.append(element)
        # Merged once there are as many new edges as merged ones, so that it costs no more than they do.
        if sum(map(len, accumulator[1:])) > len(accumulator[0]) + (1 << 20):
            return [forest(accumulator)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[U64]]) -> list[U64]:
        return [forest(part for parts in accumulators for part in parts)]

    def extract_output(self, accumulator: list[U64]) -> U64:
        return forest(accumulator)
