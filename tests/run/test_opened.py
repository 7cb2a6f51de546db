"""A finished run opened again decides as it did, without its pool."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from curate.decide import balance, local
from curate.decide import state as ballot
from curate.run.opened import open_ledger
from curate.store.store import Folder
from tests.cli.conftest import run_command, write_pool


@pytest.mark.parametrize("name", ["tars", "texts"])
def test_a_finished_run_is_decided_again_as_it_was(name: str, tmp_path: Path) -> None:
    write_pool(tmp_path / "pool")
    out = tmp_path / "run"
    assert run_command("run", str(tmp_path / "pool" / f"{name}.yaml"), "--out", str(out)).status == 0
    shutil.rmtree(tmp_path / "pool")

    job, units = open_ledger(Folder(str(out)))
    ballots = local.deduplicate(job, local.apply_rules(job, units))
    counts = np.sum([ballot.count_entries(job, b.unit, b) for b in ballots], axis=0)

    assert counts.tolist() == job.folder.read_parquet("entries.parquet", ["survivors"])["survivors"].to_pylist()
    t = job.folder.read_json("run.json")["t"]
    for b in ballots:
        decisions = job.read("decisions", b.unit)
        assert [name or "kept" for name in decisions["rule"].to_pylist()] == [
            ballot.NAMES.get(code) or ("kept" if code == ballot.ALIVE else list(job.recipe.rules)[code])
            if code != ballot.ALIVE or kept
            else "balance"
            for code, kept in zip(b.verdicts.tolist(), decisions["kept"].to_pylist(), strict=True)
        ]
        pi = balance.inclusion(ballot.alive_matches(job, b), balance.probabilities(counts, t))
        assert np.array_equal(pi, decisions["probability"].to_numpy()[b.alive])
