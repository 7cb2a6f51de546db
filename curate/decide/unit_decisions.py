"""The end of deciding: draws, and a unit's table `decisions`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import F64, I32, I64, whole
from curate.base.schema import CODES
from curate.decide.draw import balance
from curate.decide.draw.sample import SampleCut, SampleKeys
from curate.decide.rules.row_counts import RowFacts, count_rows
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import (
    read_columns,
)
from curate.decide.unit_matches import alive_matches
from curate.decide.unit_state import UnitState, name_verdicts
from curate.recipe.output import MAX_REPEATS
from curate.store.tables import UnitTables


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
        earlier = _earlier(settings, tables)
        earlier = None if earlier is None else earlier[survivors]
        draws[survivors] = balance.draw(uids, matches, drawing.counts, drawing.limits, keys, settings.seed, earlier)
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


def _earlier(settings: DecideSettings, tables: UnitTables) -> F64 | None:
    """Return the probability with which each row came into the pool (float64[rows], NaN where it has none); None where no row has."""
    if schema.INPUT_PROBABILITY not in settings.columns.names:
        return None
    column = tables.read_measured([schema.INPUT_PROBABILITY])[schema.INPUT_PROBABILITY].cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


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
