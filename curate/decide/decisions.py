"""A unit's part in balancing, and its `decisions`: the verdict of each row, what it is a duplicate of, its probability and draw.

What is global, the counts of the whole pool and t, comes in as arguments.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.decide import balance
from curate.decide.schemes.scheme import stack_limits
from curate.decide.settings import DecideSettings
from curate.decide.state import ALIVE, UnitResult, UnitState
from curate.numeric.arrays import I16, I64, U64, Mask
from curate.pool.plan import Unit
from curate.schema import CODES


def all_matches(settings: DecideSettings, unit: Unit) -> pa.ListArray:
    """Return the entry ids of all rows (list<int32>)."""
    return settings.tables(unit).read("matches", ["entry_ids"])["entry_ids"].combine_chunks()


def alive_matches(settings: DecideSettings, state: UnitState) -> pa.ListArray:
    """Return the entry ids of the rows still in (list<int32>)."""
    return all_matches(settings, state.unit).filter(pa.array(state.alive))


def count_entries(settings: DecideSettings, unit: Unit, alive: Mask | None = None) -> I64:
    """Return the rows that match each entry (int64[entries]): of all of the unit's, or of those alive (bool[rows])."""
    return balance.entry_counts(all_matches(settings, unit), alive, len(settings.entries.entries))


def expected_rows(settings: DecideSettings, matches: pa.ListArray, counts: I64, ts: I64) -> U64:
    """Return Σπ (fixed point, uint64[k]) of rows with these matches, for each t (int64[k])."""
    assert settings.scheme is not None
    stacks = stack_limits(settings.scheme, ts, counts, settings.entries.table)
    sums = [balance.expected_rows(matches, counts, limits) for limits in stacks]
    return np.concatenate([np.zeros(0, np.uint64), *sums])


def decide(
    settings: DecideSettings,
    state: UnitState,
    counts: I64 | None,
    t: int | None,
    gaps: Sequence[str] = (),
) -> UnitResult:
    """Draw, write the unit's `decisions`, and report.

    Args:
        settings: of deciding.
        state: after deduplication.
        counts: int64[entries] over all survivors; None without `match`.
        t: None without `balance`.
        gaps: of all units, in any order (see `measure_unit`): what was decided with other gaps is decided again.
    """
    key, tables = settings.key_with(gaps), settings.tables(state.unit)
    if not tables.is_current("decisions", key):
        tables.write("decisions", _decisions(settings, state, counts, t), key)
    table = tables.read("decisions", ["kept", "probability"])
    kept = table["kept"].to_numpy().astype(np.int64)
    if counts is None:
        return UnitResult(state.unit, int(kept.sum()), None)
    matches = all_matches(settings, state.unit)
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    sums = [balance.entry_sums(matches, weights, len(counts)) for weights in (expected, kept)]
    return UnitResult(state.unit, int(kept.sum()), np.stack(sums))


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
