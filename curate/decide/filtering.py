"""A unit's rows against the rules, in segments, and against what drops rows before deduplication.

What is global, the threshold of a top rule, comes in as an argument and is computed from the units' small answers.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.decide import quantiles
from curate.decide.decisions import all_matches
from curate.decide.evaluation import find_contaminated
from curate.decide.rules import first_failed
from curate.decide.settings import DecideSettings
from curate.decide.state import ALIVE, UnitState
from curate.numeric.arrays import U64, Mask
from curate.pool.plan import Unit
from curate.schema import CODES
from curate.store.forgotten import forgotten_mask


def open_state(settings: DecideSettings, unit: Unit) -> UnitState:
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
    state = state.drop(~quantiles.threshold_mask(keys, valid, key), segment.first + len(segment.rules))
    return apply_segment(settings, state, index + 1)


def _top_column(settings: DecideSettings, unit: Unit, index: int) -> tuple[U64, Mask]:
    top = settings.segments[index].top
    assert top is not None
    [name] = top.columns
    return quantiles.order_keys(settings.tables(unit).read_measured([name])[name])
