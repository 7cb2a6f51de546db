"""Runs whose input is another run: the same rows as one run of all rules keeps, weights that multiply, nothing measured again."""

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
from curate.ask.report.page import write_report
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError, RunError
from curate.publish.forget.forget import forget
from curate.recipe.recipe import load_recipe, parse_recipe
from curate.store.items import Items
from pipelines.prepare import prepare
from tests.kit import (
    Ran,
    make_rows,
    make_samples,
    recipe_of,
    run_beam,
    run_local,
    watch_measuring,
    write_metadata,
    write_parquets,
    write_tars,
)

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
    kept = ran.table("decisions", ["kept"])["kept"]
    rows = ran.table(table, ["uid", name]).filter(kept)
    return dict(zip(rows["uid"].to_pylist(), rows[name].to_pylist(), strict=True))


class Stages(NamedTuple):
    """A pool, and two runs, the second over the first."""

    pool: str
    first: Ran
    second: Ran


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Both balance; the first repeats its rows."""
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


def test_rows_that_were_repeated_come_once(tars):
    _, first, second = tars
    assert len(np.load(first.folder / "uids.npy")) == 2 * first.counts["kept"]
    assert len(np.load(second.folder / "uids.npy")) == second.counts["kept"]
    assert set(column(second, "input_repeats").values()) == {2} and "repeats" not in shards(second).column_names


def test_members_are_copied_as_they_came(tars):
    _, first, second = tars
    before = dict(first.members)
    for name, data in second.members:
        if name.endswith(".json"):
            fields, old = json.loads(data), json.loads(before[name])
            assert {key: fields[key] for key in old} == old
        else:
            assert data == before[name]


def test_two_stages_keep_what_one_of_all_rules_keeps(tars, tmp_path):
    first = run_local(recipe_of(tars.pool, source=COLUMNS, rules=FIRST), tmp_path / "first")
    second = run_local(stage(first, rules=SECOND), tmp_path / "second")
    rules = FIRST | {"duplicates": "dedup"} | SECOND
    one = run_local(recipe_of(tars.pool, source=COLUMNS, rules=rules), tmp_path / "one")
    assert second.kept == one.kept and 20 < second.counts["kept"] < first.counts["kept"]
    assert set(column(second, "probability").values()) == {1.0}


def test_a_third_stage_multiplies_all_three(tars, tmp_path):
    _, first, second = tars
    third = run_local(stage(second, "second", sample={"rows": 12}), tmp_path / "third")
    p = [of_table(ran, "decisions", "probability") for ran in tars[1:]]
    assert column(third, "input_probability") == {uid: p[0][uid] * p[1][uid] for uid in column(third, "uid")}
    share = 12 / second.counts["kept"]
    assert column(third, "probability") == {uid: p[0][uid] * p[1][uid] * share for uid in column(third, "uid")}
    assert column(third, "language") == {
        uid: of_table(first, "samples", "language")[uid] for uid in column(third, "uid")
    }


@pytest.mark.parametrize("joined", [False, True])
def test_draws_of_stages_are_independent(tmp_path, joined):
    """Of runs of one seed, too, and where the probability came by a join: else a second run keeps what the first one kept."""
    (tmp_path / "entries.txt").write_text("dog\ncat\n")
    rows = pa.table(
        {"url": [f"https://a.example/{i}" for i in range(4000)], "caption": [f"a dog {i}" for i in range(4000)]}
    )
    pq.write_table(rows, tmp_path / "pool.parquet")
    match = {"metadata": str(tmp_path / "entries.txt")}
    run = run_local(
        recipe_of(str(tmp_path / "pool.parquet"), "parquet", match=match, balance={"t": 2000}), tmp_path / "0"
    )
    for number, t in enumerate((1000, 500), 1):
        recipe = stage(run, match=match, balance={"t": t})
        if joined:
            paths = f"{run.folder}/shards/*.parquet"
            join = {"path": paths, "on": "uid", "columns": {"input_probability": "probability"}}
            pq.write_table(shards(run).select(["url", "caption"]), tmp_path / f"{number}.parquet")
            recipe = recipe_of(
                str(tmp_path / f"{number}.parquet"), "parquet", source={"join": join}, match=match, balance={"t": t}
            )
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
    """URLs, whose caption is in a column that only the first recipe names."""
    folder = tmp_path_factory.mktemp("texts")
    rows = make_rows(600)
    rows = rows.rename_columns(["alt" if name == "text" else name for name in rows.column_names])
    rows = rows.append_column("text", pa.array([f"no caption {i}" for i in range(len(rows))]))
    pool = write_parquets(folder / "pool", rows, 2)
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
    unchanged = [name for name in old.column_names if name != "probability"]
    assert all(
        {name: row[name] for name in unchanged} == {n: of_old[row["uid"]][n] for n in unchanged}
        for row in new.to_pylist()
    )
    assert verify_run(str(second.folder))[1] == []


def test_a_third_stage_without_images(texts, tmp_path):
    """The first run is not there any more; the caption is in the column that its recipe names."""
    away = texts.first.folder.rename(tmp_path / "away")
    third = run_local(stage(texts.second, sample={"rows": 20}), tmp_path / "third")
    away.rename(texts.first.folder)
    captions = dict(zip(*(texts.first.table("samples")[name].to_pylist() for name in ("uid", "caption")), strict=True))
    found = third.table("samples")
    assert found["caption"].to_pylist() == [captions[uid] for uid in found["uid"].to_pylist()]
    weights = column(texts.second, "probability")
    assert column(third, "input_probability") == {uid: weights[uid] for uid in column(third, "uid")}
    assert column(third, "probability") == {uid: weights[uid] * (20 / 50) for uid in column(third, "uid")}
    assert shards(third).column_names.count("input_probability") == 1


def test_a_probability_of_the_input_is_not_the_runs(texts, tmp_path):
    """Shards of a run read as plain Parquet: their `probability` goes through, and the new one has no place."""
    plain = f"{texts.first.folder}/shards/*.parquet"
    first = run_local(recipe_of(plain, "parquet", sample={"rows": 90}), tmp_path / "first")
    with pytest.raises(RecipeError, match="the run drew its rows, and its shards do not say with which probability"):
        prepare(stage(first), str(tmp_path / "second"))


# ---------------------------------------------------------------- what changes
def test_of_a_changed_run_only_the_changed_shards_are_read(tars, tmp_path, monkeypatch):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    recipe = stage(first, rules=SECOND)
    second = run_local(recipe, tmp_path / "second")
    seen = watch_measuring(monkeypatch)
    again = run_local(stage(first, rules={"few": "characters < 40"}), tmp_path / "again", second.folder)
    assert seen == [] and again.counts["kept"] < first.counts["kept"]
    gone = pq.read_table(first.folder / "shards/00001.parquet", columns=["uid"])["uid"][3].as_py()
    forget(str(first.folder), Items.of({"uid": [bytes.fromhex(gone)]}))
    with pytest.raises(RecipeError, match="holds a run of another pool or setting"):
        prepare(recipe, str(second.folder))
    without = run_local(recipe, tmp_path / "without", second.folder)
    assert seen == ["00001.tar"]
    assert set(column(without, "uid")) == set(column(second, "uid")) - {gone}
    assert len(without.table("samples")) == tars.first.counts["kept"] - 1


def test_what_a_run_must_be(tars, tmp_path):
    def error(path, **sections):
        with pytest.raises(RecipeError) as caught:
            prepare(stage(Ran(path), **sections), str(tmp_path / "out"))
        return str(caught.value)

    assert f"input 'first': {tmp_path}/none: no such folder" in error(tmp_path / "none")
    assert "not a run folder (no run.json)" in error(tars.first.folder / "shards")
    copy = tmp_path / "copy"
    shutil.copytree(tars.first.folder, copy)
    (copy / "_SUCCESS").unlink()
    assert "this run is not finished (no _SUCCESS); run its recipe again" in error(copy)
    (copy / "_SUCCESS").touch()
    (copy / "shards/00001.tar").unlink()
    assert "00001.tar: no such file" in error(copy)
    nothing = run_local(recipe_of(tars.pool, rules={"none": "words > 1000"}), tmp_path / "nothing")
    assert "the run kept no sample" in error(nothing.folder)
    bare = recipe_of(tars.pool, sample={"rows": 30}, output={"columns": ["language"]}, measure={"language": {}})
    assert "do not say with which probability" in error(run_local(bare, tmp_path / "bare").folder)
    assert "the columns of its shards: url, key" in error(tars.first.folder, rules={"good": "quality > 1"})


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


def test_the_folder_is_relative_to_the_recipe(tmp_path):
    file = tmp_path / "second.yaml"
    file.write_text("input: [{name: first, format: run, path: runs/first}]")
    assert load_recipe(str(file)).input[0].path == f"{tmp_path}/runs/first"
    file.write_text("input: [{name: first, format: run, path: [a, b]}]")
    with pytest.raises(RecipeError, match="path"):
        load_recipe(str(file))


def test_a_damaged_table_beside_a_tar_is_a_failure(tars, tmp_path):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    other = pq.read_table(first.folder / "shards/00000.parquet")
    pq.write_table(other.slice(1), first.folder / "shards/00000.parquet")
    (first.folder / "shards/00001.parquet").write_bytes(b"PAR1 and no more PAR1")
    second = run_local(stage(first), tmp_path / "second")
    assert second.reasons == {("00000.tar", None): "unreadable", ("00001.tar", None): "unreadable"}
    assert "has no row of sample" in second.table("failures")["detail"][0].as_py()
    assert second.counts["kept"] == first.counts["kept"] - 100


# ---------------------------------------------------------------- explain
def explained(ran, sample):
    """What is said of a sample; and its lines, without margins."""
    page = str(explain_sample(str(ran.folder), sample))
    return page, [line.strip() for line in page.splitlines()]


def test_explain_tells_all_stages(tars):
    _, first, second = tars
    uid = next(iter(column(second, "uid")))
    page, lines = explained(second, uid)
    place = next(i for i, line in enumerate(lines) if line.startswith("stage before"))
    assert lines[place] == f"stage before  source first, run {first.folder}"
    assert [line.startswith("verdict: kept: its draw") for line in (lines[2], lines[place + 3])] == [True, True]
    assert page.endswith(str(explain_sample(str(first.folder), uid)))
    earlier = of_table(first, "decisions", "probability")[uid]
    assert f"input_probability {earlier:.6g}" in [" ".join(line.split()) for line in lines]
    dropped = next(
        uid for uid, rule in zip(*(first.table("decisions")[name].to_pylist() for name in ("uid", "rule")), strict=True)
        if rule == "own"
    )  # fmt: skip
    page, lines = explained(second, dropped)
    assert lines[0] == f"{dropped}: not in this pool; in the runs that are its inputs:"
    assert any(line.startswith("verdict: dropped by own") for line in lines)
    with pytest.raises(RunError, match=r"none of its .* rows has uid"):
        explain_sample(str(second.folder), "f" * 32)


def test_explain_goes_on_without_the_first_run(tars, tmp_path):
    first = Ran(tmp_path / "first")
    shutil.copytree(tars.first.folder, first.folder)
    second = run_local(stage(first, rules=SECOND), tmp_path / "second")
    third = run_local(stage(second, "second"), tmp_path / "third")
    uid = next(iter(column(third, "uid")))
    _, lines = explained(third, uid)
    assert sum(line.startswith("verdict: kept") for line in lines) == 3
    shutil.rmtree(first.folder)
    _, lines = explained(third, uid)
    assert sum(line.startswith("verdict: kept") for line in lines) == 2
    assert lines[-1].startswith(f"it cannot be explained: {first.folder}: no such folder")
    unknown = rf"rows has uid {'f' * 32}; source 'second': it cannot be explained: .* rows has uid .*; source 'first': it cannot be explained: .* no such folder"
    with pytest.raises(RunError, match=unknown):
        explain_sample(str(third.folder), "f" * 32)
    shutil.copytree(tars.second.folder, first.folder)
    _, lines = explained(third, uid)
    if uid in column(tars.second, "uid"):
        assert "the folder now holds another run; what follows is about that one" in lines


def test_the_report_says_where_the_pool_came_from(tars, tmp_path):
    write_report(str(tars.second.folder), str(tmp_path / "report.html"))
    kept, rows = tars.first.run["counts"]["kept"], sum(tars.first.run["counts"].values())
    assert f"what run one kept, {kept} of {rows} samples" in (tmp_path / "report.html").read_text()


def test_the_card_says_where_the_pool_came_from(tars):
    text = (tars.second.folder / "README.md").read_text()
    of = tars.first.run
    kept, rows = of["counts"]["kept"], sum(of["counts"].values())
    assert f"- first (run): what one kept, {kept} of {rows} samples (run {of['identity']})\n\n## Contents" in text


def test_repeats_of_the_first_run_again(tars, tmp_path):
    again = run_local(stage(tars.first, output={"repeat": "input_repeats"}), tmp_path / "again")
    assert again.kept == tars.first.kept


def test_inputs_that_name_other_columns_are_refused(texts, tmp_path):
    recipe = recipe_of(texts.pool, "parquet").model_dump(mode="json", exclude_none=True)
    sources = [{**recipe["input"][0], "name": name, "columns": {"caption": name}} for name in ("alt", "text")]
    first = run_local(parse_recipe(recipe | {"input": sources}), tmp_path / "first")
    with pytest.raises(RecipeError, match="its inputs have the caption in different columns \\('alt' and 'text'\\)"):
        prepare(stage(first), str(tmp_path / "second"))
