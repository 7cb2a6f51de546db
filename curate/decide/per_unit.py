"""A unit's part in deciding: its rows against the rules, hashes and records of what may be duplicates, draws, `decisions`.

What is global (thresholds of top rules, groups of near rows, hashes that repeat, counts of entries, t) comes in as arguments,
and is computed from the units' small answers. All functions take the unit's tables, which the caller may hold open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.decide import balance, dedup
from curate.decide.balance import SparseSums
from curate.decide.decontamination import find_contaminated
from curate.decide.derived import (
    DerivedValues,
    Scale,
    Statistic,
    Summary,
    argument_values,
    ranks_of,
    read_columns,
    summarise,
)
from curate.decide.groups import Groups
from curate.decide.passes.dedup_pass import KeyPass, Nearness
from curate.decide.quantiles import key_bits, order_keys
from curate.decide.row_counts import RowFacts, count_rows
from curate.decide.rules import first_failed
from curate.decide.sample import SampleCut, SampleKeys
from curate.decide.schemes.scheme import stack_limits
from curate.decide.settings import DecideSettings
from curate.decide.top import TopSearch, TopValues
from curate.numeric.arrays import F32, F64, I16, I32, I64, U64, Mask, whole
from curate.pool.plan import Unit
from curate.recipe.deciding import Top
from curate.recipe.recipe import MAX_REPEATS
from curate.schema import CODES, KEPT
from curate.store.forgotten import forgotten_mask
from curate.store.tables import UnitTables

ALIVE = CODES[KEPT]
_NO_ROWS, _NO_UIDS, _NO_NAMES = np.zeros(0, np.int64), np.zeros((2, 0), np.uint64), pa.array([], pa.string())


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes a row."""

    unit: Unit
    verdicts: I16  # of each row ALIVE, the position of the rule that dropped it, or the code of a stage
    # Rows that lost to another, and of each the halves of the uid of the row that represents it (uint64[2, duplicates]).
    duplicates: I32 | I64 = field(default_factory=lambda: _NO_ROWS)
    representatives: U64 = field(default_factory=lambda: _NO_UIDS)
    cosines: F32 | None = None  # of each, see `schema.DUPLICATE_COSINE`, 0 where it has none; None: none has
    # Rows that are near an evaluation image, and of each the name of that image.
    contaminated: I64 = field(default_factory=lambda: _NO_ROWS)
    evaluated: pa.Array = field(default_factory=lambda: _NO_NAMES)
    derived: Mapping[str, DerivedValues] = field(
        default_factory=dict
    )  # columns with statistics, as far as they are known

    @property
    def alive(self) -> Mask:
        """The rows still in (bool[rows])."""
        return np.asarray(self.verdicts == ALIVE)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel small: states wait by the thousand."""
        near = (self.duplicates, self.representatives, self.cosines) if len(self.duplicates) else ()
        contaminated = (self.contaminated, self.evaluated) if len(self.contaminated) else ()
        derived = (dict(self.derived),) if self.derived else ()
        return _restore, (self.unit, self.verdicts.tobytes(), near, contaminated, *derived)

    def drop(self, rows: Mask, code: int) -> Self:
        """Return the state with these rows dropped, where they were alive; by the position of a rule, or a stage's code."""
        return replace(self, verdicts=np.where(rows & self.alive, np.int16(code), self.verdicts))


def _restore(
    unit: Unit,
    verdicts: bytes,
    near: tuple[Any, ...],
    contaminated: tuple[Any, ...],
    derived: Mapping[str, DerivedValues] | None = None,
) -> UnitState:
    state = UnitState(unit, np.frombuffer(verdicts, np.int16), derived=derived or {})
    if near:
        state = replace(state, duplicates=near[0], representatives=near[1], cosines=near[2])
    return replace(state, contaminated=contaminated[0], evaluated=contaminated[1]) if contaminated else state


# ---- rules


def start_unit(tables: UnitTables, unit: Unit) -> UnitState:
    """Return all rows of a unit, the unreadable and the forgotten ones dropped."""
    samples = tables.read("samples", ["status", "characters"])
    is_readable = pc.equal(samples["status"], schema.OK).to_numpy()
    state = UnitState(unit, np.where(is_readable, np.int16(ALIVE), np.int16(CODES[schema.FAILED])))
    return state.drop(forgotten_mask(samples), CODES[schema.FORGOTTEN])


