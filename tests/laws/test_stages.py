"""Runs over another run keep the same rows as one run of all rules, multiply weights, and measure nothing again."""

import json
import shutil
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.explain import explain_sample
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError, RunError
from curate.publish.forget.forget import forget
from curate.recipe.recipe import parse_recipe
from curate.store.items import Items
from pipelines.prepare import prepare
from tests import kit
from tests.kit import Ran, make_samples, recipe_of, run_beam, run_local, write_metadata, write_tars

pytestmark = pytest.mark.thorough

FIRST = {"words": "words > 2", "own": "number % 7 > 0"}
SECOND = {"wide": "width >= 50", "few": "characters < 45"}
COLUMNS = {"columns": {"number": "int"}}


def stage(run, name="first", **sections):
    """A recipe over the kept rows of a run."""
    return recipe_of(str(run.folder), "run", source={"name": name}, **sections)


def shards(ran):
    """The Parquet files of all shards."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(ran.folder.glob("shards/*.parquet"))])


def column(ran, name):
    """A column of the shards, by uid."""
    table = shards(ran)
    return dict(zip(table["uid"].to_pylist(), table[name].to_pylist(), strict=True))


def of_table(ran, table, name):
    """A column of a table, of the kept rows, by uid."""
    rows = ran.table(table, ["uid", name]).filter(ran.table("decisions", ["kept"])["kept"])
    return dict(zip(rows["uid"].to_pylist(), rows[name].to_pylist(), strict=True))


class Stages(NamedTuple):
    """A pool, and two runs, the second over the first."""

    pool: str
    first: Ran
    second: Ran


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Both runs balance; the first repeats its rows."""
    folder = tmp_path_factory.mktemp("stages")
    pool = write_tars(folder / "pool", make_samples(), 3)
    match = {"metadata": write_metadata(folder)}
    first = run_local(
        recipe_of(
            pool, source=COLUMNS, rules=FIRST, match=match, balance={"t": 20}, measure={"language": {}},
            output={"rows_per_shard": 50, "repeat": "2"}, name="one",
        ),
        folder / "first",
    )  # fmt: skip
    second = stage(first, rules=SECOND, match=match, balance={"t": 8}, seed=3, output={"rows_per_shard": 40})
    return Stages(pool, first, run_beam(second, folder / "second"))


# ---------------------------------------------------------------- what is kept
def test_the_pool_is_what_the_first_run_kept(tars):
    _, first, second = tars
    pool, before = second.table("samples"), first.table("samples").filter(first.table("decisions")["kept"])
    assert len(pool) == first.counts["kept"] == second.run["input_runs"]["first"]["kept"]
    assert set(pool["source"].to_pylist()) == {"first"} and set(pool["status"].to_pylist()) == {"ok"}
    same = ["uid", "url", "caption", "language", "words", "width", "height", "format", "sha256", "bytes"]
    assert pool.select(same).equals(before.select(same))
    scores = second.table("scores").filter(second.table("decisions")["kept"])
    assert scores["number"].to_pylist() == list(column(second, "number").values())
    assert set(scores["input_repeats"].to_pylist()) == {2}
    assert first.run["identity"] in (second.folder / "README.md").read_text()
    assert verify_run(str(second.folder))[1] == []


def test_weights_multiply(tars):
    _, first, second = tars
    earlier, own = (of_table(ran, "decisions", "probability") for ran in (first, second))
    both = column(second, "probability")
    assert 20 < len(both) < len(earlier) and own.keys() == both.keys() <= earlier.keys()
    assert both == {uid: earlier[uid] * own[uid] for uid in own}
    assert min(earlier[uid] for uid in own) < 1 and min(own.values()) < 1
    assert column(second, "input_probability") == {uid: earlier[uid] for uid in own}
    kept = Run(str(second.folder)).sql("SELECT uid, probability * input_probability AS p FROM kept")
    assert dict(zip(kept["uid"].to_pylist(), kept["p"].to_pylist(), strict=True)) == both


