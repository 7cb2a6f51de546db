"""A unit's part in deciding: its rows against the rules, hashes and records of what may be duplicates, draws, `decisions`.

What is global (thresholds of top rules, groups of near rows, hashes that repeat, counts of entries, t) comes in as arguments,
and is computed from the units' small answers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.decide import balance, dedup
from curate.decide.decontamination import find_contaminated
from curate.decide.groups import Groups
from curate.decide.passes.dedup_pass import KeyPass, Nearness
from curate.decide.quantiles import key_bits, order_keys, threshold_mask
from curate.decide.rules import first_failed
from curate.decide.schemes.scheme import stack_limits
from curate.decide.settings import DecideSettings
from curate.numeric.arrays import I16, I32, I64, U64, Mask
from curate.pool.plan import Unit
from curate.schema import CODES, KEPT
from curate.store.forgotten import forgotten_mask
from curate.store.tables import UnitTables

ALIVE = CODES[KEPT]


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes a row."""

    unit: Unit
    verdicts: I16  # of each row ALIVE, the position of the rule that dropped it, or the code of a stage
    # Rows that lost to another, and of each the halves of the uid of the row that represents it (uint64[2, duplicates]).
    duplicates: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    representatives: U64 = field(default_factory=lambda: np.zeros((2, 0), np.uint64))
    # Rows that are near an evaluation image, and of each the name of that image.
    contaminated: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    evaluated: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    @property
    def alive(self) -> Mask:
        """The rows still in (bool[rows])."""
        return np.asarray(self.verdicts == ALIVE)

    def drop(self, rows: Mask, code: int) -> Self:
        """Return the state with these rows dropped, where they were alive; by the position of a rule, or a stage's code."""
        return replace(self, verdicts=np.where(rows & self.alive, np.int16(code), self.verdicts))


# ---- rules


def start_unit(settings: DecideSettings, unit: Unit) -> UnitState:
    """Return all rows of a unit, the unreadable and the forgotten ones dropped, after the first segment of rules."""
    samples = settings.tables(unit).read("samples", ["status", "characters"])
    is_readable = pc.equal(samples["status"], schema.OK).to_numpy()
    state = UnitState(unit, np.where(is_readable, np.int16(ALIVE), np.int16(CODES[schema.FAILED])))
    return apply_segment(settings, state.drop(forgotten_mask(samples), CODES[schema.FORGOTTEN]), 0)


def apply_segment(settings: DecideSettings, state: UnitState, index: int) -> UnitState:
    """Apply the SQL rules of a segment; after the last one, `finish_rules`."""
    segment = settings.segments[index]
    if segment.rules:
        columns = list(dict.fromkeys(column for rule in segment.rules for column in rule.columns)) or ["row"]
        alive = state.alive
        table = settings.tables(state.unit).read_measured(columns)
        failed = first_failed(segment.rules, table if alive.all() else table.filter(pa.array(alive)))
        verdicts = state.verdicts.copy()
        verdicts[alive] = np.where(failed >= 0, failed + segment.first, ALIVE)
        state = replace(state, verdicts=verdicts)
    return finish_rules(settings, state) if segment.top is None else state


def finish_rules(settings: DecideSettings, state: UnitState) -> UnitState:
    """Drop, after the last rule, what matches no entry, then what is near an image of the evaluation set."""
    if settings.matching:
        unmatched = pc.equal(pc.list_value_length(all_matches(settings, state.unit)), 0).to_numpy(zero_copy_only=False)
        state = state.drop(unmatched, CODES[schema.UNMATCHED])
    if settings.against is None:
        return state
    rows, values = settings.against.read(settings.tables(state.unit), state.alive)
    found, names = find_contaminated(settings.store, settings.against, values)
    dropped = np.zeros(len(state.verdicts), bool)
    dropped[rows[found]] = True
    return replace(state.drop(dropped, CODES[schema.CONTAMINATED]), contaminated=rows[found], evaluated=names)


def top_keys(settings: DecideSettings, state: UnitState, index: int) -> U64:
    """Return the order keys of a top rule's column, of the rows that reached the rule and have a value."""
    keys, valid = _top_column(settings, state.unit, index)
    return keys[valid & state.alive]


def apply_top(settings: DecideSettings, state: UnitState, index: int, key: int | None) -> UnitState:
    """Drop what is below the threshold's key of the segment's top rule, then apply the next segment."""
    keys, valid = _top_column(settings, state.unit, index)
    segment = settings.segments[index]
    state = state.drop(~threshold_mask(keys, valid, key), segment.first + len(segment.rules))
    return apply_segment(settings, state, index + 1)


def _top_column(settings: DecideSettings, unit: Unit, index: int) -> tuple[U64, Mask]:
    top = settings.segments[index].top
    assert top is not None
    [name] = top.columns
    bits = key_bits(settings.columns.field(name).type)
    return order_keys(settings.tables(unit).read_measured([name])[name], bits)


# ---- duplicates


def read_nodes(settings: DecideSettings, nearness: Nearness, state: UnitState) -> tuple[U64, npt.NDArray]:
    """Return the nodes and values of the rows still in that a pass by nearness compares."""
    rows, values = nearness.read(settings.tables(state.unit), state.alive)
    return nearness.nodes(state.unit.index, rows, values), values


def hash_keys(
    settings: DecideSettings, state: UnitState, n_buckets: int, groups: Mapping[int, Groups]
) -> Iterator[tuple[tuple[int, int], U64]]:
    """Yield the hashes of each pass's keys, by (pass, bucket): phase 1."""
    for i, column in enumerate(_key_columns(settings, state.unit, groups)):
        for bucket, hashes in enumerate(dedup.split_buckets(dedup.key_hashes(column, state.alive), n_buckets)):
            if len(hashes):
                yield (i, bucket), hashes