def apply_segment(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> UnitState:
    """Apply the SQL rules of a segment; before deduplication, `finish_rules`."""
    segment = settings.segments[index]
    if segment.rules:
        columns = list(dict.fromkeys(column for rule in segment.rules for column in rule.columns)) or ["row"]
        alive = state.alive
        table = read_columns(tables, settings.derived, state.derived, columns)
        failed = first_failed(segment.rules, table if alive.all() else table.filter(pa.array(alive)))
        verdicts = state.verdicts.copy()
        verdicts[alive] = np.where(failed >= 0, failed + segment.first, ALIVE)
        state = replace(state, verdicts=verdicts)
    return finish_rules(settings, tables, state) if segment.dedup else state


def finish_rules(settings: DecideSettings, tables: UnitTables, state: UnitState) -> UnitState:
    """Drop, after the last rule, what matches no entry, then what is near an image of the evaluation set."""
    if settings.matching:
        unmatched = pc.equal(pc.list_value_length(all_matches(tables)), 0).to_numpy(zero_copy_only=False)
        state = state.drop(unmatched, CODES[schema.UNMATCHED])
    if settings.against is None:
        return state
    rows, values = settings.against.read(tables, state.alive)
    found, names = find_contaminated(settings.store, settings.against, values)
    dropped = np.zeros(len(state.verdicts), bool)
    dropped[rows[found]] = True
    return replace(state.drop(dropped, CODES[schema.CONTAMINATED]), contaminated=rows[found], evaluated=names)


def start_top(settings: DecideSettings, index: int) -> TopSearch:
    """Return the search for the thresholds of a segment's top rule."""
    top = settings.segments[index].top
    assert top is not None and isinstance(top.spec, Top)
    return TopSearch(top.name, top.spec, settings.columns.field(top.columns[0]).type)


def top_values(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> TopValues:
    """Return the values of the column of a segment's top rule, of all rows."""
    top = settings.segments[index].top
    assert top is not None
    of, *by = top.columns
    table = read_columns(tables, settings.derived, state.derived, top.columns)
    keys, valid = order_keys(table[of], key_bits(settings.columns.field(of).type))
    return TopValues.of(keys, valid, table[by[0]] if by else None)


def apply_top(
    settings: DecideSettings, tables: UnitTables, state: UnitState, index: int, search: TopSearch
) -> UnitState:
    """Drop what is below the threshold of the segment's top rule, then apply the next segment."""
    segment = settings.segments[index]
    passing = search.passing(top_values(settings, tables, state, index))
    return apply_segment(settings, tables, state.drop(~passing, segment.first + len(segment.rules)), index + 1)


# ---- derived columns


def statistic_values(
    settings: DecideSettings, tables: UnitTables, state: UnitState, index: int
) -> Iterator[tuple[tuple[str, int], Statistic, F64]]:
    """Yield what the statistics after a segment are of: (column, place), the statistic, and x of each row, NaN where it is no finite number."""
    columns = [settings.derived[name] for name in settings.segments[index].derive]
    read = [name for column in columns for name in column.columns if column.statistics]
    table = read_columns(tables, settings.derived, state.derived, list(dict.fromkeys(read)))
    for column in columns:
        for place, statistic in enumerate(column.statistics):
            yield (column.name, place), statistic, argument_values(statistic, table)


def summarise_statistics(settings: DecideSettings, tables: UnitTables, state: UnitState, index: int) -> list[Summary]:
    """Return what the statistics after a segment need to know of a unit's rows that reached them."""
    found = statistic_values(settings, tables, state, index)
    return [summarise(statistic.function, x[state.alive & ~np.isnan(x)]) for _, statistic, x in found]


def apply_derived(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    index: int,
    scales: Mapping[tuple[str, int], Scale],
    up_to: Mapping[tuple[str, int], I64],
) -> UnitState:
    """Return the state with the columns that are known after a segment, and the next segment applied.

    `up_to` are of each quantile, as `ranks_of` takes them.
    """
    values = statistic_values(settings, tables, state, index) if up_to else ()
    ranks = {at: ranks_of(x, up_to[at]) for at, statistic, x in values if at in up_to}
    known = dict(state.derived)
    for name in settings.segments[index].derive:
        places = range(len(settings.derived[name].statistics))
        own = {place: ranks[name, place] for place in places if (name, place) in ranks}
        known[name] = DerivedValues(tuple(scales[name, place] for place in places), own)
    return apply_segment(settings, tables, replace(state, derived=known), index + 1)


# ---- duplicates


def read_nodes(tables: UnitTables, nearness: Nearness, state: UnitState) -> tuple[U64, npt.NDArray]:
    """Return the nodes and values of the rows still in that a pass by nearness compares."""
    rows, values = nearness.read(tables, state.alive)
    return nearness.nodes(state.unit.index, rows, values), values


def hash_keys(
    settings: DecideSettings, tables: UnitTables, state: UnitState, n_buckets: int, groups: Mapping[int, Groups]
) -> Iterator[tuple[tuple[int, int], U64]]:
    """Yield the hashes of each pass's keys, by (pass, bucket): phase 1."""
    for i, column in enumerate(_key_columns(settings, tables, groups)):
        for bucket, hashes in enumerate(dedup.split_buckets(dedup.key_hashes(column, state.alive), n_buckets)):
            if len(hashes):
                yield (i, bucket), hashes


def find_candidates(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    repeated: Iterable[tuple[int, U64]],
    groups: Mapping[int, Groups],
) -> dedup.Records:
    """Return the records of the rows whose hash repeats somewhere in the pool: phase 2.

    `repeated` are pairs (pass, hashes of this unit that repeat), any number of each pass.
    """
    by_pass = list(repeated)
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *(part for i, part in by_pass if i == place)]))
        for place in range(len(settings.passes))
    ]
    columns = _key_columns(settings, tables, groups)
    rows = dedup.candidates(columns, state.alive, hashes)
    take = pa.array(rows)
    prefer = None
    if settings.prefer is not None:
        table = read_columns(tables, settings.derived, state.derived, [settings.prefer])
        values = table[settings.prefer].combine_chunks()
        prefer = dedup.preferences(values.take(take))
    taken = [column.take(take) for column in columns]
    uids = taken[next(i for i, by in enumerate(settings.passes) if isinstance(by, KeyPass) and by.key == "uid")]
    content = _content(settings, tables, take)
    cosines = [
        by.cosines(tables, groups[place]) if isinstance(by, Nearness) else None
        for place, by in enumerate(settings.passes)
    ]
    of_rows = [None if values is None else values[rows] for values in cosines]
    return dedup.make_records(state.unit.index, rows, uids, taken, content, prefer, of_rows)