def test_rows_that_were_repeated_come_once(tars, tmp_path):
    _, first, second = tars
    assert len(np.load(first.folder / "uids.npy")) == 2 * first.counts["kept"]
    assert len(np.load(second.folder / "uids.npy")) == second.counts["kept"]
    assert set(column(second, "input_repeats").values()) == {2} and "repeats" not in shards(second).column_names
    again = run_local(stage(first, output={"repeat": "input_repeats"}), tmp_path / "again")
    assert again.kept == first.kept


def test_members_are_copied_as_they_came(tars):
    before = dict(tars.first.members)
    for name, data in tars.second.members:
        if name.endswith(".json"):
            assert json.loads(before[name]).items() <= json.loads(data).items()
        else:
            assert data == before[name]


def test_two_stages_keep_what_one_of_all_rules_keeps(tars, tmp_path):
    first = run_local(recipe_of(tars.pool, source=COLUMNS, rules=FIRST), tmp_path / "first")
    second = run_local(stage(first, rules=SECOND), tmp_path / "second")
    rules = FIRST | {"duplicates": "dedup"} | SECOND
    one = run_local(recipe_of(tars.pool, source=COLUMNS, rules=rules), tmp_path / "one")
    assert second.kept == one.kept and 20 < second.counts["kept"] < first.counts["kept"]
    assert set(column(second, "probability").values()) == {1.0}


@pytest.mark.parametrize("joined", [False, True])
def test_draws_of_stages_are_independent(tmp_path, joined):
    """They are independent with one seed, and by a join. Otherwise a second run would keep what the first one kept."""
    (tmp_path / "entries.txt").write_text("dog\ncat\n")
    urls, captions = ([f"{text}{i}" for i in range(4000)] for text in ("https://a.example/", "a dog "))
    pq.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / "pool.parquet")
    match, pool = {"metadata": str(tmp_path / "entries.txt")}, str(tmp_path / "pool.parquet")
    run = run_local(recipe_of(pool, "parquet", match=match, balance={"t": 2000}), tmp_path / "0")
    for number, t in enumerate((1000, 500), 1):
        recipe = stage(run, match=match, balance={"t": t})
        if joined:
            paths, pool = f"{run.folder}/shards/*.parquet", str(tmp_path / f"{number}.parquet")
            join = {"path": paths, "on": "uid", "columns": {"input_probability": "probability"}}
            pq.write_table(shards(run).select(["url", "caption"]), pool)
            recipe = recipe_of(pool, "parquet", source={"join": join}, match=match, balance={"t": t})
        run = run_local(recipe, tmp_path / str(number))
        kept = run.counts["kept"]
        assert abs(kept - t) < 4 * t**0.5
        weights = 1 / np.array(list(column(run, "probability").values()))
        assert abs(weights.sum() - 4000) < 4 * float(np.sqrt((weights**2).sum()))
        uid, draw = next(iter(of_table(run, "decisions", "draw").items()))
        assert f"{draw:.4g}  ← smallest" in str(Run(str(run.folder)).explain(uid))


def test_runs_and_other_sources_go_together(tars, tmp_path):
    more = write_tars(tmp_path / "more", make_samples(24, seed=5), 1)
    recipe = recipe_of(more, rules={"words": "words > 1"}).model_dump(mode="json", exclude_none=True)
    sources = [{"name": "first", "format": "run", "path": str(tars.first.folder)}, *recipe["input"]]
    both = run_local(parse_recipe(recipe | {"input": sources}), tmp_path / "run")
    weights, before = column(both, "probability"), of_table(tars.first, "decisions", "probability")
    assert weights == {uid: before.get(uid, 1.0) for uid in weights}
    assert {uid: p for uid, p in column(both, "input_probability").items() if p is not None} == before


