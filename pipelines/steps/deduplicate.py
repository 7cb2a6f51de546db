"""Deduplication on Beam: near rows become groups, then hashes of keys meet in buckets, then records of possible duplicates.

What crosses the network for a pass by nearness: of hashes 8 bytes a distinct hash and band, of embeddings one a row and cell
that it visits; of edges a spanning forest. The groups come back to every worker, 16 bytes for each row or hash that is near
another. A runner on one machine would hold all of that in memory, so there the units' states come together, and
`Nearness.search` works on all cores.
"""

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton, TaggedOutput

from curate.base.numeric.arrays import U64
from curate.decide.dedup import exact
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes.dedup_pass import Nearness, join_parts
from curate.decide.rounds import find_groups
from curate.decide.settings import DecideSettings
from curate.decide.unit_duplicates import drop_duplicates, find_candidates, hash_keys, read_nodes
from curate.decide.unit_state import UnitState
from curate.store.tables import OpenTables
from pipelines.steps.fold import fold_all
from pipelines.steps.functions import FlatMap, Map
from pipelines.steps.hashes import Batch, Packed, repeated_by_packet, unpack_hashes
from pipelines.steps.states import states_of, with_states
from pipelines.steps.threads import FlatMapInThreads, MapInThreads
from pipelines.steps.units import Packet, Units, pack, unpack

_LARGE = "large"


def deduplicate(
    units: Units, settings: DecideSettings, n_buckets: int, on_one_machine: bool
) -> tuple[beam.PCollection[Any] | None, beam.PCollection[Any]]:
    """Drop the duplicates pass by pass.

    Returns PCollection[(place, recall)] of the passes by nearness, None without any; and PCollection[(rows, uid)], the largest groups
    with their representatives.

    Hashes go to buckets, repeated ones back to their units, then candidates' records through the passes. `on_one_machine`: see
    `_find_groups`.
    """
    found = {
        place: _find_groups(units, settings, place, by, n_buckets, on_one_machine)
        for place, by in settings.near.items()
    }
    groups = [AsSingleton(pair[0]) for pair in found.values()]
    recalls = [
        pair[1] | f"{_name(place)}: name recall" >> Map(lambda counts, place: (place, counts), place)
        for place, pair in found.items()
    ]
    steps = _Steps(settings, n_buckets, units.per_packet)
    large: list[beam.PCollection[Any]] = []  # one
    repeated = (
        units.ask("Duplicates: hash", steps.hash, *groups).get()
        | "Duplicates: batch" >> beam.ParDo(Batch())
        | "Duplicates: buckets" >> beam.GroupByKey()
        | "Duplicates: repeated" >> FlatMap(steps.repeated)
    )

    def find_records(states: beam.PCollection[Packet]) -> beam.PCollection[Packet]:
        records = with_states("Duplicates: candidates", states, repeated) | "Duplicates: records" >> FlatMapInThreads(
            steps.first_records, *groups, units=units.per_packet
        )
        last = len(settings.passes) - 1
        for i in range(last):
            records |= f"Duplicates: group {i}" >> beam.GroupByKey()
            records |= f"Duplicates: resolve {i}" >> FlatMap(steps.resolve, i)
        records |= f"Duplicates: group {last}" >> beam.GroupByKey()
        resolved = records | f"Duplicates: resolve {last}" >> FlatMap(steps.resolve, last).with_outputs(
            _LARGE, main="lost"
        )
        large.append(resolved[_LARGE])
        return with_states("Duplicates: lost", states, resolved["lost"]) | "Duplicates: drop" >> Map(_drop)

    units.regroup(find_records)
    return tuple(recalls) | "Duplicates: recalls" >> beam.Flatten() if recalls else None, large[-1]


def _drop(item: tuple[int, Iterable[Any]]) -> Packet:
    """Return a packet of states, less the rows that lost."""
    states, lost = states_of(item)
    losers = np.concatenate(lost) if lost else None
    if losers is None:
        return pack(item[0], states)
    return pack(item[0], [drop_duplicates(state, losers[losers["unit"] == state.unit.index]) for state in states])