def drop_duplicates(state: UnitState, losers: dedup.Records) -> UnitState:
    """Return the state with the unit's losers dropped, in the order of their rows."""
    if not len(losers):
        return state
    records = losers[np.argsort(losers["row"])]
    lost = np.zeros(len(state.verdicts), bool)
    lost[records["row"]] = True
    representatives = np.stack([records["rep_hi"], records["rep_lo"]])
    dropped = state.drop(lost, schema.CODES[schema.DUPLICATE])
    cosines = records["cosine"].copy() if records["cosine"].any() else None
    return replace(dropped, duplicates=records["row"].copy(), representatives=representatives, cosines=cosines)


def _key_columns(settings: DecideSettings, tables: UnitTables, groups: Mapping[int, Groups]) -> list[pa.Array]:
    """Return the key column of each pass."""
    return [
        by.keys(tables, groups[place]) if isinstance(by, Nearness) else by.keys(tables)
        for place, by in enumerate(settings.passes)
    ]


def _content(settings: DecideSettings, tables: UnitTables, rows: pa.Array) -> U64:
    """Return what decides between rows of one uid; what names an image is its sha256, or the URL in a pool without images."""
    if not settings.compares_content:
        return np.zeros(len(rows), np.uint64)
    table = tables.read("samples", ["sha256", "url", "caption"]).take(rows)
    return dedup.content_hashes(pc.coalesce(table["sha256"], table["url"]), table["caption"])


# ---- balance and decisions


def all_matches(tables: UnitTables) -> pa.ListArray:
    """Return the entry ids of all rows (list<int32>)."""
    return whole(tables.read("matches", ["entry_ids"])["entry_ids"])


def alive_matches(tables: UnitTables, state: UnitState) -> pa.ListArray:
    """Return the entry ids of the rows still in (list<int32>)."""
    alive = state.alive
    return all_matches(tables) if alive.all() else all_matches(tables).filter(pa.array(alive))


