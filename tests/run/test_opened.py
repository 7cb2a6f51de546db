"""A finished run opened again decides as it did, without its pool."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from curate.decide import balance, local
from curate.decide import state as ballot
from curate.run.opened import open_context
from curate.store.store import RunStore
from tests.cli.conftest import run_command, write_pool


@pytest.mark.parametrize("name", ["tars", "texts"])
def test_a_finished_run_is_decided_again_as_it_was(name: str, tmp_path: Path) -> None:
    write_pool(tmp_path / "pool")
    out = tmp_path / "run"
    assert run_command("run", str(tmp_path / "pool" / f"{name}.yaml"), "--out", str(out)).status == 0
    shutil.rmtree(tmp_path / "pool")

    context, units = open_context(RunStore(str(out)))
    ballots = local.deduplicate(context, local.apply_rules(context, units))
    counts = np.sum([ballot.count_entries(context, b.unit, b) for b in ballots], axis=0)

    assert counts.tolist() == context.store.read_parquet("entries.parquet", ["survivors"])["survivors"].to_pylist()
    t = context.store.read_json("run.json")["t"]
    for b in ballots:
        decisions = context.read("decisions", b.unit)
        assert [name or "kept" for name in decisions["rule"].to_pylist()] == [
            ballot.NAMES.get(code) or ("kept" if code == ballot.ALIVE else list(context.recipe.rules)[code])
            if code != ballot.ALIVE or kept
            else "balance"
            for code, kept in zip(b.verdicts.tolist(), decisions["kept"].to_pylist(), strict=True)
        ]
        pi = balance.inclusion(ballot.alive_matches(context, b), balance.probabilities(counts, t))
        assert np.array_equal(pi, decisions["probability"].to_numpy()[b.alive])
