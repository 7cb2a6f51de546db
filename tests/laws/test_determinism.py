"""Law 2: the kept set depends on pool and recipe alone; one plan gives the same bytes twice."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.steps import units as beam_units
from tests import kit
from tests.kit import Sample

LOCAL = ["--runner=FnApiRunner", "--direct_num_workers=2"]
THREADS = [*LOCAL, "--direct_running_mode=multi_threading"]
PROCESSES = [*LOCAL, "--direct_running_mode=multi_processing"]

IMAGES = {
    "measure": {"image": {"phash": True}},
    "rules": {"words": "words > 3", "side": "least(width, height) >= 49", "long": {"top": 0.8, "of": "characters"}},
    "dedup": {"by": ["phash", "uid", "sha256"], "prefer": "characters"},
    "output": {"rows_per_shard": 15},
}
TEXTS = {
    "rules": {
        "words": "words > 3", "aligned": {"top": 0.7, "of": "clip_score"}, "side": "least(width, height) >= 110",
        "wide": {"top": 0.9, "of": "width"},
    },
    "dedup": {"prefer": "clip_score"}, "output": {"rows_per_shard": 300},
}  # fmt: skip

RECIPES = {
    "images, t": ("webdataset", {**IMAGES, "balance": {"t": 2}}),
    "images, rows": ("webdataset", {**IMAGES, "balance": {"rows": 40}, "seed": 7}),
    "texts, rows": ("parquet", {**TEXTS, "balance": {"rows": 1000}, "seed": 3}),
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same pools, by form and layout."""
    folder = tmp_path_factory.mktemp("pools")
    samples, rows = kit.make_samples(120), kit.make_rows(2000)
    mixed = kit.shuffled(samples, 5), rows.take(pa.array(np.random.default_rng(5).permutation(len(rows))))
    tars, tables = folder / "tars", folder / "parquet"
    tars.mkdir()
    tables.mkdir()
    return {
        "webdataset": {
            "1": kit.write_tars(tars / "1", samples, 1),
            "20": kit.write_tars(tars / "20", samples, 20),
            "7 shuffled": kit.write_tars(tars / "7s", mixed[0], 7),
        },
        "parquet": {
            "1": kit.write_parquets(tables / "1", rows, 1, group=10_000),
            "20": kit.write_parquets(tables / "20", rows, 20),
            "7 shuffled": kit.write_parquets(tables / "7s", mixed[1], 7, group=300),
        },
    }


@pytest.fixture
def small_units(monkeypatch):
    """Parquet pools of few rows in many units."""
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (100, 500))


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    return kit.write_metadata(tmp_path_factory.mktemp("metadata"))


def same(one, other):
    """Check that two runs decided alike."""
    assert one.counts == other.counts
    assert one.kept == other.kept
    assert one.verdicts == other.verdicts
    assert one.run["t"] == other.run["t"]
    if (one.folder / "entries.parquet").exists():
        assert one.table("entries").equals(other.table("entries"))


def section(name, metadata):
    form, sections = RECIPES[name]
    return form, sections | {"match": {"metadata": metadata}}


@pytest.mark.thorough
@pytest.mark.parametrize("name", [pytest.param("images, t", marks=pytest.mark.slow), "texts, rows"])
def test_any_layout_gives_the_same_set(name, layouts, metadata, tmp_path, small_units):
    form, sections = section(name, metadata)
    runs = {
        layout: kit.run_local(kit.recipe_of(path, form, **sections), tmp_path / layout)
        for layout, path in layouts[form].items()
    }
    first = runs["1"]
    # Every rule drops some rows, and some are kept.
    expected = {"failed", *sections["rules"], "duplicate", "kept", "balance", "unmatched"}
    assert set(first.counts) | {"unmatched"} == expected
    units = {layout: len(list((run.folder / "tables/samples").iterdir())) for layout, run in runs.items()}
    assert units["1"] == 1 and units["7 shuffled"] >= 7 and units["20"] >= 10
    for run in runs.values():
        same(first, run)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["images, rows", "texts, rows"])
def test_beam_equals_memory(name, layouts, metadata, tmp_path, small_units, monkeypatch):
    """All runs give the same bytes: without Beam, on one worker, on two threads, with other buckets and packets."""
    form, sections = section(name, metadata)
    recipe = kit.recipe_of(layouts[form]["7 shuffled"], form, **sections)
    local = kit.lasting_files(kit.run_local(recipe, tmp_path / "local").folder)
    assert {"uids.npy", "entries.parquet", "failures.parquet", "shards/sizes.json"} < set(local)
    assert any(path.startswith("shards/00001.") for path in local)
    assert any(path.startswith("tables/decisions/") for path in local)
    if form == "webdataset":
        assert kit.lasting_files(kit.run_beam(recipe, tmp_path / "memory", n_buckets=1).folder) == local
    monkeypatch.setattr(beam_units, "_PACKETS", 3)
    assert kit.lasting_files(kit.run_beam(recipe, tmp_path / "threads", THREADS, n_buckets=13).folder) == local


