"""Columns and repeats in Parquet, json, and uids.npy: those that `output` names, and the source's own."""

import datetime as dt
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.ask.diff import diff_runs
from curate.ask.explain import explain_sample
from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.cli.run import summary
from curate.emit.columns import SIDECAR
from curate.publish.forget.forget import forget
from curate.publish.uids import uid_pairs
from curate.store.items import Items
from tests import kit
from tests.emit.written import DOWNLOADED, emitted, parquets, picture, read_run, recipe, sidecars, tars, write_tar
from tests.kit.once import made_once

OWN = ("license", "number")  # fields of the pool's jsons; a column of the run with the same name hides them
REPEAT = "CASE WHEN rarest < 8 THEN 3 WHEN words % 3 = 0 THEN NULL WHEN words % 3 = 1 THEN 5000 ELSE 0 END"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run that repeats samples, and the path of its pool and the recipe's other sections."""

    def make(folder):
        pool, metadata = kit.write_tars(folder / "pool", kit.make_samples(60), 3), kit.write_metadata(folder)
        source = {"columns": {"number": "int", "license": "text"}}
        sections = {
            "match": {"metadata": metadata},
            "balance": {"t": 12},
            "source": source,
            "measure": {"language": {}},
        }
        output = {"repeat": REPEAT, "json_columns": ["Number", "probability", "aspect"], "rows_per_shard": 20}
        kit.run_local(kit.recipe_of(pool, **sections, output=output), folder / "run")
        return pool, sections

    folder, (pool, sections) = made_once(tmp_path_factory, "emit_columns", make)
    return kit.Ran(folder / "run"), pool, sections


def expected_repeats(run):
    """How often each kept uid repeats, by the definition."""
    survivors = run.table("decisions")["rule"].to_pylist()
    matches = run.table("matches")["entry_ids"].to_pylist()
    counts = Counter()
    for ids, rule in zip(matches, survivors, strict=True):
        counts.update(ids if rule in (None, "balance") else [])
    repeats = {}
    for row, ids, rule in zip(run.table("samples").to_pylist(), matches, survivors, strict=True):
        if rule is None:
            often = 3 if min(counts[e] for e in ids) < 8 else {0: None, 1: 5000, 2: 0}[row["words"] % 3]
            repeats[row["uid"]] = max(1, min(1000, often or 0))
    return repeats


def test_uids_are_there_as_often_as_they_repeat(ran):
    """DataComp's resharder counts equal uids in the sorted file."""
    run, *_ = ran
    expected = expected_repeats(run)
    assert set(expected.values()) == {1, 3, 1000}
    uids = np.load(run.folder / "uids.npy")
    assert uids.dtype == np.dtype("u8,u8") and np.array_equal(uids, np.sort(uids, order=("f0", "f1")))
    pairs = {tuple(pair): uid for pair, uid in zip(uid_pairs(pa.array(expected)).tolist(), expected, strict=True)}
    assert {pairs[pair]: n for pair, n in Counter(map(tuple, uids.tolist())).items()} == expected
    decisions = run.table("decisions").to_pylist()
    assert all((row["repeats"] == expected[row["uid"]]) if row["kept"] else row["repeats"] == 0 for row in decisions)
    assert verify_run(str(run.folder))[1] == []
    total = sum(expected.values())
    assert f"uids.npy: {total:,} uids" in summary(str(run.folder), 1.0)
    assert Run(str(run.folder)).sql("SELECT sum(repeats) AS n FROM kept").to_pylist() == [{"n": total}]
    uid = next(uid for uid, n in expected.items() if n == 3)
    assert "3 times in uids.npy" in str(explain_sample(str(run.folder), uid))


def test_a_list_with_repeats_is_joined(ran, tmp_path):
    """Rules see how often each uid is in a uids.npy from DataComp's filters, and the output repeats it as often."""
    first, pool, _ = ran
    expected = expected_repeats(first)
    join = {"path": f"{first.folder}/uids.npy", "on": "uid", "columns": {"listed": "uid", "times": "times"}}
    sections = {"source": {"join": join}, "rules": {"often": "times >= 3"}, "output": {"repeat": "times"}}
    run = kit.run_local(kit.recipe_of(pool, **sections), tmp_path / "run")
    scores = run.table("scores")
    assert scores.schema.field("times").type == pa.int32()
    for row in scores.to_pylist():
        assert row["listed"] == (row["uid"] if row["uid"] in expected else None)
        assert row["times"] == expected.get(row["uid"])
    before = np.load(first.folder / "uids.npy")
    often = np.isin(before["f1"], uid_pairs(pa.array([uid for uid, n in expected.items() if n >= 3]))["f1"])
    assert np.array_equal(np.load(run.folder / "uids.npy"), before[often]) and not often.all()


