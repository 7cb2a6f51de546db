"""A unit's part in balancing: counts of entries, and expected rows.

What is global, the counts of the whole pool and t, comes in as arguments.
"""

import numpy as np
import pyarrow as pa

from curate.decide import balance
from curate.decide.schemes.scheme import stack_limits
from curate.decide.settings import DecideSettings
from curate.decide.state import I64, U64, Mask, UnitState
from curate.store.tables import UnitTables


def all_matches(tables: UnitTables) -> pa.ListArray:
    """Return the entry ids of all rows (list<int32>)."""
    return tables.read("matches", ["entry_ids"])["entry_ids"].combine_chunks()


def alive_matches(tables: UnitTables, state: UnitState) -> pa.ListArray:
    """Return the entry ids of the rows still in (list<int32>)."""
    return all_matches(tables).filter(pa.array(state.alive))


def count_entries(settings: DecideSettings, tables: UnitTables, alive: Mask | None = None) -> I64:
    """Return the rows that match each entry (int64[entries]): of all of the unit's, or of those alive (bool[rows])."""
    return balance.entry_counts(all_matches(tables), alive, len(settings.entries.entries))


def expected_rows(settings: DecideSettings, matches: pa.ListArray, counts: I64, ts: I64) -> U64:
    """Return Σπ (fixed point, uint64[k]) of rows with these matches, for each t (int64[k])."""
    assert settings.scheme is not None
    stacks = stack_limits(settings.scheme, ts, counts, settings.entries.table)
    sums = [balance.expected_rows(matches, counts, limits) for limits in stacks]
    return np.concatenate([np.zeros(0, np.uint64), *sums])