@pytest.mark.slow
def test_processes_give_the_same_bytes(layouts, metadata, tmp_path, small_units, capfd):
    form, sections = section("images, rows", metadata)
    recipe = kit.recipe_of(layouts[form]["7 shuffled"], form, **sections)
    local = kit.lasting_files(kit.run_local(recipe, tmp_path / "local").folder)
    assert kit.lasting_files(kit.run_beam(recipe, tmp_path / "processes", PROCESSES).folder) == local


@pytest.mark.slow
def test_unusual_recipes_through_beam(layouts, metadata, tmp_path):
    """No match and no rules; a rule that nothing passes; a pool without a row, or without a readable sample."""
    path = layouts["webdataset"]["7 shuffled"]
    bad_samples = [sample for sample in kit.make_samples() if sample.key.startswith("bad")]
    bad = kit.write_tar(tmp_path / "bad.tar", bad_samples)
    pq.write_table(kit.make_rows(9)[:0], tmp_path / "none.parquet")
    cases = {
        "bare": kit.recipe_of(path),
        "nothing passes": kit.recipe_of(
            path, match={"metadata": metadata}, rules={"no": "words > 1000", "top": {"top": 0.5, "of": "words"}},
            balance={"t": 5},
        ),
        "no row": kit.recipe_of(
            str(tmp_path / "none.parquet"), "parquet", match={"metadata": metadata},
            rules={"best": {"top": 0.5, "of": "clip_score"}}, balance={"t": 1}, max_failed=0, max_failed_files=0,
        ),
        "nothing readable": kit.recipe_of(str(bad), match={"metadata": metadata}, rules={"top": {"top": 0.5, "of": "words"}}),
    }  # fmt: skip
    for name, recipe in cases.items():
        local = kit.run_local(recipe, tmp_path / f"{name} local")
        one = kit.run_beam(recipe, tmp_path / f"{name} beam")
        assert kit.lasting_files(local.folder) == kit.lasting_files(one.folder)
    assert one.counts == {"failed": len(bad_samples)}


@pytest.mark.thorough
@pytest.mark.parametrize("dedup", [{"by": ["uid"]}, {"by": ["uid"], "prefer": "words"}])
def test_ties_are_broken_by_content(dedup, tmp_path):
    """Rows have the same uid, but other captions or images. The kept row does not depend on positions or shards."""
    uid = "0123456789abcdef0123456789abcdef"
    picture = [kit.encode(kit.picture(i)) for i in range(2)]
    rows = [
        Sample("x0", picture[0], "a red dog", "https://e.com/1", uid),
        Sample("x1", picture[0], "a blue cat", "https://e.com/1", uid.upper()),
        Sample("x2", picture[1], "a red dog", "https://e.com/2", uid),
    ]
    kept = set()
    for n, order in enumerate([*itertools.permutations(rows)][::2]):
        path = kit.write_tars(tmp_path / f"pool{n}", order, 1 + n % 2 * 2)
        run = kit.run_local(kit.recipe_of(path, dedup=dedup), tmp_path / f"run{n}")
        assert run.counts == {"duplicate": 2, "kept": 1}
        assert run.verdicts == Counter({(uid, None, None): 1, (uid, "duplicate", uid): 2})
        files = {name.partition(".")[2]: data for name, data in run.members}
        kept.add((files["jpg"], files["txt"], json.loads(files["json"])["uid"]))
    assert len(kept) == 1


def test_rows_alike_are_interchangeable(tmp_path):
    """Doubling the pool changes no kept uid without balancing, and every second row is a duplicate."""
    samples = [s for s in kit.make_samples(60) if not s.key.startswith("bad")]
    again = [replace(s, key=f"{s.key}again") for s in samples]
    doubled = kit.write_tars(tmp_path / "p2", kit.shuffled(samples + again, 2), 5)
    one = kit.run_local(kit.recipe_of(kit.write_tars(tmp_path / "p1", samples, 3)), tmp_path / "one")
    two = kit.run_local(kit.recipe_of(doubled), tmp_path / "two")
    assert one.kept == two.kept
    assert two.counts["duplicate"] == one.counts["duplicate"] * 2 + one.counts["kept"]