# ---------------------------------------------------------------- without images
@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The pool has URLs. Only the first recipe names the column of the captions."""
    folder = tmp_path_factory.mktemp("texts")
    rows = kit.make_rows(600)
    rows = rows.rename_columns(["alt" if name == "text" else name for name in rows.column_names])
    rows = rows.append_column("text", pa.array([f"no caption {i}" for i in range(len(rows))]))
    pool = kit.write_parquets(folder / "pool", rows, 2)
    source = {"columns": {"caption": "alt"}}
    match = {"metadata": write_metadata(folder)}
    first = run_local(
        recipe_of(pool, "parquet", source=source, match=match, balance={"t": 60}, measure={"language": {}},
                  rules={"words": "words > 3"}, output={"rows_per_shard": 100}),
        folder / "first",
    )  # fmt: skip
    second = stage(first, rules={"noted": "note <> 'row 5'", "aligned": "clip_score >= 0.3"}, sample={"rows": 50})
    return Stages(pool, first, run_beam(second, folder / "second"))


def test_a_pool_without_images(texts):
    _, first, second = texts
    before, own = (of_table(ran, "decisions", "probability") for ran in (first, second))
    both = column(second, "probability")
    assert both == {uid: before[uid] * own[uid] for uid in own} and len(both) == 50
    assert column(second, "input_probability") == {uid: before[uid] for uid in own}
    pool, earlier = second.table("samples"), first.table("samples").filter(first.table("decisions")["kept"])
    same = ["uid", "url", "caption", "language", "width", "height"]
    assert pool.select(same).equals(earlier.select(same))
    old, new = shards(first), shards(second)
    assert set(new.column_names) == {*old.column_names, "input_probability"}
    of_old = {row["uid"]: row for row in old.to_pylist()}
    drawn = {"probability": None}
    assert all((of_old[row["uid"]] | drawn).items() <= (row | drawn).items() for row in new.to_pylist())
    assert verify_run(str(second.folder))[1] == []


def test_a_third_stage_without_images(texts, tmp_path):
    """The first run is gone; captions still come from the column that its recipe names."""
    away = texts.first.folder.rename(tmp_path / "away")
    third = run_local(stage(texts.second, sample={"rows": 20}), tmp_path / "third")
    away.rename(texts.first.folder)
    assert of_table(third, "samples", "caption").items() <= of_table(texts.first, "samples", "caption").items()
    weights = column(texts.second, "probability")
    assert column(third, "input_probability") == {uid: weights[uid] for uid in column(third, "uid")}
    assert column(third, "probability") == {uid: weights[uid] * (20 / 50) for uid in column(third, "uid")}
    assert shards(third).column_names.count("input_probability") == 1


# ---------------------------------------------------------------- what changes
def test_of_a_changed_run_only_the_changed_shards_are_read(tars, tmp_path, monkeypatch):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    recipe = stage(first, rules=SECOND)
    second = run_local(recipe, tmp_path / "second")
    seen = kit.watch_measuring(monkeypatch)
    again = run_local(stage(first, rules={"few": "characters < 40"}), tmp_path / "again", second.folder)
    assert seen == [] and again.counts["kept"] < first.counts["kept"]
    gone = pq.read_table(first.folder / "shards/00001.parquet", columns=["uid"])["uid"][3].as_py()
    forget(str(first.folder), Items.of({"uid": [bytes.fromhex(gone)]}))
    with pytest.raises(RecipeError, match="contains a run of the same recipe, but an input"):
        prepare(recipe, str(second.folder))
    without = run_local(recipe, tmp_path / "without", second.folder)
    assert seen == ["00001.tar"]
    assert set(column(without, "uid")) == set(column(second, "uid")) - {gone}
    assert len(without.table("samples")) == tars.first.counts["kept"] - 1


def test_what_a_run_must_be(tars, texts, tmp_path):
    def copy(name, lost):
        shutil.copytree(tars.first.folder, tmp_path / name)
        (tmp_path / name / lost).unlink()
        return tmp_path / name

    nothing = run_local(recipe_of(tars.pool, rules={"none": "words > 1000"}), tmp_path / "nothing").folder
    bare = recipe_of(tars.pool, sample={"rows": 30}, output={"columns": ["language"]}, measure={"language": {}})
    plain = recipe_of(f"{texts.first.folder}/shards/*.parquet", "parquet", sample={"rows": 90})
    for folder, match in (
        (tmp_path / "none", "input 'first': .*/none: no such folder"),
        (tars.first.folder / "shards", "not a run folder"),
        (copy("unfinished", "_SUCCESS"), "this run is not finished"),
        (copy("incomplete", "shards/00001.tar"), "00001.tar: no such file"),
        (nothing, "the run kept no sample"),
        (run_local(bare, tmp_path / "bare").folder, "its shards have no probabilities"),
        (run_local(plain, tmp_path / "plain").folder, "its shards have no probabilities"),  # that of its input
    ):
        with pytest.raises(RecipeError, match=match):
            prepare(stage(Ran(folder)), str(tmp_path / "out"))
    with pytest.raises(RecipeError, match="the columns of its shards: url, key"):
        prepare(stage(tars.first, rules={"good": "quality > 1"}), str(tmp_path / "out"))


def test_shards_that_are_empty_and_runs_in_a_store(tmp_path):
    """All samples of a shard are forgotten; the run is copied to an object store."""
    pool = write_tars(tmp_path / "pool", make_samples(60), 1)
    first = run_local(recipe_of(pool, sample={"rows": 40}, output={"rows_per_shard": 20}), tmp_path / "first")
    gone = pq.read_table(first.folder / "shards/00001.parquet", columns=["uid"])["uid"].to_pylist()
    forget(str(first.folder), Items.of({"uid": list(map(bytes.fromhex, gone))}))
    second = run_local(stage(first), tmp_path / "second")
    assert second.reasons == {} and second.counts == {"kept": first.run["counts"]["kept"]}
    fsspec.filesystem("memory").put(str(first.folder), "/first", recursive=True)
    remote = run_local(recipe_of("memory://first", "run", source={"name": "first"}), tmp_path / "remote")
    assert remote.kept == second.kept and column(remote, "probability") == column(second, "probability")


def test_a_damaged_table_beside_a_tar_is_a_failure(tars, tmp_path):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    other = pq.read_table(first.folder / "shards/00000.parquet")
    pq.write_table(other.slice(1), first.folder / "shards/00000.parquet")
    (first.folder / "shards/00001.parquet").write_bytes(b"PAR1 and no more PAR1")
    second = run_local(stage(first), tmp_path / "second")
    assert second.reasons == {("00000.tar", None): "unreadable", ("00001.tar", None): "unreadable"}
    assert "has no row for sample" in second.table("failures")["detail"][0].as_py()
    assert second.counts["kept"] == first.counts["kept"] - 100


# ---------------------------------------------------------------- explain
def test_explain_tells_all_stages(tars):
    _, first, second = tars
    uid = next(iter(column(second, "uid")))
    page = str(explain_sample(str(second.folder), uid))
    assert f"stage before  source first, run {first.folder}" in page and page.count("verdict: kept") == 2
    assert page.endswith(str(explain_sample(str(first.folder), uid)))
    assert f"input_probability {of_table(first, 'decisions', 'probability')[uid]:.6g}" in " ".join(page.split())
    decisions = first.table("decisions").to_pylist()
    dropped = next(row["uid"] for row in decisions if row["rule"] == "own")
    assert "verdict: dropped by own" in str(explain_sample(str(second.folder), dropped))
    with pytest.raises(RunError, match=r"none of its .* rows has uid"):
        explain_sample(str(second.folder), "f" * 32)


def test_explain_goes_on_without_the_first_run(tars, tmp_path):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    second = run_local(stage(first, rules=SECOND), tmp_path / "second")
    third = run_local(stage(second, "second"), tmp_path / "third")
    uid = next(iter(column(third, "uid")))
    assert str(explain_sample(str(third.folder), uid)).count("verdict: kept") == 3
    shutil.rmtree(first.folder)
    page = str(explain_sample(str(third.folder), uid))
    assert page.count("verdict: kept") == 2 and f"cannot explain this stage: {first.folder}: no such folder" in page
    with pytest.raises(RunError, match=r"curate cannot explain this stage: .* no such folder"):
        explain_sample(str(third.folder), "f" * 32)


def test_inputs_that_name_other_columns_are_refused(texts, tmp_path):
    recipe = recipe_of(texts.pool, "parquet").model_dump(mode="json", exclude_none=True)
    sources = [{**recipe["input"][0], "name": name, "columns": {"caption": name}} for name in ("alt", "text")]
    first = run_local(parse_recipe(recipe | {"input": sources}), tmp_path / "first")
    with pytest.raises(RecipeError, match="its inputs have the caption in different columns \\('alt' and 'text'\\)"):
        prepare(stage(first), str(tmp_path / "second"))