def count_entries(settings: DecideSettings, tables: UnitTables, alive: Mask | None = None) -> SparseSums:
    """Return the rows that match each entry: of all of the unit's, or of those alive (bool[rows])."""
    return balance.sparse_counts(all_matches(tables), alive, len(settings.entries.table))


def count_all_and_alive(settings: DecideSettings, tables: UnitTables, alive: Mask) -> SparseSums:
    """Return the rows that match each entry, of all of the unit's and of those alive (int64[2, entries])."""
    weights = [np.ones(len(alive), np.int64), alive.astype(np.int64)]
    return balance.sparse_sums(all_matches(tables), weights, len(settings.entries.table))


def count_duplicates(settings: DecideSettings, tables: UnitTables, state: UnitState) -> SparseSums:
    """Return the rows that match each entry and lost to another in deduplication."""
    lost = all_matches(tables).take(pa.array(state.duplicates))
    return balance.sparse_counts(lost, None, len(settings.entries.table))


def expected_rows(settings: DecideSettings, matches: pa.ListArray, counts: I64, ts: I64) -> U64:
    """Return Σπ (fixed point, uint64[k]) of rows with these matches, for each t (int64[k])."""
    assert settings.scheme is not None
    stacks = stack_limits(settings.scheme, ts, counts, settings.entries.table)
    sums = [balance.expected_rows(matches, counts, limits) for limits in stacks]
    return np.concatenate([np.zeros(0, np.uint64), *sums])


@dataclass(frozen=True)
class Drawing:
    """What draws need of the whole pool."""

    counts: I64 | None  # [entries], of the survivors; None without `match`
    t: int | None = None  # None without `balance`: then nothing is drawn
    limits: I64 | None = None  # [entries] or [1], the rows that each entry may have
    sample: SampleCut | None = None  # where a sample is taken in place of balancing

    @classmethod
    def of(cls, settings: DecideSettings, counts: I64, t: int | None) -> Self:
        """Return it by the counts of all survivors, and t."""
        return cls(counts, t, settings.limits(t, counts))

    @cached_property
    def p(self) -> F64:
        """Return of each entry the probability that one of its rows is drawn for it ([entries]); there must be limits."""
        assert self.limits is not None and self.counts is not None
        return balance.probabilities(self.counts, self.limits)


def sample_keys(settings: DecideSettings, tables: UnitTables, state: UnitState) -> SampleKeys:
    """Return what a sample orders the rows still in by."""
    uids = tables.read("samples", ["uid"])["uid"].filter(pa.array(state.alive))
    return SampleKeys.of(whole(uids), settings.seed)


def decide(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    drawing: Drawing | None,
    unread: Sequence[str] = (),
) -> None:
    """Draw, and write the unit's `decisions`, and `derived` where the recipe derives columns, unless they are current.

    Args:
        settings: of deciding.
        tables: the unit's.
        state: after deduplication.
        drawing: None without `match` and `sample`.
        unread: files that could not be read, of all units in any order: what was decided without others is decided again.
    """
    key = settings.key_without(unread)
    # Not adopted from other runs: they are cheap, and depend on files that could not be read.
    if not tables.is_current("decisions", key, adopt=False):
        tables.write("decisions", _decisions(settings, tables, state, drawing), key)
    if settings.derived and not tables.is_current("derived", key, adopt=False):
        tables.write("derived", _derived(settings, tables, state), key)


def _derived(settings: DecideSettings, tables: UnitTables, state: UnitState) -> pa.Table:
    base = tables.read("samples", [field.name for field in schema.ALIGNED])
    table = read_columns(tables, settings.derived, state.derived, list(settings.derived))
    for column in settings.derived.values():
        base = base.append_column(pa.field(column.name, column.kind), table[column.name])
    return base


def sum_entries(tables: UnitTables, n: int) -> SparseSums:
    """Return of each of n entries the expected rows of a decided unit in fixed point (2⁻³²), and the kept rows."""
    table = tables.read("decisions", ["kept", "probability"])
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    return balance.sparse_sums(all_matches(tables), [expected, table["kept"].to_numpy().astype(np.int64)], n)