def test_parquet_and_json_have_scores_language_and_probability(ran):
    run, *_ = ran
    table = sidecars(run)
    more = ["language_score", "number", "license", "language", "probability", "repeats"]
    assert table.column_names == [*SIDECAR.names, *more]
    known = {row["uid"]: row for row in run.table("samples").to_pylist()}
    for name in ("scores", "decisions"):
        for row, kept in zip(run.table(name).to_pylist(), run.table("decisions")["kept"].to_pylist(), strict=True):
            if kept:
                known[row["uid"]] |= row
    rows = {row["key"]: row for row in table.to_pylist()}
    for row in rows.values():
        assert {name: row[name] for name in more} == {name: known[row["uid"]][name] for name in more}
    for name, data in run.members:
        if name.endswith(".json"):
            row, fields = rows[name.partition(".")[0]], json.loads(data)
            assert "uid" in fields and not {"captions", "language"} & fields.keys()
            assert fields["number"] == row["number"] and fields["probability"] == row["probability"]
            sides = row["width"], row["height"]
            assert fields["aspect"] == pytest.approx(max(sides) / min(sides))


def test_another_choice_runs_nothing_again(ran, tmp_path, monkeypatch):
    run, pool, sections = ran
    read = kit.watch_measuring(monkeypatch)
    output = {"columns": ["Language_score", "draw", "width"], "rows_per_shard": 20}
    new = kit.run_local(kit.recipe_of(pool, **sections, output=output), tmp_path / "new", reuse=run.folder)
    assert read == [] and sidecars(new).column_names == [*SIDECAR.names, *OWN, "language_score", "draw"]
    assert "repeats" not in new.table("decisions").column_names
    assert len(np.load(new.folder / "uids.npy")) == new.counts["kept"]
    found = diff_runs(str(run.folder), str(new.folder))
    assert (found.lost, found.gained) == (0, 0)
    recipe = kit.recipe_of(pool, **sections, output={"columns": [], "repeat": "2"})
    few = kit.run_local(recipe, tmp_path / "few", reuse=run.folder)
    assert sidecars(few).column_names == [*SIDECAR.names, *OWN, "repeats"]
    before, uid = np.load(few.folder / "uids.npy"), sidecars(few)["uid"][0].as_py()
    forget(str(few.folder), Items.of({"uid": [bytes.fromhex(uid)]}))
    after = np.load(few.folder / "uids.npy")
    assert len(after) < len(before) and set(Counter(map(tuple, after.tolist())).values()) == {2}
    assert verify_run(str(few.folder))[1] == []


def refusal(path, form, folder, **sections):
    with pytest.raises(RecipeError) as caught:
        kit.run_local(kit.recipe_of(path, form, **sections), folder / "refused")
    return str(caught.value)


def test_pools_without_images(tmp_path):
    rows = kit.make_rows(200).append_column("probability", pa.array([0.5] * 250))
    path = kit.write_parquets(tmp_path / "rows", rows, 2)
    (tmp_path / "own.csv").write_text("url,mine\n" + "".join(f"https://example.com/{i},{i}\n" for i in range(200)))
    join = {"join": {"path": f"{tmp_path}/own.csv", "on": "url", "columns": {"mine": "mine"}}}
    recipe = kit.recipe_of(path, "parquet", source=join, measure={"language": {}}, output={"repeat": "mine % 3"})
    run = kit.run_local(recipe, tmp_path / "run")
    table = sidecars(run)
    assert table.column_names == [*rows.column_names, "language_score", "mine", "language", "repeats"]
    for row in table.to_pylist():
        assert row["probability"] == 0.5, "a column of the input stays as it is"
        assert row["repeats"] == max(1, (row["mine"] or 0) % 3)
    assert len(np.load(run.folder / "uids.npy")) == sum(table["repeats"].to_pylist())
    assert verify_run(str(run.folder))[1] == []
    again = kit.recipe_of(f"{run.folder}/shards/*.parquet", "parquet", output={"columns": ["mine"]})
    assert sidecars(kit.run_local(again, tmp_path / "second")).column_names == table.column_names
    message = refusal(path, "parquet", tmp_path, output={"columns": ["probability"]})
    assert "output.columns: the output always has the inputs' column 'probability'" in message
    message = refusal(path, "parquet", tmp_path, output={"json_columns": ["words"]})
    assert "output.json_columns: the pool has no images" in message


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ({"repeat": "number"}, ["output.repeat: no column 'number'", "write columns: {number: int}"]),
        ({"repeat": "words > 3"}, ["output.repeat: 'words > 3' is of type BOOLEAN", "an integer, such as"]),
        ({"repeat": "random()::INT"}, ["output.repeat must be deterministic"]),
        ({"repeat": "ceil(3 * quantile(words))::INT"},
         ["output.repeat reads one row, but quantile() needs many rows", "derive"]),
        ({"repeat": "count(*)::INT"}, ["count_star() is an aggregate, but output.repeat reads one row"]),
        ({"columns": ["licence"]}, ["output.columns: no column 'licence'", "columns: "]),
        ({"json_columns": ["license"]}, ["output.json_columns: no column 'license'", "write columns: {license: text}"]),
        ({"columns": "words"}, ["output.columns", "list"]),
    ],
)  # fmt: skip
def test_refusals(ran, tmp_path, output, parts):
    message = refusal(ran[1], "webdataset", tmp_path, output=output)
    assert not [part for part in parts if part not in message], message


