"""Columns of the pool and of users' files: rules and SQL see them, and a change of one measures nothing else."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.explain import explain_sample
from curate.base.errors import RecipeError
from tests import kit
from tests.kit.whatif import whatif

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
    """The rows of `scores` by key. If a key repeats, its first row counts."""
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
    query = "SELECT count(mine) AS n, any_value(license) AS l FROM measured"
    assert Run(url).sql(query).to_pylist() == [{"n": 30, "l": "cc0"}]
    assert Run(url).sql("SELECT count(*) AS n FROM kept WHERE tag = 'a'").to_pylist() == [{"n": 7}]
    uid = Run(url).sql("SELECT uid FROM kept ORDER BY key LIMIT 1").to_pylist()[0]["uid"]
    shown = str(explain_sample(url, uid))
    assert "tag = a" in shown and "mine = 0.4" in shown
    assert whatif(url, ["rules.best.top=0.1"]).expected == 2
    assert whatif(url, ["rules.best=mine > 0.5 AND tag = 'a'"]).expected == 5


def test_a_changed_file_reads_no_input(ran, tars, tmp_path, monkeypatch):
    """The new run equals a run from scratch."""
    recipe = kit.recipe_of(tars, source=source(write_own(tmp_path, lambda i: -i)), rules=RULES)
    read = kit.watch_measuring(monkeypatch)
    new = kit.run_local(recipe, tmp_path / "new", reuse=ran.folder)
    assert read == []
    monkeypatch.undo()
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert scores(new)["00004"]["mine"] == -4


def test_another_field_decodes_no_image(ran, tars, tmp_path, monkeypatch):
    own = write_own(tmp_path)
    for name in ("url", "key"):
        recipe = kit.recipe_of(tars, source=source(own, columns={"number": "float", name: "text"}))
        with pytest.raises(RecipeError, match=f"columns: '{name}' is a name that curate reserves"):
            kit.run_local(recipe, tmp_path / "refused")
    recipe = kit.recipe_of(tars, source=source(own, columns={"number": "float", "license": "bool"}))
    read = kit.watch_measuring(monkeypatch)
    new = kit.run_local(recipe, tmp_path / "new", reuse=ran.folder)
    assert sorted(read) == [f"columns of {n:05d}.tar" for n in range(3)]
    monkeypatch.undo()
    assert scores(new)["00003"]["number"] == 3.0 and scores(new)["00003"]["license"] is None
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def test_a_field_of_a_damaged_tar(tmp_path):
    """The field is read from the rows that the tar had when it was measured."""
    path = kit.write_tar(tmp_path / "a.tar", kit.make_samples(20)[:20])
    path.write_bytes(path.read_bytes()[:-30_000])
    old = kit.run_local(kit.recipe_of(str(path)), tmp_path / "old")
    recipe = kit.recipe_of(str(path), source={"columns": {"number": "int"}})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert set(old.reasons.values()) >= {"truncated_tar"}
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert [row["number"] for row in new.table("scores").to_pylist()][:5] == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    table = kit.make_rows(200)
    n = len(table)
    more = {
        "NSFW": pa.array(["UNLIKELY" if i % 3 else "NSFW" for i in range(n)]).dictionary_encode(),
        "safe": pa.array([i % 2 == 0 for i in range(n)]),
        "boxes": pa.array([[[0.1] * 4] * (i % 3) for i in range(n)]),
        "meta": pa.array([{"a": i} for i in range(n)]),
    }
    for name, values in more.items():
        table = table.append_column(name, values)
    return kit.write_parquets(tmp_path_factory.mktemp("rows") / "rows", table, 2)


def test_parquet_columns_by_name(rows, tmp_path, monkeypatch):
    """A run reads only the columns that expressions name. A later run reads only new columns."""
    rules = {"safe": "NSFW = 'UNLIKELY' AND safe", "faces": "len(boxes) < 2"}
    old = kit.run_local(kit.recipe_of(rows, "parquet", rules=rules), tmp_path / "old")
    assert old.table("scores").column_names[3:] == ["clip_score", "NSFW", "safe", "boxes"]
    raw = pq.read_table([str(path) for path in sorted(Path(rows).parent.glob("*.parquet"))])
    for name in ("NSFW", "safe", "boxes"):
        assert old.table("scores")[name].to_pylist() == raw[name].to_pylist()
    statuses = enumerate(old.table("samples")["status"].to_pylist())
    passed = sum(i % 2 == 0 and i % 3 == 1 and status == "ok" for i, status in statuses)
    assert len(raw) - passed == old.counts["failed"] + old.counts["safe"] + old.counts["faces"]
    read = kit.watch_measuring(monkeypatch)
    recipe = kit.recipe_of(rows, "parquet", rules=rules | {"row": "note <> 'row 4'"})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert {*read} == {"columns of 00000.parquet", "columns of 00001.parquet"}
    assert new.table("scores").column_names[3:] == ["clip_score", "note", "NSFW", "safe", "boxes"]
    read.clear()
    again = kit.run_local(kit.recipe_of(rows, "parquet", rules=rules), tmp_path / "again", reuse=new.folder)
    assert read == [], "a column that no rule names any more costs no reading"
    assert kit.lasting_files(again.folder) == kit.lasting_files(old.folder)


def refuses(path, form, folder, match, **sections):
    with pytest.raises(RecipeError) as caught:
        kit.run_local(kit.recipe_of(path, form, **sections), folder / "refused")
    assert match in str(caught.value)


def test_an_unknown_column_that_the_files_have(rows, tars, tmp_path):
    """The message names the line to add; with it the recipe is accepted."""
    source, line = {"columns": {"license": "text"}}, "write columns: {license: text, number: int}"
    refuses(tars, "webdataset", tmp_path, line, rules={"a": "number > 3"}, source=source)
    rules, source = {"a": "nsfw = 'UNLIKELY'"}, {"columns": {"scores": ["clip_score"]}}
    refuses(rows, "parquet", tmp_path, "write columns: {scores: [clip_score, NSFW]}", rules=rules, source=source)
    source = {"columns": {"scores": ["clip_score", "NSFW"]}}
    run = kit.run_local(kit.recipe_of(rows, "parquet", rules=rules, source=source), tmp_path / "run")
    assert run.counts["a"]
    refuses(rows, "parquet", tmp_path, "its column 'meta' is struct", rules={"a": "meta IS NULL"})
    refuses(rows, "parquet", tmp_path, "dedup.prefer: no column 'notes'", dedup={"prefer": "notes"})


def test_no_key_of_a_source_is_ignored(rows, tars, tmp_path):
    images, join = str(tmp_path / "images.parquet"), {"path": "x.csv", "on": "key", "columns": {"a": "b"}}
    pq.write_table(pa.table({"caption": ["a"], "jpg": [b"\xff"], "w": [3]}), images)
    for path, form, source, match in (
        (tars, "webdataset", {"storage": {"anon": True}}, "storage: 'anon' is not an option of local files"),
        (rows, "parquet", {"columns": {"language": "note"}}, "columns.language names a column, and measure.language"),
        (rows, "parquet", {"join": join}, "join.0.on: no file of the source has a column 'key'"),
        (images, "parquet", {"columns": {"width": "w"}}, "columns.width: the source has images, and curate"),
    ):
        refuses(path, form, tmp_path, match, source=source, measure={"language": {}})
    keyed = kit.recipe_of(rows, "parquet", source={"columns": {"key": "note"}}, rules={"a": "key <> 'row 4'"})
    assert kit.run_local(keyed, tmp_path / "keyed").counts["a"] == 1


def test_two_sources_supply_one_column(tars, tmp_path):
    """One source has the column in its JSON; the other gets it by a join."""
    more = kit.write_tars(tmp_path / "more", kit.make_samples(20, seed=3), 1)
    join = {"path": f"{tmp_path}/own.parquet", "on": "key", "columns": {"number": "n"}}
    pq.write_table(pa.table({"key": ["00001", "00002"], "n": [0.5, 1.5]}), join["path"])
    sources = [
        {"name": "a", "format": "webdataset", "path": tars, "columns": {"number": "int"}},
        {"name": "b", "format": "webdataset", "path": more, "join": join},
    ]
    recipe = kit.parse_recipe({"input": sources, "max_failed": 1.0, "rules": {"n": "number >= 1"}})
    run = kit.run_local(recipe, tmp_path / "run")
    of_b = run.table("scores")["number"].filter(pc.equal(run.table("samples")["source"], "b"))
    assert of_b.drop_null().to_pylist() == [0.5, 1.5]
    assert run.table("scores").schema.field("number").type == pa.float64()
    assert json.loads((run.folder / "run.json").read_text())["pool"]["scores"] == ["number"]