def _decisions(settings: DecideSettings, tables: UnitTables, state: UnitState, drawing: Drawing | None) -> pa.Table:
    base = tables.read("samples", ["unit", "row", "uid"])
    survivors = state.alive
    probability = survivors.astype(np.float64)
    draws = np.full(len(base), np.nan)
    if drawing is not None and (cut := drawing.sample) is not None:
        probability[survivors] = cut.probability
        draws[survivors] = cut.draws(sample_keys(settings, tables, state))
        state = state.drop(survivors & (draws >= 1), CODES[schema.SAMPLE])
    elif drawing is not None and drawing.limits is not None and survivors.any():
        assert drawing.counts is not None
        matches = alive_matches(tables, state)
        probability[survivors] = balance.inclusion_probability(matches, drawing.p)
        uids = whole(base["uid"].filter(pa.array(survivors)))
        keys = settings.entries.keys
        draws[survivors] = balance.draw(uids, matches, drawing.counts, drawing.limits, keys, settings.seed)
        state = state.drop(survivors & (draws >= 1), CODES[schema.BALANCE])
    table = pa.table(
        {
            **{name: base[name] for name in base.column_names},
            "kept": pa.array(state.alive),
            "rule": name_verdicts(state.verdicts, settings.rules),
            "duplicate_of": _partners(state, len(base)),
            "probability": pa.array(probability),
            "draw": pa.array(draws, mask=np.isnan(draws)),
        },
        schema=schema.DECISIONS,
    )
    if settings.has_cosines:
        table = table.append_column(schema.DUPLICATE_COSINE, _cosines(state, len(base)))
    if settings.repeat is None:
        return table
    return table.append_column(schema.REPEATS, pa.array(_repeats(settings, tables, state, drawing, probability)))


def _repeats(
    settings: DecideSettings, tables: UnitTables, state: UnitState, drawing: Drawing | None, probability: F64
) -> I32:
    """Return how often each row is in the curated set: at least once where it is kept, else 0."""
    assert settings.repeat is not None
    rows = np.flatnonzero(state.alive)
    counts = None if drawing is None else drawing.counts
    matches = None if counts is None else alive_matches(tables, state)
    facts = RowFacts(rows, probability[rows], matches, counts)
    out = np.zeros(len(state.verdicts), np.int32)

    def read(names: list[str]) -> pa.Table:
        return read_columns(tables, settings.derived, state.derived, names)

    out[rows] = np.maximum(1, count_rows(settings.repeat, settings.columns, read, facts, MAX_REPEATS))
    return out


def name_verdicts(verdicts: I16, rules: Sequence[str]) -> pa.Array:
    """Return the rule or stage that dropped each row (string[rows]); null where it is kept."""
    names, codes = _names_and_codes(rules)
    index = pc.index_in(pa.array(verdicts, mask=verdicts == ALIVE), pa.array(codes, pa.int16()), skip_nulls=True)
    return names.take(index)


def read_verdicts(names: pa.ChunkedArray, rules: Sequence[str]) -> I16:
    """Return the verdicts (int16[rows]) that `name_verdicts` gave these names. Raises ValueError for any other name."""
    known, codes = _names_and_codes(rules)
    index = pc.index_in(names, known, skip_nulls=True)
    if index.null_count != names.null_count:
        raise ValueError("a name is neither a rule nor a stage")
    missing = index.is_null().to_numpy()
    return np.where(missing, np.int16(ALIVE), np.array(codes, np.int16)[index.fill_null(0).to_numpy()])


def _names_and_codes(rules: Sequence[str]) -> tuple[pa.Array, list[int]]:
    return pa.array([*rules, *CODES], pa.string()), [*range(len(rules)), *CODES.values()]


def _partners(state: UnitState, n_rows: int) -> pa.Array:
    """Return what a duplicate is one of, or the evaluation image that a row is near (string[rows])."""
    partners = pa.nulls(n_rows, pa.string())
    if len(state.duplicates):
        partners = _put(partners, state.duplicates, ids.hex_uids(*state.representatives))
    return _put(partners, state.contaminated, state.evaluated) if len(state.contaminated) else partners


def _cosines(state: UnitState, n_rows: int) -> pa.Array:
    """Return the cosine by which each row that lost was joined (float32[rows])."""
    found = np.zeros(n_rows, np.float32)
    if state.cosines is not None:
        found[state.duplicates] = state.cosines
    return pa.array(found, mask=found == 0)


def _put(column: pa.Array, rows: I32 | I64, values: pa.Array) -> pa.Array:
    """Return the column with these values in these rows, which ascend."""
    mask = np.zeros(len(column), bool)
    mask[rows] = True
    return pc.replace_with_mask(column, mask, values)
