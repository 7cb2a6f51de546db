"""The end of deciding: draws, and a unit's table `decisions`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import F64, I32, I64
from curate.base.schema import CODES
from curate.decide.draw.selection import Choice
from curate.decide.rules.row_counts import RowFacts, count_rows
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import read_columns
from curate.decide.unit_matches import alive_matches
from curate.decide.unit_state import UnitState, name_verdicts
from curate.recipe.output import MAX_REPEATS
from curate.store.tables import UnitTables


def decide(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    choice: Choice | None,
    counts: I64 | None,
    unread: Sequence[str] = (),
) -> None:
    """Draw, and write the unit's `decisions`, and `derived` where the recipe derives columns, unless they are current.

    Args:
        settings: of deciding.
        tables: the unit's.
        state: after deduplication.
        choice: of the recipe's selection; None where all rows that are left are kept.
        counts: int64[entries], the rows of all units that match each entry when it is chosen; None without `match`.
        unread: the files of all units that could not be read, in any order: without other files all is decided again.
    """
    key = settings.key_without(unread)
    # Not adopted from other runs: they are cheap.
    if not tables.is_current("decisions", key, adopt=False):
        tables.write("decisions", _decisions(settings, tables, state, choice, counts), key)
    if settings.derived and not tables.is_current("derived", key, adopt=False):
        tables.write("derived", _derived(settings, tables, state), key)


def _derived(settings: DecideSettings, tables: UnitTables, state: UnitState) -> pa.Table:
    base = tables.read("samples", [field.name for field in schema.ALIGNED])
    table = read_columns(tables, settings.derived, state.derived, list(settings.derived))
    for column in settings.derived.values():
        base = base.append_column(pa.field(column.name, column.kind), table[column.name])
    return base


def _decisions(
    settings: DecideSettings, tables: UnitTables, state: UnitState, choice: Choice | None, counts: I64 | None
) -> pa.Table:
    base = tables.read("samples", ["unit", "row", "uid"])
    left = state.alive
    probability = left.astype(np.float64)
    draws = np.full(len(base), np.nan)
    if choice is not None and left.any():
        rows = settings.rows_left(tables, state)
        probability[left], draws[left] = choice.inclusion(rows), choice.draws(rows)
        state = state.drop(left & (draws >= 1), CODES[schema.SELECTION])
    selection = settings.selection[0].key if settings.selection else None
    table = pa.table(
        {
            **{name: base[name] for name in base.column_names},
            "kept": pa.array(state.alive),
            "rule": name_verdicts(state.verdicts, settings.rules, selection),
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
    return table.append_column(schema.REPEATS, pa.array(_repeats(settings, tables, state, counts, probability)))


def _repeats(
    settings: DecideSettings, tables: UnitTables, state: UnitState, counts: I64 | None, probability: F64
) -> I32:
    """Return how often each row is in the curated set: at least once where it is kept, else 0."""
    assert settings.repeat is not None
    rows = np.flatnonzero(state.alive)
    matches = None if counts is None else alive_matches(tables, state)
    facts = RowFacts(rows, probability[rows], matches, counts)
    out = np.zeros(len(state.verdicts), np.int32)

    def read(names: list[str]) -> pa.Table:
        return read_columns(tables, settings.derived, state.derived, names)

    out[rows] = np.maximum(1, count_rows(settings.repeat, settings.columns, read, facts, MAX_REPEATS))
    return out


def _partners(state: UnitState, n_rows: int) -> pa.Array:
    """Return what a duplicate is one of, or the evaluation image that a row is near (string[rows])."""
    partners = pa.nulls(n_rows, pa.string())
    if len(state.duplicates):
        partners = _put(partners, state.duplicates, ids.hex_uids(*state.representatives))
    return _put(partners, state.contaminated, state.evaluated) if len(state.contaminated) else partners


def _cosines(state: UnitState, n_rows: int) -> pa.Array:
    """Return the cosine by which each row that lost was joined (float32[rows])."""
    cosines = np.zeros(n_rows, np.float32)
    if state.cosines is not None:
        cosines[state.duplicates] = state.cosines
    return pa.array(cosines, mask=cosines == 0)


def _put(column: pa.Array, rows: I32 | I64, values: pa.Array) -> pa.Array:
    """Return the column with these values in these rows, which ascend."""
    mask = np.zeros(len(column), bool)
    mask[rows] = True
    return pc.replace_with_mask(column, mask, values)
