"""Columns of the pool and of users' own: rules, SQL and all else see them, and what changes one of them measures nothing else."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.explain import explain_sample
from curate.base.errors import RecipeError
from tests import kit
from tests.ask.whatif.asked import whatif

pytestmark = pytest.mark.thorough

KEYS = [f"{i:05d}" for i in range(60)]
FIELDS = {"license": "text", "number": "int"}


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return kit.write_tars(tmp_path_factory.mktemp("pool") / "tars", kit.make_samples(60), 3)


def write_own(folder, score=lambda i: i / 60):
    """A signal for every second key, and a tag."""
    path = folder / "own.csv"
    rows = [f"{key},{score(i)},{'ab'[i % 4 // 2]}" for i, key in enumerate(KEYS) if i % 2 == 0]
    path.write_text("\n".join(["key,score,tag", *rows]) + "\n")
    return str(path)


def source(own, **more):
    return {"join": {"path": own, "on": "key", "columns": {"mine": "score", "tag": "tag"}}, "columns": FIELDS, **more}


RULES = {"tagged": "tag = 'a' AND license = 'cc0' AND number < 50", "best": {"top": 0.5, "of": "mine"}}


def scores(run):
    """Columns of `scores` by key, of the first row of each."""
    found = {}
    for key, row in zip(run.table("samples")["key"].to_pylist(), run.table("scores").to_pylist(), strict=True):
        found.setdefault(key, row)
    return found


@pytest.fixture(scope="module")
def ran(tars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    recipe = kit.recipe_of(tars, source=source(write_own(folder)), rules=RULES, dedup={"prefer": "mine"})
    return kit.run_beam(recipe, folder / "run")


def test_values_and_rules(ran):
    """The oracle is the list of keys."""
    found = scores(ran)
    for i, key in enumerate(KEYS):
        row = found[key]
        assert (row["license"], row["number"]) == ("cc0", i)
        expected = (i / 60, "ab"[i % 4 // 2]) if i % 2 == 0 else (None, None)
        assert (row["mine"], row["tag"]) == expected
    # Of 0, 4 … 48, all readable, the best half: int(13 · 0.5) + 1.
    outcome = {key: rule for (_, key), rule in ran.outcomes.items() if key in KEYS}
    assert [key for key in KEYS if outcome[key] == "kept"] == [f"{i:05d}" for i in range(24, 52, 4)]


def test_everything_sees_them(ran):
    url = str(ran.folder)
    assert Run(url).sql("SELECT count(mine) AS n, any_value(license) AS l FROM measured").to_pylist() == [
        {"n": 30, "l": "cc0"}
    ]
    assert Run(url).sql("SELECT count(*) AS n FROM kept WHERE tag = 'a'").to_pylist() == [{"n": 7}]
    uid = Run(url).sql("SELECT uid FROM kept ORDER BY key LIMIT 1").to_pylist()[0]["uid"]
    shown = str(explain_sample(url, uid))
    assert "tag = a" in shown and "mine = 0.4" in shown
    assert whatif(url, ["rules.best.top=0.1"]).expected == 2
    assert whatif(url, ["rules.best=mine > 0.5 AND tag = 'a'"]).expected == 5


def test_a_changed_file_reads_no_input(ran, tars, tmp_path, monkeypatch):
    """And gives what a run from nothing gives."""
    recipe = kit.recipe_of(tars, source=source(write_own(tmp_path, lambda i: -i)), rules=RULES)
    read = kit.watch_measuring(monkeypatch)
    new = kit.run_local(recipe, tmp_path / "new", reuse=ran.folder)
    assert read == []
    assert (
        kit.files_of(new.folder)["tables/samples/00000.parquet"]
        == kit.files_of(ran.folder)["tables/samples/00000.parquet"]
    )
    monkeypatch.undo()
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert scores(new)["00004"]["mine"] == -4


def test_another_field_decodes_no_image(ran, tars, tmp_path, monkeypatch):
    own = write_own(tmp_path)
    recipe = kit.recipe_of(tars, source=source(own, columns={"number": "float", "url": "text"} | {"license": "bool"}))
    with pytest.raises(RecipeError, match="columns: 'url' is a column name that curate uses itself"):
        kit.run_local(recipe, tmp_path / "refused")
    recipe = kit.recipe_of(tars, source=source(own, columns={"number": "float", "key": "text"}))
    with pytest.raises(RecipeError, match="columns: 'key' is a column name"):
        kit.run_local(recipe, tmp_path / "refused")
    recipe = kit.recipe_of(tars, source=source(own, columns={"number": "float", "license": "bool"}))
    read = kit.watch_measuring(monkeypatch)
    new = kit.run_local(recipe, tmp_path / "new", reuse=ran.folder)
    assert sorted(read) == [f"columns of {n:05d}.tar" for n in range(3)]
    monkeypatch.undo()
    assert scores(new)["00003"]["number"] == 3.0 and scores(new)["00003"]["license"] is None
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def test_a_changed_file_is_another_run(tars, tmp_path):
    recipe = kit.recipe_of(tars, source=source(write_own(tmp_path)))
    kit.run_local(recipe, tmp_path / "run")
    write_own(tmp_path, lambda i: i + 1.0)
    with pytest.raises(RecipeError, match=r"the recipe is the same, but its inputs, .* a joined file .* changed"):
        kit.run_local(recipe, tmp_path / "run")


def test_a_field_of_a_damaged_tar(tmp_path):
    """Is read of the rows that there were when it was measured."""
    path = kit.write_tar(tmp_path / "a.tar", kit.make_samples(20)[:20])
    path.write_bytes(path.read_bytes()[:-30_000])
    old = kit.run_local(kit.recipe_of(str(path)), tmp_path / "old")
    recipe = kit.recipe_of(str(path), source={"columns": {"number": "int"}})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert set(old.reasons.values()) >= {"truncated_tar"}
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert [row["number"] for row in new.table("scores").to_pylist()][:5] == [0, 1, 2, 3, 4]


def test_by_uid_and_by_url(ran, tars, tmp_path):
    """Decisions carried over from another run, by uid; what a URL names."""
    kept = ran.table("decisions").filter(ran.table("decisions")["kept"])
    pq.write_table(kept.select(["uid", "probability"]), tmp_path / "stage.parquet")
    rows = [(s.url, s.key) for s in kit.make_samples(60)[:60] if s.url]
    pq.write_table(
        pa.table({"URL": [url for url, _ in rows], "k": [key for _, key in rows]}), tmp_path / "urls.parquet"
    )
    joins = [
        {"path": f"{tmp_path}/stage.parquet", "on": "uid", "columns": {"first_stage": "probability"}},
        {"path": f"{tmp_path}/urls.parquet", "on": "url", "columns": {"named": "k"}},
    ]
    new = kit.run_local(
        kit.recipe_of(tars, source={"join": joins}, rules={"before": "first_stage = 1"}), tmp_path / "new"
    )
    assert new.kept == ran.kept
    found = scores(new)
    assert all(found[key]["named"] == (None if i % 5 == 0 else key) for i, key in enumerate(KEYS))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    table = kit.make_rows(200)
    n = len(table)
    more = {
        "NSFW": pa.array(["UNLIKELY" if i % 3 else "NSFW" for i in range(n)]).dictionary_encode(),
        "safe": [i % 2 == 0 for i in range(n)],
        "boxes": [[[0.1] * 4] * (i % 3) for i in range(n)],
        "meta": [{"a": i} for i in range(n)],
    }
    for name, values in more.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    return kit.write_parquets(tmp_path_factory.mktemp("rows") / "rows", table, 2)


def test_parquet_columns_by_name(rows, tmp_path, monkeypatch):
    """Text, booleans and lists: those that an expression names, and no others; one more is read alone."""
    rules = {"safe": "NSFW = 'UNLIKELY' AND safe", "faces": "len(boxes) < 2"}
    old = kit.run_local(kit.recipe_of(rows, "parquet", rules=rules), tmp_path / "old")
    assert old.table("scores").column_names[3:] == ["clip_score", "NSFW", "safe", "boxes"]
    raw = pq.read_table([str(path) for path in sorted(Path(rows).parent.glob("*.parquet"))])
    for name in ("NSFW", "safe", "boxes"):
        assert old.table("scores")[name].to_pylist() == raw[name].to_pylist()
    passed = [i % 3 != 0 and i % 2 == 0 and i % 3 < 2 for i in range(len(raw))]
    dropped = old.counts.get("failed", 0) + old.counts["safe"] + old.counts["faces"]
    readable = [status == "ok" for status in old.table("samples")["status"].to_pylist()]
    assert len(raw) - dropped == sum(a and b for a, b in zip(passed, readable, strict=True))
    read = kit.watch_measuring(monkeypatch)
    recipe = kit.recipe_of(rows, "parquet", rules=rules | {"row": "note <> 'row 4'"})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert {*read} == {"columns of 00000.parquet", "columns of 00001.parquet"}
    assert new.table("scores").column_names[3:] == ["clip_score", "note", "NSFW", "safe", "boxes"]
    read.clear()
    again = kit.run_local(kit.recipe_of(rows, "parquet", rules=rules), tmp_path / "again", reuse=new.folder)
    assert read == [], "a column that no rule names any more costs no reading"
    assert kit.lasting_files(again.folder) == kit.lasting_files(old.folder)


def test_a_name_that_a_signal_has_too_is_the_signals(rows, tmp_path):
    table = pq.read_table([str(path) for path in sorted(Path(rows).parent.glob("*.parquet"))])
    table = table.append_column("Language_Score", pa.array(["high"] * len(table)))
    path = kit.write_parquets(tmp_path / "rows", table, 1)
    recipe = kit.recipe_of(path, "parquet", measure={"language": {}}, rules={"sure": "language_score > 0.1"})
    run = kit.run_local(recipe, tmp_path / "run")
    assert run.table("scores").column_names[3:] == ["language_score", "clip_score"]


def refusal(path, form, folder, **sections):
    with pytest.raises(RecipeError) as caught:
        kit.run_local(kit.recipe_of(path, form, **sections), folder / "refused")
    return str(caught.value)


def test_an_unknown_column_that_the_files_have(rows, tars, tmp_path):
    """The message names the line to add; with it the recipe is accepted."""
    rules = {"a": "number > 3"}
    message = refusal(tars, "webdataset", tmp_path, rules=rules, source={"columns": {"license": "text"}})
    assert (
        "input 'pool': its .json files have a field of that name: write columns: {license: text, number: int}"
        in message
    )
    chosen = {"columns": {"scores": ["clip_score"]}}
    message = refusal(rows, "parquet", tmp_path, rules={"a": "nsfw = 'UNLIKELY'"}, source=chosen)
    assert "input 'pool': its files have one: write columns: {scores: [clip_score, NSFW]}" in message
    chosen = {"columns": {"scores": ["clip_score", "NSFW"]}}
    run = kit.run_local(
        kit.recipe_of(rows, "parquet", rules={"a": "nsfw = 'UNLIKELY'"}, source=chosen), tmp_path / "run"
    )
    assert run.counts["a"]
    assert "its column 'meta' is struct" in refusal(rows, "parquet", tmp_path, rules={"a": "meta IS NULL"})
    assert "input 'pool'" not in refusal(tars, "webdataset", tmp_path, rules={"a": "nothing > 3"})
    message = refusal(rows, "parquet", tmp_path, dedup={"prefer": "notes"})
    assert "dedup.prefer: no column 'notes'" in message


def test_no_key_of_a_source_is_ignored(rows, tars, tmp_path):
    message = refusal(tars, "webdataset", tmp_path, source={"storage": {"anon": True}})
    assert "storage: 'anon' is not an option of local files" in message
    message = refusal(rows, "parquet", tmp_path, source={"columns": {"language": "note"}}, measure={"language": {}})
    assert "columns.language names a column, and measure.language measures it" in message
    message = refusal(rows, "parquet", tmp_path, source={"join": {"path": "x.csv", "on": "key", "columns": {"a": "b"}}})
    assert "join.0.on: no file of the source has a column 'key'" in message
    images = tmp_path / "images.parquet"
    pq.write_table(pa.table({"caption": ["a"], "jpg": [b"\xff"], "w": [3]}), images)
    message = refusal(str(images), "parquet", tmp_path, source={"columns": {"width": "w"}})
    assert "columns.width: the source has images, whose sizes are measured" in message
    keyed = kit.recipe_of(rows, "parquet", source={"columns": {"key": "note"}}, rules={"a": "key <> 'row 4'"})
    assert kit.run_local(keyed, tmp_path / "keyed").counts["a"] == 1


def test_two_sources_supply_one_column(tars, tmp_path):
    """One by a field of its json, the other by a join; what changes in one costs the other nothing."""
    more = kit.write_tars(tmp_path / "more", kit.make_samples(20, seed=3), 1)
    join = {"path": f"{tmp_path}/own.json", "on": "key", "columns": {"number": "n"}}
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"key": ["00001", "00002"], "n": [0.5, 1.5]}), path)
    join["path"] = str(path)
    sources = [
        {"name": "a", "format": "webdataset", "path": tars, "columns": {"number": "int"}},
        {"name": "b", "format": "webdataset", "path": more, "join": join},
    ]
    recipe = kit.parse_recipe({"input": sources, "max_failed": 1.0, "rules": {"n": "number >= 1"}})
    run = kit.run_local(recipe, tmp_path / "run")
    of_b = [
        row["number"]
        for row, name in zip(run.table("scores").to_pylist(), run.table("samples")["source"].to_pylist(), strict=True)
        if name == "b"
    ]
    assert [value for value in of_b if value is not None] == [0.5, 1.5]
    assert run.table("scores").schema.field("number").type == pa.float64()
    assert json.loads((run.folder / "run.json").read_text())["pool"]["scores"] == ["number"]
