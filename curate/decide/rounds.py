"""Rules and deduplication in one process and without Beam, as its transforms alternate steps of units with steps of the whole:
of a few units for `curate plan`, of all for `curate whatif`, and what tests compare Beam with. Units are worked on in threads.

Values of a top rule and hashes of deduplication wait in memory, some 10 bytes a row. Near groups of whole pools are found so too
where a run has one machine (see `Nearness.search`).
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from curate.base.numeric.arrays import I64, U64
from curate.base.process import in_threads
from curate.decide import unit_decisions, unit_duplicates, unit_matches, unit_rules
from curate.decide.dedup import exact
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes.dedup_pass import Nearness
from curate.decide.draw.balance import SparseSums
from curate.decide.draw.sample import SampleCut, SampleKeys, SampleSearch
from curate.decide.rules.top import TopValues, add_counts
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import Scale, count_up_to, distinct_keys, summarise
from curate.decide.unit_state import UnitState
from curate.expressions.check import QUANTILE
from curate.pool.plan import Unit


def apply_rules(settings: DecideSettings, units: Sequence[Unit]) -> list[UnitState]:
    """Return the units' states after all that comes before deduplication."""
    return continue_rules(settings, start_units(settings, units))


def start_units(settings: DecideSettings, units: Sequence[Unit]) -> list[UnitState]:
    """Return the units' states after the rules of the first segment."""

    def start(unit: Unit) -> UnitState:
        tables = settings.tables(unit)
        return unit_rules.apply_segment(settings, tables, unit_rules.start_unit(tables, unit), 0)

    return list(in_threads(start, units))


def apply_later_rules(settings: DecideSettings, states: list[UnitState]) -> list[UnitState]:
    """Return the states after the rules that come after deduplication."""
    if not settings.has_later_rules:
        return states

    def apply(state: UnitState) -> UnitState:
        return unit_rules.apply_segment(settings, settings.tables(state.unit), state, settings.later)

    return continue_rules(settings, list(in_threads(apply, states)), settings.later)


def continue_rules(settings: DecideSettings, states: list[UnitState], first: int = 0) -> list[UnitState]:
    """Return the states after the rules of a segment, after all that follows, up to deduplication."""
    for i, segment in enumerate(settings.segments[first:], first):
        if segment.dedup:
            break
        if segment.derive:
            states = _derive(settings, states, i)
        elif segment.top is not None:
            states = _apply_top(settings, states, i)
    return states


def _derive(settings: DecideSettings, states: list[UnitState], index: int) -> list[UnitState]:
    """Return the states after the statistics that follow a segment are known, and the next segment."""

    def values_of(state: UnitState) -> list[Any]:
        return list(unit_rules.statistic_values(settings, settings.tables(state.unit), state, index))

    values = list(in_threads(values_of, states))
    scales: dict[tuple[str, int], Scale] = {}
    up_to: list[dict[tuple[str, int], I64]] = [{} for _ in states]
    for place, (at, statistic, _) in enumerate(values[0] if values else ()):
        of_units = [found[place][2] for found in values]
        reached = [state.alive & ~np.isnan(x) for state, x in zip(states, of_units, strict=True)]
        parts = [summarise(statistic.function, x[rows]) for x, rows in zip(of_units, reached, strict=True)]
        scales[at] = reduce(operator.add, parts).scale(statistic)
        if statistic.function == QUANTILE:
            keys = [distinct_keys(x, state.alive) for x, state in zip(of_units, states, strict=True)]
            for own, found in zip(up_to, count_up_to(keys), strict=True):
                own[at] = found

    def apply(pair: tuple[UnitState, dict[tuple[str, int], I64]]) -> UnitState:
        state, own = pair
        return unit_rules.apply_derived(settings, settings.tables(state.unit), state, index, scales, own)

    return list(in_threads(apply, zip(states, up_to, strict=True)))


