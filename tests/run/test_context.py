"""A finished run opened again decides as it did, without its pool."""

import shutil

import numpy as np
import pytest

from curate.decide.draw import inclusion
from curate.decide.select_rows import count_alive
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import name_verdicts
from curate.run.context import open_context
from curate.store.store import RunStore
from tests.kit import decide_in_process
from tests.kit.commands import run_command, write_pool


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["tars", "texts"])
def test_a_finished_run_is_decided_again_as_it_was(name, tmp_path):
    write_pool(tmp_path / "pool")
    out = tmp_path / "run"
    assert run_command("run", str(tmp_path / "pool" / f"{name}.yaml"), "--out", str(out)).status == 0
    shutil.rmtree(tmp_path / "pool")

    context, units = open_context(RunStore(str(out)))
    settings = DecideSettings.of(context)
    states = decide_in_process(settings, context, units)
    counts = states.value(count_alive(states, settings))

    entries = context.store.read_parquet("entries.parquet", ["entry_id", "survivors"])
    assert counts[entries["entry_id"].to_numpy()].tolist() == entries["survivors"].to_pylist()
    assert counts.sum() == sum(entries["survivors"].to_pylist())  # ids of entries that were dropped have none
    limits = np.array([context.store.read_json("run.json")["t"]])
    for state in states.elements:
        tables = settings.tables(state.unit)
        decisions = tables.read("decisions")
        names = name_verdicts(state.verdicts, list(context.recipe.rules)).to_pylist()
        kept = decisions["kept"].to_pylist()
        expected = [name if name or k else "balance" for name, k in zip(names, kept, strict=True)]
        assert decisions["rule"].to_pylist() == expected
        p = inclusion.probabilities(counts, limits)
        pi = inclusion.inclusion_probability(settings.rows_left(tables, state).matches, p)
        assert np.array_equal(pi, decisions["probability"].to_numpy()[state.surviving])