@dataclass(frozen=True)
class _Steps:
    settings: DecideSettings
    n_buckets: int
    per_packet: int

    def _groups(self, found: tuple[Groups, ...]) -> dict[int, Groups]:
        return dict(zip(self.settings.near, found, strict=True))

    def hash(
        self, tables: OpenTables, state: UnitState, *found: Any
    ) -> Iterator[tuple[tuple[int, int], tuple[int, U64]]]:
        for bucket, hashes in hash_keys(self.settings, tables, state, self.n_buckets, self._groups(found)):
            yield bucket, (state.unit.index, hashes)

    def repeated(self, item: tuple[tuple[int, int], Iterable[Packed]]) -> Iterator[tuple[int, tuple[int, Packed]]]:
        """Yield the hashes of a bucket that repeat, by packet: (number, (pass, hashes))."""
        (place, _), packed = item
        yield from ((number, (place, hashes)) for number, hashes in repeated_by_packet(packed, self.per_packet))

    def first_records(self, item: tuple[int, Iterable[Any]], *found: Any) -> Iterator[tuple[int, exact.Records]]:
        """Yield the records of a packet's candidates by bucket of the first pass."""
        states, repeated = states_of(item)
        of_units: dict[int, list[tuple[int, U64]]] = defaultdict(list)
        for place, packed in repeated:
            for unit, hashes in unpack_hashes(packed):
                of_units[unit].append((place, hashes))
        parts = []
        for state in states:
            if shared := of_units.get(state.unit.index):
                with OpenTables(self.settings.store, state.unit.index) as tables:
                    parts.append(find_candidates(self.settings, tables, state, shared, self._groups(found)))
        if parts:
            records = np.concatenate(parts)
            yield from _by_number(records, exact.buckets_for(records, 0, self.n_buckets))

    def resolve(self, item: tuple[int, Iterable[Any]], index: int) -> Iterator[tuple[int, Any]]:
        """Yield the records after a pass by bucket of the next one; after the last one the dead, by packet."""
        records = exact.resolve(np.concatenate(list(item[1])), index)
        if index + 1 < len(self.settings.passes):
            yield from _by_number(records, exact.buckets_for(records, index + 1, self.n_buckets))
        else:
            lost = records[records["dead"]]
            yield from (TaggedOutput(_LARGE, group) for group in exact.largest_groups(records))
            yield from _by_number(lost, lost["unit"] // self.per_packet)


def _by_number(records: exact.Records, numbers: Any) -> Iterator[tuple[int, exact.Records]]:
    for number in np.unique(numbers):
        yield int(number), records[numbers == number]


def _name(place: int) -> str:
    """Return the step of a pass by nearness, of the place in `dedup.by`."""
    return f"Duplicates, pass {place + 1}"


def _find_groups(
    units: Units, settings: DecideSettings, place: int, nearness: Nearness, n_buckets: int, on_one_machine: bool
) -> Any:
    """Find the groups of a pass by nearness: PCollection of one Groups over the rows still in, and one int64[2], the sum of `Nearness.recall`.

    `on_one_machine`: the runner works on this machine alone.
    """
    name, steps = _name(place), _Near(nearness, n_buckets)
    if on_one_machine:
        together = units.end_pass() | f"{name}: together" >> beam.combiners.ToList()
        found = together | f"{name}: search" >> Map(
            lambda packets: find_groups(settings, nearness, list(chain.from_iterable(map(unpack, packets))))
        )
        return found | f"{name}: groups" >> beam.Keys(), found | f"{name}: recall" >> beam.Values()
    plan = units.pipeline | f"{name}: begin" >> beam.Create([None])
    for n in range(nearness.rounds):
        surveys = units.ask(f"{name}: survey {n}", steps.survey, AsSingleton(plan), combine=beam.combiners.ToList())
        plan |= f"{name}: plan {n}" >> Map(nearness.plan, AsSingleton(surveys.get()))
    recall = units.ask(f"{name}: recall", steps.recall, AsSingleton(plan), combine=fold_all(operator.add))
    parts = units.ask(f"{name}: split", steps.split, AsSingleton(plan))
    found = (
        parts.get()
        | f"{name}: meet" >> beam.GroupByKey()
        | f"{name}: groups of buckets" >> MapInThreads(lambda item: nearness.groups(item[0], join_parts(item[1])))
    )
    return found | f"{name}: groups" >> beam.CombineGlobally(_Join()), recall.get()


@dataclass(frozen=True)
class _Near:
    nearness: Nearness
    n_buckets: int

    def survey(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[Any]:
        yield self.nearness.survey(*read_nodes(tables, self.nearness, state), plan)

    def recall(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[Any]:
        yield self.nearness.recall(*read_nodes(tables, self.nearness, state), plan)

    def split(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[Any]:
        yield from self.nearness.split(*read_nodes(tables, self.nearness, state), plan, self.n_buckets)


class _Join(beam.CombineFn):
    """Join groups; a worker holds about as many nodes as there are."""

    def create_accumulator(self) -> list[Groups]:
        return []

    def add_input(self, accumulator: list[Groups], element: Groups) -> list[Groups]:
        accumulator.append(element)
        # Joined once there are as many new nodes as joined ones, so that it costs no more than they do.
        if sum(len(one.nodes) for one in accumulator[1:]) > len(accumulator[0].nodes) + (1 << 20):
            return [Groups.join(accumulator)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Groups]]) -> list[Groups]:
        return [Groups.join(part for parts in accumulators for part in parts)]

    def extract_output(self, accumulator: list[Groups]) -> Groups:
        return Groups.join(accumulator)
