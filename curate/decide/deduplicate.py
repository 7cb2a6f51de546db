"""Deduplication over all units: near rows become groups, then hashes of keys meet, then records of possible duplicates.

What crosses the network for a pass by nearness: of hashes 8 bytes a distinct hash and band, of embeddings one a row and
cell that it visits; of edges a spanning forest. The groups come back to every worker, 16 bytes for each row or hash
that is near another. One machine would hold all of that in memory, so there the states of all units come together, and
`Nearness.search` works on all cores.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from curate.base.numeric.arrays import I64, U64
from curate.decide.dedup import exact
from curate.decide.dedup.exact import Records
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.hashes import HashBatch, PackedHashes, repeated_of_units, unpack_hashes
from curate.decide.dedup.passes.dedup_pass import Nearness, Part, join_parts
from curate.decide.settings import DecideSettings
from curate.decide.unit_duplicates import drop_duplicates, find_candidates, hash_keys, read_nodes
from curate.decide.unit_state import UnitState
from curate.run.units import Answer, Aside, Combine, Fold, Pairs, Units
from curate.store.tables import OpenTables


def deduplicate(units: Units, settings: DecideSettings, n_buckets: int = 1) -> tuple[dict[int, Answer], Answer]:
    """Drop the duplicates, pass by pass, and return `recalls` and `large` of `Decided`.

    `n_buckets` has no influence on the result.
    """
    records, recalls = find_records(units, settings, n_buckets)
    return recalls, drop_records(units, settings, records, n_buckets)


def find_records(units: Units, settings: DecideSettings, n_buckets: int = 1) -> tuple[Pairs, dict[int, Answer]]:
    """Find the rows still in that share a key of some pass with another; return their records, by the first's bucket.

    Also returns `Decided.recalls`. Hashes go to buckets, and repeated ones back to their units.
    """
    near = {place: _find_groups(units, settings, place, by, n_buckets) for place, by in settings.near.items()}
    groups = [pair[0] for pair in near.values()]
    steps = _Steps(settings, n_buckets)
    hashes = units.pairs("Duplicates: hash", steps.hash, *groups, batch=HashBatch)
    repeated = units.group("Duplicates: repeated", hashes, _repeated, units.together)
    records = units.pairs("Duplicates: records", steps.records, *groups, sent=repeated)
    return records, {place: pair[1] for place, pair in near.items()}


def drop_records(units: Units, settings: DecideSettings, records: Pairs, n_buckets: int = 1) -> Answer:
    """Take records through the passes, and drop the rows that lose; return `Decided.large`."""
    for i in range(len(settings.passes)):
        resolve = _Resolve(i, len(settings.passes), n_buckets, units.together)
        records = units.group(f"Duplicates: resolve {i}", records, resolve)
    units.then("Duplicates: drop", _drop, sent=records)
    return records.aside


def records_again(records: Records, state: UnitState, n_buckets: int = 1) -> Iterator[tuple[int, Records]]:
    """Yield the records of a unit's living rows, of those of all units in order, by bucket of the first pass."""
    part = records[slice(*np.searchsorted(records["unit"].copy(), [state.unit.index, state.unit.index + 1]))]
    part = part[state.alive[part["row"]]]
    yield from _by_number(part, exact.buckets_for(part, 0, n_buckets))


def _repeated(key: tuple[int, int], bucket: Sequence[PackedHashes], together: int) -> Iterator[tuple[int, Any]]:
    """Yield the hashes of a bucket that repeat, for their units: (pass, hashes)."""
    yield from ((number, (key[0], hashes)) for number, hashes in repeated_of_units(bucket, together))


def _drop(tables: OpenTables, state: UnitState, lost: list[Records]) -> UnitState:
    if not lost:
        return state
    losers = np.concatenate(lost)
    return drop_duplicates(state, losers[losers["unit"] == state.unit.index])


@dataclass(frozen=True)
class _Steps:
    """What units are asked; the last arguments are the groups of each pass by nearness, in their order."""

    settings: DecideSettings
    n_buckets: int

    def _groups(self, groups: tuple[Groups, ...]) -> dict[int, Groups]:
        return dict(zip(self.settings.near, groups, strict=True))

    def hash(self, tables: OpenTables, state: UnitState, *groups: Groups) -> Iterator[tuple[Any, tuple[int, U64]]]:
        for bucket, hashes in hash_keys(self.settings, tables, state, self.n_buckets, self._groups(groups)):
            yield bucket, (state.unit.index, hashes)

    def records(
        self, tables: OpenTables, state: UnitState, repeated: list[tuple[int, PackedHashes]], *groups: Groups
    ) -> Iterator[tuple[int, Records]]:
        """Yield the records of the unit's candidates by bucket of the first pass."""
        index = state.unit.index
        shared = [(place, part) for place, packed in repeated for unit, part in unpack_hashes(packed) if unit == index]
        if shared:
            records = find_candidates(self.settings, tables, state, shared, self._groups(groups))
            yield from _by_number(records, exact.buckets_for(records, 0, self.n_buckets))


