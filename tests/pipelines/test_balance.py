"""Balancing by a share of the tail on Beam, and what a run says where balancing drops nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.cli.run import summary
from curate.recipe.recipe import Recipe
from curate.whatif.answer import whatif
from tests.laws import pools


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("balance")
    pools.write_parquets(folder / "pool", pools.make_rows(300), 3, 100)
    pools.write_metadata(folder)
    return folder


def recipe_of(folder: Path, **balance: Any) -> Recipe:
    path, metadata = str(folder / "pool/*.parquet"), str(folder / "metadata.json")
    return pools.recipe_of(path, "parquet", match={"metadata": metadata}, balance=balance)


def test_a_share_of_the_tail(folder: Path) -> None:
    recipe = recipe_of(folder, tail_share=0.1)
    beam, local = pools.run_beam(recipe, folder / "beam"), pools.run_local(recipe, folder / "local")
    assert beam.verdicts == local.verdicts and beam.run["t"] == local.run["t"]
    counts = beam.table("entries")["survivors"].to_numpy()
    below = {int(t): counts[counts < t].sum() / counts.sum() for t in np.unique(counts[counts > 0])}
    assert abs(below[beam.run["t"]] - 0.1) == min(abs(share - 0.1) for share in below.values())
    assert beam.counts["balance"] and whatif(str(beam.folder), ["balance.tail_share=0.1"]).t == beam.run["t"]
    assert f"t = {beam.run['t']}, whose share of smaller counts is nearest to 0.1" in summary(str(beam.folder), 1.0)


@pytest.mark.parametrize(
    ("balance", "why"),
    [
        ({"t": 100_000}, "no entry has more than t rows; the most frequent, 'a', has "),
        ({"rows": 100_000}, "balance.rows is 100,000, and 3"),
    ],
)
def test_a_run_says_why_balancing_dropped_nothing(balance: dict[str, int], why: str, folder: Path) -> None:
    run = pools.run_local(recipe_of(folder, **balance), folder / f"{balance}")
    [said] = [
        line for line in summary(str(run.folder), 1.0).splitlines() if line.startswith("balancing dropped nothing")
    ]
    assert why in said
