"""Balancing on Beam: by a share of the tail, and with the counts of another run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base.errors import RecipeError
from curate.cli.summary import summary
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit
from tests.kit.whatif import whatif


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("balance")
    kit.write_parquets(folder / "pool", kit.make_rows(300), 3, 100)
    kit.write_metadata(folder)
    return folder


def recipe_of(folder, **balance):
    path, metadata = str(folder / "pool/*.parquet"), str(folder / "metadata.json")
    return kit.recipe_of(path, "parquet", match={"metadata": metadata}, balance=balance)


@pytest.mark.thorough
def test_a_share_of_the_tail(folder):
    recipe = recipe_of(folder, tail_share=0.1)
    beam, local = kit.run_beam(recipe, folder / "beam"), kit.run_local(recipe, folder / "local")
    assert beam.verdicts == local.verdicts and beam.run["t"] == local.run["t"]
    counts = beam.table("entries")["survivors"].to_numpy()
    below = {int(t): counts[counts < t].sum() / counts.sum() for t in np.unique(counts[counts > 0])}
    assert abs(below[beam.run["t"]] - 0.1) == min(abs(share - 0.1) for share in below.values())
    assert beam.counts["balance"] and whatif(str(beam.folder), ["balance.tail_share=0.1"]).t == beam.run["t"]
    share = below[beam.run["t"]]
    assert f"t = {beam.run['t']}, whose tail share, {share:.4g}, is nearest to 0.1" in summary(str(beam.folder), 1.0)
    choices = Run(str(beam.folder)).sql("balance_choices", at=beam.run["t"]).to_pylist()
    assert choices[0]["tail_share"] == pytest.approx(share)


def test_the_counts_of_another_run(folder):
    whole = kit.run_local(recipe_of(folder, t=20), folder / "whole")
    part = recipe_of(folder, t=20, counts=str(whole.folder)).model_dump()
    part["input"][0]["path"] = str(folder / "pool/00000.parquet")
    recipe = parse_recipe(part)
    beam, local = kit.run_beam(recipe, folder / "part"), kit.run_local(recipe, folder / "part local")
    assert beam.verdicts == local.verdicts
    entries = [run.table("entries").to_pydict() for run in (whole, beam)]
    assert entries[0]["probability"] == entries[1]["probability"] and entries[0]["survivors"] != entries[1]["survivors"]
    kept = [{row["uid"] for row in run.table("decisions").to_pylist() if row["kept"]} for run in (whole, beam)]
    duplicates = {row["uid"] for row in whole.table("decisions").to_pylist() if row["rule"] == "duplicate"}
    own = {row["uid"] for row in beam.table("decisions").to_pylist()}
    assert kept[1] - duplicates == (kept[0] & own) - duplicates  # rows of a part have the same draws as in the whole
    found = whatif(str(beam.folder), [])
    assert found.t == 20 and found.expected == pytest.approx(sum(beam.table("decisions")["probability"].to_pylist()))


@pytest.mark.parametrize("entries", [["_", "dog", "cat", "bird"], ["dog", "cat", "cat", "bird"]])
def test_counts_of_entries_of_which_some_were_dropped(entries, tmp_path):
    """An entry's id is its position in the list."""
    captions, path = ["a dog", "a cat", "a dog", "a dog runs", "a cat", "a bird"], str(tmp_path / "pool.parquet")
    pq.write_table(pa.table({"url": [f"https://a.example/{i}" for i in range(6)], "caption": captions}), path)
    (tmp_path / "entries.json").write_text(json.dumps(entries))
    match = {"metadata": str(tmp_path / "entries.json")}
    first = kit.run_local(kit.recipe_of(path, "parquet", match=match, balance={"t": 1}), tmp_path / "first")
    balance = {"t": 1, "counts": str(first.folder)}
    second = kit.run_local(kit.recipe_of(path, "parquet", match=match, balance=balance), tmp_path / "second")
    assert first.kept == second.kept and first.table("entries") == second.table("entries")
    assert whatif(str(second.folder), ["balance.t=2"]).expected > 0


def test_counts_are_of_a_finished_run_with_the_same_entries(folder):
    recipe = recipe_of(folder, t=20, counts=str(folder / "nowhere"))
    with pytest.raises(RecipeError, match=r"balance.counts: .*nowhere is not a finished run; accepted: a finished run"):
        prepare(recipe, str(folder / "x"))
    plain = kit.run_local(kit.recipe_of(str(folder / "pool/*.parquet"), "parquet"), folder / "plain")
    with pytest.raises(RecipeError, match=r"balance.counts: .*plain has no entries"):
        prepare(recipe_of(folder, t=20, counts=str(plain.folder)), str(folder / "x"))
