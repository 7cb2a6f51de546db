"""The entries that a unit's rows match, counted and summed up by entry."""

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import Mask, whole
from curate.decide.draw import balance
from curate.decide.draw.balance import SparseSums
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import UnitState
from curate.store.tables import UnitTables


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


def sum_entries(tables: UnitTables, n: int) -> SparseSums:
    """Return of each of n entries the expected rows of a decided unit in fixed point (2⁻³²), and the kept rows."""
    table = tables.read("decisions", ["kept", "probability"])
    expected = balance.fixed_point(table["probability"].to_numpy()).astype(np.int64)
    return balance.sparse_sums(all_matches(tables), [expected, table["kept"].to_numpy().astype(np.int64)], n)
