"""Packets of units: what travels from step to step, small and whole."""

import numpy as np
import pytest

from curate.decide.unit_state import ALIVE, UnitState
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import Unit
from pipelines.steps.units import pack, unpack


def _states(units: int, rows: int) -> list[UnitState]:
    rng = np.random.default_rng(0)
    return [
        UnitState(
            Unit(i, "pool", (InputPart(f"/data/pool/{i:05d}.parquet", 1000 + i, f"mtime:{i}", (i, i + 1), rows),)),
            rng.choice(np.array([0, ALIVE], np.int16), rows),
        )
        for i in range(units)
    ]


@pytest.mark.parametrize("rows", [0, 8, 300_000])
def test_states_come_back(rows: int) -> None:
    states = _states(5, rows)
    number, data = pack(7, states)
    assert number == 7 and isinstance(data, bytes)
    found = unpack((number, data))
    assert [state.unit for state in found] == [state.unit for state in states]
    assert all(np.array_equal(one.verdicts, other.verdicts) for one, other in zip(found, states, strict=True))


def test_small_units_travel_small() -> None:
    """A runner keeps several copies of every packet of every step, so a unit of few rows is to be much less than what it is named by."""
    assert len(pack(0, _states(8, 8))[1]) / 8 < 70
