"""Deduplicates all units: finds groups of near rows, then candidates by hashes of their keys, then the duplicates.

A pass by nearness sends 8 bytes per distinct hash and band, or an embedding per row and visited cell; and a spanning
forest of edges. Every worker gets the groups. On one machine, one process gathers the states of all units for
`Nearness.search`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import stages
from curate.base.numeric.arrays import I64, U64, whole
from curate.decide.dedup import exact
from curate.decide.dedup.exact import Records
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes.dedup_pass import KeyPass, Nearness, join_parts
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import Duplicates, UnitState
from curate.run.units import Answer, Combine, Pairs, SideOutput, ToUnit, Units
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import log_unit

Hashes = list[tuple[int, U64]]  # of passes, by position
Recalls = list[Answer[I64]]  # of each pass by nearness: `Groups.recall`
LargeGroups = Answer[list[tuple[int, str]]]  # the largest groups of duplicates: size, and the representative's uid


def deduplicate(units: Units, settings: DecideSettings, n_buckets: int = 1) -> tuple[Recalls, LargeGroups]:
    """Drop the duplicates, pass by pass. The result does not depend on `n_buckets`."""
    records, recalls = find_records(units, settings, n_buckets)
    return recalls, drop_records(units, settings, records, n_buckets)


def find_records(units: Units, settings: DecideSettings, n_buckets: int = 1) -> tuple[Pairs[int, Records], Recalls]:
    """Return the records of surviving rows that share a key with another row, by their bucket in the first pass."""
    groups = [_find_groups(units, settings, number, n_buckets) for number in settings.near]
    # Hashes are sent to buckets, and repeated ones back to their units.
    hashes = units.pairs("Duplicates: hash", _hash, settings, n_buckets, *groups)
    repeated = units.group("Duplicates: repeated", hashes, _repeated)
    records = units.pairs("Duplicates: records", _records, settings, n_buckets, *groups, sent=repeated)
    recalls = [units.get(f"Duplicates: recall {i}", attrgetter("recall"), answer) for i, answer in enumerate(groups)]
    return records, recalls


def drop_records(units: Units, settings: DecideSettings, pairs: Pairs[int, Records], n_buckets: int = 1) -> LargeGroups:
    """Send records through the passes, and drop the rows that lose."""
    for i in range(len(settings.passes)):
        pairs = units.group(f"Duplicates: resolve {i}", pairs, _resolve, i, n_buckets)
    units.then("Duplicates: drop", _drop, sent=pairs)
    return pairs.side_output


def records_again(tables: OpenTables, state: UnitState, records: Records) -> Iterator[tuple[int, Records]]:
    """Yield the records of a unit's surviving rows, in one bucket, in the order of units."""
    part = records[slice(*np.searchsorted(records["unit"].copy(), [state.unit.index, state.unit.index + 1]))]
    part = part[state.surviving[part["row"]]]
    if len(part):
        yield 0, part


def _key_columns(tables: UnitTables, settings: DecideSettings, groups: Sequence[Groups]) -> list[pa.Array]:
    of_near = iter(groups)
    return [by.keys(tables, next(of_near)) if isinstance(by, Nearness) else by.keys(tables) for by in settings.passes]


def _hash(
    tables: OpenTables, state: UnitState, settings: DecideSettings, n_buckets: int, *groups: Groups
) -> Iterator[tuple[tuple[int, int], tuple[int, U64]]]:
    for i, column in enumerate(_key_columns(tables, settings, groups)):
        for bucket, hashes in enumerate(exact.split_buckets(exact.key_hashes(column, state.surviving), n_buckets)):
            if len(hashes):
                yield (i, bucket), (state.unit.index, hashes)
    log_unit(settings.store, f"{settings.began} 98 dedup: hash", state.unit.index)


def _repeated(key: tuple[int, int], bucket: Sequence[tuple[int, U64]]) -> Iterator[ToUnit]:
    yield from (ToUnit(unit, (key[0], hashes)) for unit, hashes in exact.repeated_of_units(bucket))


def _records(
    tables: OpenTables,
    state: UnitState,
    repeated: Hashes,
    settings: DecideSettings,
    n_buckets: int,
    *groups: Groups,
) -> Iterator[tuple[int, Records]]:
    """Yield the records of the unit's rows whose hash repeats in the pool, by bucket of the first pass."""
    log_unit(settings.store, f"{settings.began} 99 dedup: compare", state.unit.index)
    if not repeated:
        return
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *(part for i, part in repeated if i == number)]))
        for number in range(len(settings.passes))
    ]
    columns = _key_columns(tables, settings, groups)
    rows = exact.candidates(columns, state.surviving, hashes)
    take = pa.array(rows, pa.int64())
    prefer = None
    if (name := settings.recipe.dedup.prefer) is not None:
        prefer = exact.preferences(whole(settings.read(tables, state, [name])[name]).take(take))
    keys = [column.take(take) for column in columns]
    uids = keys[next(i for i, by in enumerate(settings.passes) if isinstance(by, KeyPass) and by.key == "uid")]
    content = np.zeros(len(rows), np.uint64)
    if settings.compares_content:  # of rows with one uid: caption and image (its sha256, or URL without images)
        table = tables.read("samples", ["sha256", "url", "caption"]).take(take)
        images = pc.coalesce(whole(table["sha256"]), whole(table["url"]))
        content = exact.content_hashes(images, whole(table["caption"]))
    records = exact.make_records(state.unit.index, rows, uids, keys, content, prefer)
    for (number, by), near in zip(settings.near.items(), groups, strict=True):
        if (cosines := by.cosines(tables, near)) is not None:
            records["cosines"][:, number] = cosines[rows]
    yield from exact.by_number(records, exact.buckets_for(records, 0, n_buckets))


