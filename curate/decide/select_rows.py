"""The last choice among the rows left, over all units: entries are counted, t is solved, a sample is cut, and each row is drawn."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from curate.base.errors import RunError
from curate.base.numeric.arrays import I64
from curate.decide import unit_decisions, unit_matches
from curate.decide.draw.balance import EntryVector, SparseSums, tail_share_t
from curate.decide.draw.bracket import ROUNDS, Bracket, Solution
from curate.decide.draw.sample import SampleCut, SampleSearch
from curate.decide.settings import DecideSettings
from curate.decide.unit_decisions import Drawing
from curate.decide.unit_state import UnitState
from curate.pool.plan import Unit
from curate.run.units import Answer, Fold, Units
from curate.store.tables import OpenTables
from curate.store.timings import time_step


def count_matches(units: Units, settings: DecideSettings) -> Answer:
    """Count the rows that match each entry: int64[2, entries], all rows and those that reach deduplication."""
    return units.ask("Counts: matches", _count_all_and_alive, settings, combine=AddEntries(settings))


def count_survivors(units: Units, settings: DecideSettings, matches: Answer) -> Answer:
    """Count the rows left that match each entry: int64[entries].

    `matches` are of `count_matches`, less the duplicates: a unit that has none is not read again. With rules after deduplication
    they are counted again.
    """
    if settings.has_later_rules:
        return count_alive(units, settings)
    duplicates = units.ask("Counts: duplicates", _count_duplicates, settings, combine=AddEntries(settings))
    return units.get("Counts: less duplicates", _less, matches, duplicates)


def count_alive(units: Units, settings: DecideSettings) -> Answer:
    """Count the rows left that match each entry, by reading all of them: int64[entries]."""
    return units.ask("Counts: survivors", _count_alive, settings, combine=AddEntries(settings))


def pool_counts(matches: I64) -> I64:
    """Return the counts of all rows, of those of `count_matches`."""
    return np.asarray(matches[0]).view(EntryVector)


def _less(matches: I64, duplicates: I64) -> I64:
    return np.asarray(matches[1] - duplicates).view(EntryVector)


def _count_all_and_alive(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    yield unit_matches.count_all_and_alive(settings, tables, state.alive)


def _count_alive(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    yield unit_matches.count_entries(settings, tables, state.alive)


def _count_duplicates(tables: OpenTables, state: UnitState, settings: DecideSettings) -> Iterator[SparseSums]:
    if len(state.duplicates):
        yield unit_matches.count_duplicates(settings, tables, state)
    else:
        yield SparseSums(np.zeros(0, np.int32), np.zeros(0, np.int64))


class AddEntries(Fold):
    """Add up sums by entry, sparse ones of units, to a vector of all entries: int64[entries], or [sums, entries] of several."""

    def __init__(self, settings: DecideSettings) -> None:
        super().__init__()
        self._settings = settings

    def add(self, accumulator: I64 | None, part: SparseSums) -> I64:
        """Return the vector with a unit's sums."""
        if accumulator is None:
            return part.dense(len(self._settings.entries.table)).view(EntryVector)
        accumulator[..., part.entries] += part.values
        return accumulator

    def result(self, accumulator: I64) -> I64:
        """Return the sums, which travel small where few are other than 0."""
        return np.asarray(accumulator).view(EntryVector)


def solve_t(units: Units, settings: DecideSettings, counts: Answer) -> Answer | None:
    """Solve the t that gives the recipe's target number of rows or share of the tail: a Solution; None without balance.

    A target number is searched k-ary: in each of ROUNDS the units sum π at some t, and the bracket narrows. `counts` are
    those by which entries are balanced.
    """
    target = settings.balance
    if target is None:
        return None
    if target.t is not None:
        return units.get("Balance: t", Solution, target.t)
    if target.tail_share is not None:
        return units.get("Balance: t", _tail_solution, counts, target.tail_share)
    bracket = units.get("Balance: begin", _begin, counts, settings)
    for n in range(ROUNDS):
        sums = units.ask(f"Balance: sums {n}", _expect, counts, bracket, settings, combine=Fold())
        bracket = units.get(f"Balance: narrow {n}", _narrow, sums, bracket)
    return units.get("Balance: t", _solution, bracket, settings)


