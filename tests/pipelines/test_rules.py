"""Rules of every kind: Beam decides as one process does, and run.json, explain, and what-if agree with the decisions."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.ask.explain import explain_sample
from curate.ask.query import asking
from curate.cli.run import summary
from tests import kit
from tests.kit.whatif import whatif

DERIVE = {"blend": "zscore(bytes) + minmax(aspect)", "rank": "quantile(blend * words)", "unused": "quantile(width)"}
OUTPUT = {"columns": ["blend"], "json_columns": ["rank"], "repeat": "CASE WHEN rank > 0.5 THEN 2 ELSE 1 END"}
RULES = {
    "wide": {"top": 1, "of": "min_side"}, "usual": {"top": 0.6, "of": "characters", "by": "words"},
    "blended": "blend > 0.3", "ranked": "rank > 0.1", "duplicates": "dedup",
    "large": {"rows": 60, "of": "aspect", "over": "pool"},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    path = kit.write_tars(folder / "tars", kit.make_samples(120), 3)
    recipe = kit.recipe_of(path, derive=DERIVE, rules=RULES, output=OUTPUT)
    return kit.run_beam(recipe, folder / "beam"), kit.run_local(recipe, folder / "local")


def test_beam_decides_as_one_process(runs):
    beam, local = runs
    assert beam.verdicts == local.verdicts and beam.kept == local.kept
    assert {"usual", "blended", "ranked", "large", "kept"} <= set(beam.counts)
    kit.conserved(beam)


def test_run_json_has_the_thresholds(runs):
    wide, usual, _, _, dedup, large = runs[0].run["rules"]
    samples = runs[0].table("samples", ["width", "height", "words", "status"]).to_pylist()
    sides = [min(row["width"], row["height"]) for row in samples if row["status"] == "ok"]
    assert wide["threshold"] == min(sides) and "thresholds" not in wide and "over" not in wide
    assert [one["group"] for one in usual["thresholds"]] == sorted({row["words"] for row in samples if row["words"]})
    assert usual["by"] == "words" and usual["threshold"] is None
    assert dedup == {"name": "duplicates", "sql": None, "top": None, "of": None, "threshold": None, "dedup": True}
    assert large["rows"] == 60 and large["over"] == "pool" and large["threshold"] >= 1


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_rule_with_the_threshold_as_printed_keeps_the_same_rows(tmp_path, kind):
    scores = np.random.default_rng(0).random(200).astype(np.float32)  # as float64 they need more digits
    texts = [f"a caption of row {i}" for i in range(200)]
    rows = {"url": [f"https://example.com/{i}" for i in range(200)], "text": texts, "score": pa.array(scores, kind)}
    pq.write_table(pa.table(rows), tmp_path / "pool.parquet")
    path = str(tmp_path / "pool.parquet")
    best = kit.run_local(kit.recipe_of(path, "parquet", rules={"best": {"top": 0.3, "of": "score"}}), tmp_path / "a")
    printed = re.search(r"\nbest: threshold (\S+) of score\n", summary(str(best.folder), 1))
    assert printed and f"which means at least {printed[1]}\n" in (best.folder / "README.md").read_text()
    again = kit.run_local(kit.recipe_of(path, "parquet", rules={"best": f"score >= {printed[1]}"}), tmp_path / "b")
    assert again.kept == best.kept and again.counts["kept"] == 61


def test_run_json_has_what_columns_were_derived_by(runs):
    blend, rank, unused = runs[0].run["derived"]
    zscore, minmax = blend["statistics"]
    rows = runs[0].table("decisions").filter(pc.field("rule").isin(["failed", "wide", "usual"])).num_rows
    assert zscore["of"] == "bytes" and zscore["rows"] == minmax["rows"] == runs[0].table("decisions").num_rows - rows
    assert zscore["standard_deviation"] > 0 and minmax["least"] == 1 and minmax["greatest"] > 1
    assert [one["function"] for one in (*rank["statistics"], *unused["statistics"])] == ["quantile", "quantile"]
    told = summary(str(runs[0].folder), 1)
    assert f"\nblend: zscore(bytes) over {zscore['rows']:,} rows\n" in told
    assert f"\nunused: quantile(width) over {runs[0].counts['kept']:,} rows\n" in told  # no rule uses it


def test_derived_columns_are_seen_by_sql(runs):
    beam, local = (run.table("derived") for run in runs)
    assert beam.equals(local) and beam.schema.names == ["unit", "row", "uid", *DERIVE]
    with asking(str(runs[0].folder), "SELECT count(blend), count(rank), max(rank), max(unused) FROM measured") as found:
        [(blends, ranks, greatest, last)] = found.rows
    assert blends == ranks > 0 and greatest >= 1 and last >= 1


def test_shards_have_derived_columns_where_they_are_named(runs):
    known = {row["uid"]: row for row in runs[0].table("derived").to_pylist()}
    shard = pq.read_table(runs[0].folder / "shards/00000.parquet").to_pylist()
    assert all(row["blend"] == known[row["uid"]]["blend"] for row in shard)
    assert all(row["repeats"] == (2 if known[row["uid"]]["rank"] > 0.5 else 1) for row in shard)
    fields = [json.loads(members["json"]) for members in kit.loads(runs[0]).values()]
    assert fields and all(one["rank"] == known[one["uid"]]["rank"] for one in fields)


def test_explain_shows_thresholds_and_deduplication(runs):
    by_rule = {row["rule"]: row["uid"] for row in runs[0].table("decisions").to_pylist()}
    uid = by_rule["usual"]
    words = next(row["words"] for row in runs[0].table("samples").to_pylist() if row["uid"] == uid)
    threshold = next(one["threshold"] for one in runs[0].run["rules"][1]["thresholds"] if one["group"] == words)
    for rule, *parts in (
        (
            "usual",
            f"fails here: top 0.6 of characters by words, threshold {threshold}",
            "aspect over the pool, threshold ",
        ),
        ("duplicate", "✗ duplicates fails here: duplicate", "– large not reached, would"),
        ("large", "✓ duplicates no duplicate", "✗ large fails here"),
    ):
        page = " ".join(str(explain_sample(str(runs[0].folder), by_rule[rule])).split())
        assert not [part for part in parts if part not in page], page


def test_whatif_and_the_funnel_follow_the_run(runs):
    folder, kept = str(runs[0].folder), runs[0].counts["kept"]
    names = ["failed", "wide", "usual", "blended", "ranked", "duplicate", "large", "kept"]
    assert list(runs[0].run["counts"]) == names and runs[0].counts["duplicate"]
    with asking(folder, "SELECT rule FROM funnel ORDER BY position") as found:
        assert [rule for (rule,) in found.rows] == ["pool", *names]
    same = whatif(folder, [])
    assert same.expected == kept and same.funnel["rule"].to_pylist() == ["pool", *names]
    assert whatif(folder, ["derive.rank=quantile(blend * words) / 8"]).expected < kept
    assert whatif(folder, ["rules.large.top=1"]).expected > kept


@pytest.mark.slow
def test_packets_of_several_units_on_many_machines(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.steps.units._PACKETS_OF_MANY", 2)
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(60), 5)
    recipe = kit.recipe_of(path, derive=DERIVE, rules=RULES, sample={"rows": 10})
    beam, local = kit.run_beam(recipe, tmp_path / "beam", here=False), kit.run_local(recipe, tmp_path / "local")
    assert beam.verdicts == local.verdicts and beam.counts["kept"] <= 10
    assert beam.table("derived").equals(local.table("derived"))
