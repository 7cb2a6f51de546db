"""A unit's part in balancing, and its `decisions`: counts of entries, expected rows, draws.

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
from curate.decide.state import I64, U64, Mask, UnitResult, UnitState, name_verdicts
from curate.schema import CODES
from curate.store.tables import UnitTables


def alive_matches(tables: UnitTables, state: UnitState) -> pa.ListArray:
    """Return the entry ids of the rows still in (list<int32>)."""
    return _matches(tables).filter(pa.array(state.alive))


def count_entries(settings: DecideSettings, tables: UnitTables, alive: Mask | None = None) -> I64:
    """Return the rows that match each entry (int64[entries]): of all of the unit's, or of those alive (bool[rows])."""
    return balance.entry_counts(_matches(tables), alive, len(settings.entries.entries))


def expected_rows(settings: DecideSettings, matches: pa.ListArray, counts: I64, ts: I64) -> U64:
    """Return Σπ (fixed point, uint64[k]) of rows with these matches, for each t (int64[k])."""
    assert settings.scheme is not None
    stacks = stack_limits(settings.scheme, ts, counts, settings.entries.table)
    sums = [balance.expected_rows(matches, counts, limits) for limits in stacks]
    return np.concatenate([np.zeros(0, np.uint64), *sums])


def decide(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    counts: I64 | None,
    t: int | None,
    gaps: Sequence[str] = (),
) -> UnitResult:
    """Draw, write the unit's `decisions`, and report.

    Args:
        settings: of deciding.
        tables: the unit's.
        state: after deduplication.
        counts: int64[entries] over all survivors; None without `match`.
        t: None without `balance`.
        gaps: of all units, in any order (see `measure_unit`): what was decided with other gaps is decided again.
    """
    key = settings.key_with(gaps)
    if not tables.is_current("decisions", key):
        _write_decisions(
            settings, tables, state, counts, settings.limits(t, counts) if counts is not None else None, key
        )
    table = tables.read("decisions", ["kept", "probability"])
    kept = table["kept"].to_numpy().astype(np.int64)
    if counts is None:
        return UnitResult(state.unit, int(kept.sum()), None)
    matches = _matches(tables)
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    sums = [balance.entry_sums(matches, weights, len(counts)) for weights in (expected, kept)]
    return UnitResult(state.unit, int(kept.sum()), np.stack(sums))


def _write_decisions(
    settings: DecideSettings, tables: UnitTables, state: UnitState, counts: I64 | None, limits: I64 | None, key: str
) -> None:
    base = tables.read("samples", ["unit", "row", "uid"])
    survivors = state.alive
    probability = survivors.astype(np.float64)
    draws = np.full(len(base), np.nan)
    if limits is not None and counts is not None and survivors.any():
        matches = alive_matches(tables, state)
        probability[survivors] = balance.inclusion_probability(matches, balance.probabilities(counts, limits))
        uids = base["uid"].filter(pa.array(survivors)).combine_chunks()
        draws[survivors] = balance.draw(uids, matches, counts, limits, settings.entries.keys, settings.seed)
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
    tables.write("decisions", table, key)


def _partners(state: UnitState, n_rows: int) -> pa.Array:
    """Return what a duplicate is one of, or the evaluation image that a row is near (string[rows])."""
    partners = pa.nulls(n_rows, pa.string())
    for rows, names in (
        (state.duplicates, ids.hex_uids(*state.representatives)),
        (state.contaminated, state.evaluated),
    ):
        mask = np.zeros(n_rows, bool)
        mask[rows] = True
        partners = pc.replace_with_mask(partners, pa.array(mask), names)
    return partners


def _matches(tables: UnitTables) -> pa.ListArray:
    return tables.read("matches", ["entry_ids"])["entry_ids"].combine_chunks()