def find_candidates(
    settings: DecideSettings, state: UnitState, repeated: Iterable[tuple[int, U64]], groups: Mapping[int, Groups]
) -> dedup.Records:
    """Return the records of the rows whose hash repeats somewhere in the pool: phase 2.

    `repeated` are pairs (pass, hashes of this unit that repeat), any number of each pass.
    """
    tables, by_pass = settings.tables(state.unit), list(repeated)
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *(part for i, part in by_pass if i == place)]))
        for place in range(len(settings.passes))
    ]
    columns = _key_columns(settings, state.unit, groups)
    rows = dedup.candidates(columns, state.alive, hashes)
    take = pa.array(rows)
    prefer = None
    if settings.prefer is not None:
        values = tables.read_measured([settings.prefer])[settings.prefer].combine_chunks()
        prefer = dedup.preferences(values.take(take))
    taken = [column.take(take) for column in columns]
    uids = taken[next(i for i, by in enumerate(settings.passes) if isinstance(by, KeyPass) and by.key == "uid")]
    return dedup.make_records(state.unit.index, rows, uids, taken, _content(settings, tables, take), prefer)


def drop_duplicates(state: UnitState, losers: Iterable[dedup.Records]) -> UnitState:
    """Return the state with the unit's losers dropped, in the order of their rows."""
    parts = list(losers)
    if not parts:
        return state
    records = np.concatenate(parts)
    records = records[np.argsort(records["row"])]
    lost = np.zeros(len(state.verdicts), bool)
    lost[records["row"]] = True
    representatives = np.stack([records["rep_hi"], records["rep_lo"]])
    dropped = state.drop(lost, schema.CODES[schema.DUPLICATE])
    return replace(dropped, duplicates=records["row"].copy(), representatives=representatives)


def _key_columns(settings: DecideSettings, unit: Unit, groups: Mapping[int, Groups]) -> list[pa.Array]:
    """Return the key column of each pass."""
    tables = settings.tables(unit)
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


def all_matches(settings: DecideSettings, unit: Unit) -> pa.ListArray:
    """Return the entry ids of all rows (list<int32>)."""
    return settings.tables(unit).read("matches", ["entry_ids"])["entry_ids"].combine_chunks()


def alive_matches(settings: DecideSettings, state: UnitState) -> pa.ListArray:
    """Return the entry ids of the rows still in (list<int32>)."""
    return all_matches(settings, state.unit).filter(pa.array(state.alive))


def count_entries(settings: DecideSettings, unit: Unit, alive: Mask | None = None) -> I64:
    """Return the rows that match each entry (int64[entries]): of all of the unit's, or of those alive (bool[rows])."""
    return balance.entry_counts(all_matches(settings, unit), alive, len(settings.entries.table))


def expected_rows(settings: DecideSettings, matches: pa.ListArray, counts: I64, ts: I64) -> U64:
    """Return Σπ (fixed point, uint64[k]) of rows with these matches, for each t (int64[k])."""
    assert settings.scheme is not None
    stacks = stack_limits(settings.scheme, ts, counts, settings.entries.table)
    sums = [balance.expected_rows(matches, counts, limits) for limits in stacks]
    return np.concatenate([np.zeros(0, np.uint64), *sums])


def decide(
    settings: DecideSettings, state: UnitState, counts: I64 | None, t: int | None, unread: Sequence[str] = ()
) -> I64 | None:
    """Draw, and write the unit's `decisions`.

    Args:
        settings: of deciding.
        state: after deduplication.
        counts: int64[entries] over all survivors; None without `match`.
        t: None without `balance`.
        unread: files that could not be read, of all units in any order: what was decided without others is decided again.

    Returns:
        int64[2, entries], of each entry the expected rows in fixed point (2⁻³²), and the kept rows; None without `match`.
    """
    key, tables = settings.key_without(unread), settings.tables(state.unit)
    if not tables.is_current("decisions", key):
        tables.write("decisions", _decisions(settings, state, counts, t), key)
    if counts is None:
        return None
    table, matches = tables.read("decisions", ["kept", "probability"]), all_matches(settings, state.unit)
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    kept = table["kept"].to_numpy().astype(np.int64)
    return np.stack([balance.entry_sums(matches, weights, len(counts)) for weights in (expected, kept)])


def _decisions(settings: DecideSettings, state: UnitState, counts: I64 | None, t: int | None) -> pa.Table:
    base = settings.tables(state.unit).read("samples", ["unit", "row", "uid"])
    survivors = state.alive
    probability = survivors.astype(np.float64)
    draws = np.full(len(base), np.nan)
    limits = None if counts is None else settings.limits(t, counts)
    if counts is not None and limits is not None and survivors.any():
        matches = alive_matches(settings, state)
        probability[survivors] = balance.inclusion_probability(matches, balance.probabilities(counts, limits))
        uids = base["uid"].filter(pa.array(survivors)).combine_chunks()
        draws[survivors] = balance.draw(uids, matches, counts, limits, settings.entries.keys, settings.seed)
        state = state.drop(survivors & (draws >= 1), CODES[schema.BALANCE])
    return pa.table(
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
    duplicates = (state.duplicates, ids.hex_uids(*state.representatives))
    for rows, names in (duplicates, (state.contaminated, state.evaluated)):
        mask = np.zeros(n_rows, bool)
        mask[rows] = True
        partners = pc.replace_with_mask(partners, pa.array(mask), names)
    return partners