def _tail_solution(counts: I64, share: float) -> Solution:
    return Solution(tail_share_t(counts, share))


def _begin(counts: I64, settings: DecideSettings) -> Bracket:
    assert settings.balance is not None and settings.scheme is not None
    return Bracket.start(settings.scheme.highest(counts, settings.entries.table), settings.balance.rows or 0)


def _expect(tables: OpenTables, state: UnitState, counts: I64, bracket: Bracket, settings: DecideSettings) -> Any:
    if bracket.solved:
        yield np.zeros(0, object)
    else:
        matches = unit_matches.alive_matches(tables, state)
        # Python integers: a sum over units may pass 2⁶⁴.
        yield unit_matches.expected_rows(settings, matches, counts, bracket.points).astype(object)


def _narrow(sums: Any, bracket: Bracket) -> Bracket:
    return bracket.narrow(bracket.points, sums)


def _solution(bracket: Bracket, settings: DecideSettings) -> Solution:
    try:
        return bracket.solution
    except RunError as error:
        how = f"change the recipe, then run with --out NEW --reuse {settings.store.url}"
        raise RunError(f"{error}. Nothing is downloaded or measured again: {how}") from None


def cut_sample(units: Units, settings: DecideSettings) -> Answer | None:
    """Cut the random sample of the rows left: a SampleCut; None where the recipe takes none."""
    if settings.sample is None:
        return None
    begin = SampleSearch(settings.sample.rows)
    counts = units.ask("Sample: count", _count_keys, begin, settings, combine=Fold())
    search = units.get("Sample: narrow", begin.narrow, counts)
    keys = units.ask("Sample: inside", _keys_inside, search, settings, combine=Fold(_append))
    return units.get("Sample: cut", _cut, keys, search)


def _count_keys(tables: OpenTables, state: UnitState, search: SampleSearch, settings: DecideSettings) -> Iterator[I64]:
    yield search.histogram(unit_decisions.sample_keys(settings, tables, state))


def _keys_inside(tables: OpenTables, state: UnitState, search: SampleSearch, settings: DecideSettings) -> Iterator[Any]:
    yield search.inside(unit_decisions.sample_keys(settings, tables, state))


def _append(one: I64, other: I64) -> I64:
    return np.concatenate([one, other])


def _cut(keys: Any, search: SampleSearch) -> SampleCut:
    return search.cut(keys)


def draw_rows(
    units: Units, settings: DecideSettings, unread: Answer, counts: Answer | None, t: Answer | None, cut: Answer | None
) -> Answer | None:
    """Draw, and write `decisions` of each unit; states become units again.

    `unread` are files that could not be read, of all units; `counts` those by which entries are balanced, where the recipe matches; `t`
    and `cut` of `solve_t` and `cut_sample`. Returns int64[2, entries], the expected (fixed point) and kept rows of each entry;
    None without match.
    """
    drawing = None
    if cut is not None:
        drawing = units.get("Decide: draw", _draw_sample, cut, counts)
    elif counts is not None:
        drawing = units.get("Decide: draw", _draw_entries, counts, t, settings)
    units.then("Decide: decisions", _draw, unread, drawing, settings)
    if counts is None:
        return None
    return units.ask("Decide: sum entries", _sum_entries, settings, combine=AddEntries(settings))


def _draw_sample(cut: SampleCut, counts: I64 | None) -> Drawing:
    return Drawing(counts, sample=cut)


def _draw_entries(counts: I64, solution: Solution | None, settings: DecideSettings) -> Drawing:
    return Drawing.of(settings, counts, None if solution is None else solution.t)


def _draw(
    tables: OpenTables, state: UnitState, unread: list[str], drawing: Drawing | None, settings: DecideSettings
) -> Unit:
    with time_step(settings.store, "decide", state.unit.name) as timer:
        timer.rows = len(state.verdicts)
        unit_decisions.decide(settings, tables, state, drawing, unread)
        timer.idle = "decisions" not in tables.written
        return state.unit


def _sum_entries(tables: OpenTables, unit: Unit, settings: DecideSettings) -> Iterator[SparseSums]:
    yield unit_matches.sum_entries(tables, len(settings.entries.table))