@dataclass(frozen=True)
class _Resolve:
    """One pass over the records of a bucket."""

    place: int
    passes: int
    n_buckets: int
    together: int

    def __call__(self, bucket: int, records: Sequence[Records]) -> Iterator[Any]:
        """Yield the records by bucket of the next pass; after the last the dead by unit, and largest groups aside."""
        resolved = exact.resolve(np.concatenate(records), self.place)
        if self.place + 1 < self.passes:
            yield from _by_number(resolved, exact.buckets_for(resolved, self.place + 1, self.n_buckets))
        else:
            lost = resolved[resolved["dead"]]
            yield from map(Aside, exact.largest_groups(resolved))
            yield from _by_number(lost, lost["unit"] // self.together)


def _by_number(records: Records, numbers: Any) -> Iterator[tuple[int, Records]]:
    for number in np.unique(numbers):
        yield int(number), records[numbers == number]


def _find_groups(
    units: Units, settings: DecideSettings, place: int, nearness: Nearness, n_buckets: int
) -> tuple[Answer, Answer]:
    """Find the groups of a pass by nearness over the rows still in: Groups, and the sum of `Nearness.recall`."""
    name, steps = f"Duplicates, pass {place + 1}", _Near(nearness, n_buckets)
    if not units.place.is_cluster:
        states = units.ask(f"{name}: together", _state)
        both = units.get(f"{name}: search", _search, states, settings, nearness)
        return units.get(f"{name}: groups", itemgetter(0), both), units.get(f"{name}: recall", itemgetter(1), both)
    plan: Any = None
    for n in range(nearness.rounds):
        surveys = units.ask(f"{name}: survey {n}", steps.survey, plan)
        plan = units.get(f"{name}: plan {n}", steps.plan, surveys, plan)
    recall = units.ask(f"{name}: recall", steps.recall, plan, combine=Fold())
    parts = units.pairs(f"{name}: split", steps.split, plan)
    buckets = units.group(f"{name}: groups of buckets", parts, steps.groups)
    return units.combine(f"{name}: groups", [buckets.aside], JoinGroups()), recall


def _state(tables: OpenTables, state: UnitState) -> Iterator[UnitState]:
    yield state


def _search(states: list[UnitState], settings: DecideSettings, nearness: Nearness) -> tuple[Groups, I64]:
    in_order = sorted(states, key=lambda state: state.unit.index)
    nodes = (read_nodes(settings.tables(state.unit), nearness, state) for state in in_order)
    return nearness.search(nodes, settings.store.spool)


@dataclass(frozen=True)
class _Near:
    """What units are asked for a pass by nearness."""

    nearness: Nearness
    n_buckets: int

    def survey(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[Any]:
        yield self.nearness.survey(*read_nodes(tables, self.nearness, state), plan)

    def plan(self, surveys: list[Any], plan: Any) -> Any:
        return self.nearness.plan(plan, surveys)

    def recall(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[I64]:
        yield self.nearness.recall(*read_nodes(tables, self.nearness, state), plan)

    def split(self, tables: OpenTables, state: UnitState, plan: Any) -> Iterator[tuple[Hashable, Part]]:
        yield from self.nearness.split(*read_nodes(tables, self.nearness, state), plan, self.n_buckets)

    def groups(self, bucket: Hashable, parts: Sequence[Part]) -> Iterator[Aside]:
        yield Aside(self.nearness.groups(bucket, join_parts(parts)))


class JoinGroups(Combine[Groups, Groups]):
    """Join groups; a worker holds about as many nodes as there are."""

    def create(self) -> list[Groups]:
        """Return none."""
        return []

    def add(self, accumulator: list[Groups], part: Groups) -> list[Groups]:
        """Return them with some more; all are joined once there are as many new nodes as joined ones."""
        accumulator.append(part)
        if sum(len(groups.nodes) for groups in accumulator[1:]) > len(accumulator[0].nodes) + (1 << 20):
            return [Groups.join(accumulator)]
        return accumulator

    def merge(self, accumulators: Iterable[list[Groups]]) -> list[Groups]:
        """Return all of them, joined."""
        return [Groups.join(groups for part in accumulators for groups in part)]

    def result(self, accumulator: list[Groups]) -> Groups:
        """Return them as one."""
        return Groups.join(accumulator)