def _resolve(bucket: int, records: Sequence[Records], number: int, n_buckets: int) -> Iterator[Any]:
    """Yield the records by bucket of the next pass; after the last, dead records for their units, and large groups."""
    resolved = exact.resolve(np.concatenate(records), number)
    if number + 1 < resolved["present"].shape[1]:
        yield from exact.by_number(resolved, exact.buckets_for(resolved, number + 1, n_buckets))
    else:
        lost = resolved[resolved["dead"]]
        yield from map(SideOutput, exact.largest_groups(resolved))
        yield from (ToUnit(unit, losers) for unit, losers in exact.by_number(lost, lost["unit"]))


def _drop(tables: OpenTables, state: UnitState, lost: list[Records]) -> UnitState:
    if not lost:
        return state
    records = np.concatenate(lost)
    records = records[np.argsort(records["row"])]
    representatives = np.stack([records["rep_hi"], records["rep_lo"]])
    cosines = records["cosine"].copy() if records["cosine"].any() else None
    duplicates = Duplicates(records["row"].copy(), representatives, cosines)
    return replace(state.drop(records["row"], stages.CODES[stages.DUPLICATE]), duplicates=duplicates)


def _find_groups(units: Units, settings: DecideSettings, number: int, n_buckets: int) -> Answer[Groups]:
    """Find the groups of a pass by nearness among surviving rows."""
    nearness = settings.near[number]
    name, recorded = f"Duplicates, pass {number + 1}", f"{settings.began} {number:02d} dedup: pass {number + 1}"
    if not units.place.is_cluster:
        states = units.ask(f"{name}: together", lambda _, state: [state])
        return units.get(f"{name}: search", _search, states, settings, nearness, recorded)

    def of_unit(step: str, method: Callable[..., Any], *values: Any) -> Callable[..., Any]:
        """Return a step that calls a method of the pass for a unit."""

        def work(tables: OpenTables, state: UnitState, plan: Any) -> list[Any]:
            parts = list(method(*_read_nodes(tables, state, nearness), plan, *values))
            log_unit(settings.store, f"{recorded} {step}", state.unit.index)
            return parts

        return work

    plan: Any = None
    for n in range(nearness.rounds):
        survey = of_unit(f"plan {n + 1}", lambda *nodes: [nearness.survey(*nodes)])
        surveys = units.ask(f"{name}: survey {n}", survey, plan)
        plan = units.get(f"{name}: plan {n}", nearness.plan, plan, surveys)
    parts = units.pairs(f"{name}: split", of_unit("split", nearness.split, n_buckets), plan)

    def search(bucket: Any, pieces: Any) -> list[SideOutput]:
        return [SideOutput(nearness.groups(bucket, join_parts(pieces)))]

    in_buckets = units.group(f"{name}: groups of buckets", parts, search)
    return units.combine(f"{name}: groups", [in_buckets.side_output], _JoinGroups())


def _search(states: list[UnitState], settings: DecideSettings, nearness: Nearness, recorded: str) -> Groups:
    """Search in this process, with the values in a memory-mapped file."""
    log_unit(settings.store, f"{recorded} search", 0)
    nodes, kept = [np.zeros(0, np.uint64)], []
    with settings.store.spool() as file:
        for state in sorted(states, key=lambda state: state.unit.index):
            part, values = _read_nodes(settings.tables(state.unit), state, nearness)
            nodes.append(part)
            if values.dtype.hasobject:  # from a plugin: a file cannot hold objects
                kept.append(values)
            else:
                file.write(values.tobytes())
        file.flush()
        all_nodes = np.concatenate(nodes)
        if not len(all_nodes):
            return Groups.join([])
        if kept:
            return nearness.search(all_nodes, np.concatenate(kept))
        shape = (len(all_nodes), *values.shape[1:])
        return nearness.search(all_nodes, np.memmap(file, values.dtype, "r", shape=shape))


def _read_nodes(tables: UnitTables, state: UnitState, nearness: Nearness) -> tuple[U64, npt.NDArray[Any]]:
    rows, values = nearness.read(tables, state.surviving)
    return nearness.nodes(state.unit.index, rows, values), values


class _JoinGroups(Combine[Groups, Groups]):
    """Join groups once there are as many new nodes as joined ones, which bounds the memory of a worker."""

    def create(self) -> list[Groups]:
        return []

    def add(self, accumulator: list[Groups], part: Groups) -> list[Groups]:
        accumulator.append(part)
        if sum(len(groups.nodes) for groups in accumulator[1:]) > len(accumulator[0].nodes) + (1 << 20):
            return [Groups.join(accumulator)]
        return accumulator

    def merge(self, accumulators: Iterable[list[Groups]]) -> list[Groups]:
        return [Groups.join(groups for part in accumulators for groups in part)]

    def result(self, accumulator: list[Groups]) -> Groups:
        return Groups.join(accumulator)