def _apply_top(settings: DecideSettings, states: list[UnitState], index: int) -> list[UnitState]:
    """Return the states after a segment's top rule and the next segment."""
    search = unit_rules.start_top(settings, index)

    def values_of(state: UnitState) -> TopValues:
        return unit_rules.top_values(settings, settings.tables(state.unit), state, index)

    values = list(in_threads(values_of, states))
    for _ in range(search.rounds):
        counts = (search.count(part, state.alive) for part, state in zip(values, states, strict=True))
        search = search.narrow(reduce(add_counts, counts, {}))

    def cut(state: UnitState) -> UnitState:
        state = replace(state, tops={**state.tops, search.rule: search})
        return unit_rules.apply_top(settings, settings.tables(state.unit), state, index, search)

    return list(in_threads(cut, states))


def deduplicate(settings: DecideSettings, states: Sequence[UnitState]) -> list[UnitState]:
    """Return the states with the duplicates among these units dropped."""
    return drop_repeats(settings, states, find_repeats(settings, states))


def find_repeats(settings: DecideSettings, states: Sequence[UnitState]) -> exact.Records:
    """Return the records of the rows still in that share a key of some pass with another one."""
    groups = {place: find_groups(settings, by, states)[0] for place, by in settings.near.items()}
    hashes: dict[int, list[U64]] = {}

    def hash_unit(state: UnitState) -> list[tuple[tuple[int, int], U64]]:
        return list(unit_duplicates.hash_keys(settings, settings.tables(state.unit), state, 1, groups))

    for parts in in_threads(hash_unit, states):
        for (place, _), part in parts:
            hashes.setdefault(place, []).append(part)
    repeats = [(place, exact.repeated(parts)) for place, parts in hashes.items()]

    def records_of(state: UnitState) -> exact.Records:
        return unit_duplicates.find_candidates(settings, settings.tables(state.unit), state, repeats, groups)

    return np.concatenate(list(in_threads(records_of, states)))


def drop_repeats(settings: DecideSettings, states: Sequence[UnitState], records: exact.Records) -> list[UnitState]:
    """Return the states, which are in the order of their units, with the duplicates dropped.

    `records` are of `find_repeats` over these states; where all passes are by equal keys, over any that had more rows in.
    """
    by_unit = _by_unit(records, states)
    records = np.concatenate([part[state.alive[part["row"]]] for state, part in zip(states, by_unit, strict=True)])
    for i in range(len(settings.passes)):
        records = exact.resolve(records, i)
    lost = _by_unit(records[records["dead"]], states)
    return [unit_duplicates.drop_duplicates(state, part) for state, part in zip(states, lost, strict=True)]


def find_groups(settings: DecideSettings, by: Nearness, states: Sequence[UnitState]) -> tuple[Groups, I64]:
    """Return the groups of a pass by nearness, and the sum of `Nearness.recall`."""
    units = (unit_duplicates.read_nodes(settings.tables(state.unit), by, state) for state in states)
    return by.search(units, settings.store.spool)


def draw_sample(settings: DecideSettings, states: Sequence[UnitState]) -> SampleCut | None:
    """Return the sample of the rows still in; None where the recipe takes none."""
    if settings.sample is None:
        return None
    keys = list(
        in_threads(lambda state: unit_decisions.sample_keys(settings, settings.tables(state.unit), state), states)
    )
    search = SampleSearch(settings.sample.rows)
    search = search.narrow(sum(map(search.histogram, keys), search.histogram(SampleKeys.none())))
    return search.cut(np.concatenate([search.inside(part) for part in (SampleKeys.none(), *keys)]))


def count_survivors(settings: DecideSettings, states: Sequence[UnitState]) -> I64:
    """Return the rows still in that match each entry (int64[entries])."""
    total = np.zeros(len(settings.entries.table), np.int64)

    def count(state: UnitState) -> SparseSums:
        return unit_matches.count_entries(settings, settings.tables(state.unit), state.alive)

    for counts in in_threads(count, states):
        total[counts.entries] += counts.values
    return total


def _by_unit(records: exact.Records, states: Sequence[UnitState]) -> list[exact.Records]:
    """Return each unit's part of records that are in the order of units."""
    units = records["unit"].copy()
    return [records[slice(*np.searchsorted(units, [s.unit.index, s.unit.index + 1]))] for s in states]