# ---- columns of the source


def field_pool(folder):
    """Tars as img2dataset writes them with further columns, whose types differ from file to file, and Parquet with images."""
    same = {"NSFW": "NO", "similarity": 1, "LICENSE": None, "is_ad": False, "uid": None, "tags": ["x"]}
    other = {"NSFW": "é", "similarity": 0.1, "LICENSE": "cc", "is_ad": None, "Url": "x"}
    notes = [{"note": 2**40, "exif": '{"Make": "x"}', "key": "other"}, {"note": 2**70}]
    paths = []
    for tar, rows in enumerate(([same] * 3, [other, {"NSFW": 7, "similarity": "low"}], notes)):
        members = []
        for i, fields in enumerate(rows):
            key = f"{tar}{i}"
            members += [(f"{key}.jpg", picture(10 * tar + i)), (f"{key}.txt", f"caption {key}".encode())]
            members.append((f"{key}.json", json.dumps({"sha256": DOWNLOADED, **fields}).encode()))
        paths.append(write_tar(folder / f"{tar}.tar", members))
    table = pa.table({
        "jpg": pa.array([picture(90), picture(91)]), "TEXT": ["in Parquet", "too"], "NSFW": ["UNSURE", None],
        "note": pa.array([1, 2], pa.int8()), "when": [dt.date(2024, 1, 2)] * 2, "raw": [b"0", b"1"],
    })  # fmt: skip
    return [*tars(*paths), *({**one, "name": "q"} for one in parquets(folder / "q", table))]


def test_the_sources_columns_stay_in_the_parquet_of_shards(tmp_path):
    sources = field_pool(tmp_path)
    ran = emitted(tmp_path / "run", sources, rows_per_shard=2)
    paths = list(ran.folder.glob("shards/*.parquet"))
    schemas = {pq.read_schema(path).remove_metadata().to_string() for path in paths}
    assert len(paths) == 5 and len(schemas) == 1, "readers of many files want one schema"
    table = sidecars(ran)
    own = {
        "LICENSE": "string", "NSFW": "string", "TEXT": "string", "is_ad": "bool", "note": "int64",
        "similarity": "double", "when": "string",
    }  # fmt: skip
    assert {field.name: str(field.type) for field in list(table.schema)[len(SIDECAR) : -1]} == own
    rows = {row["caption"]: {name: row[name] for name in own if row[name] is not None} for row in table.to_pylist()}
    first = {"NSFW": "NO", "similarity": 1.0, "is_ad": False}
    assert rows == {
        "caption 00": first, "caption 01": first, "caption 02": first,
        "caption 10": {"NSFW": "é", "similarity": 0.1, "LICENSE": "cc"}, "caption 11": {},
        "caption 20": {"note": 2**40}, "caption 21": {},
        "in Parquet": {"TEXT": "in Parquet", "NSFW": "UNSURE", "note": 1, "when": "2024-01-02"},
        "too": {"TEXT": "too", "note": 2, "when": "2024-01-02"},
    }  # fmt: skip
    assert read_run(kit.run_beam(recipe(sources, 2), tmp_path / "beam")) == read_run(ran)
    one_unit = [{**sources[0], "path": [source["path"] for source in sources[:3]]}, sources[3]]
    cut = kit.run_local(recipe(one_unit, 100), tmp_path / "cut")
    names = [name for name in sidecars(cut).column_names if name != "source"]
    assert sidecars(cut).select(names).equals(table.select(names)), "columns depend on units"


def test_another_field_writes_shards_again_and_reads_nothing(tmp_path, monkeypatch):
    sources = field_pool(tmp_path)[:2]
    first = emitted(tmp_path / "first", sources[:1])
    read = kit.watch_measuring(monkeypatch)
    second = kit.run_local(recipe(sources), tmp_path / "second", reuse=first.folder)
    assert len(read) == 1, "only the tar that was added"
    assert sidecars(first).schema.field("similarity").type == pa.int64() and "is_ad" in sidecars(first).column_names
    assert sidecars(second).schema.field("similarity").type == pa.float64() and "is_ad" in sidecars(second).column_names
