"""Columns and repeats of the curated set: what `output` asks for, in Parquet, json and uids.npy, and what the source had."""

import datetime as dt
import json
from collections import Counter

import duckdb
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
from tests.kit import run_beam, run_local, watch_measuring

OWN = ("license", "number")  # fields of the pool's jsons, which are there where no column of the run's has the name
REPEAT = "CASE WHEN rarest < 8 THEN 3 WHEN words % 3 = 0 THEN NULL WHEN words % 3 = 1 THEN 5000 ELSE 0 END"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return kit.write_tars(tmp_path_factory.mktemp("pool") / "pool", kit.make_samples(60), 3)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    metadata = kit.write_metadata(tmp_path_factory.mktemp("metadata"))
    source = {"columns": {"number": "int", "license": "text"}}
    return {"match": {"metadata": metadata}, "balance": {"t": 12}, "source": source}


@pytest.fixture(scope="module")
def ran(pool, sections, tmp_path_factory):
    output = {"repeat": REPEAT, "json_columns": ["Number", "probability", "aspect"], "rows_per_shard": 20}
    recipe = kit.recipe_of(pool, **sections, measure={"language": {}}, output=output)
    return kit.run_local(recipe, tmp_path_factory.mktemp("ran") / "run")


def expected_repeats(run):
    """How often each kept uid is to be there, by the definition."""
    survivors = run.table("decisions")["rule"].to_pylist()
    matches = run.table("matches")["entry_ids"].to_pylist()
    counts = Counter()
    for ids, rule in zip(matches, survivors, strict=True):
        counts.update(ids if rule in (None, "balance") else [])
    found = {}
    for row, ids, rule in zip(run.table("samples").to_pylist(), matches, survivors, strict=True):
        if rule is None:
            often = 3 if min(counts[e] for e in ids) < 8 else {0: None, 1: 5000, 2: 0}[row["words"] % 3]
            found[row["uid"]] = max(1, min(1000, often or 0))
    return found


def test_uids_are_there_as_often_as_they_repeat(ran):
    """As DataComp's resharder counts them: by how many equal ones there are in the sorted file."""
    expected = expected_repeats(ran)
    assert set(expected.values()) == {1, 3, 1000}
    uids = np.load(ran.folder / "uids.npy")
    assert uids.dtype == np.dtype("u8,u8") and np.array_equal(uids, np.sort(uids, order=("f0", "f1")))
    pairs = {tuple(pair): uid for pair, uid in zip(uid_pairs(pa.array(expected)).tolist(), expected, strict=True)}
    assert {pairs[pair]: n for pair, n in Counter(map(tuple, uids.tolist())).items()} == expected
    decisions = ran.table("decisions").to_pylist()
    assert all((row["repeats"] == expected[row["uid"]]) if row["kept"] else row["repeats"] == 0 for row in decisions)
    assert verify_run(str(ran.folder))[1] == []
    total = sum(expected.values())
    assert f"uids.npy: {total:,} uids" in summary(str(ran.folder), 1.0)
    assert Run(str(ran.folder)).sql("SELECT sum(repeats) AS n FROM kept").to_pylist() == [{"n": total}]
    uid = next(uid for uid, n in expected.items() if n == 3)
    assert "3 times in uids.npy" in str(explain_sample(str(ran.folder), uid))


def test_a_list_with_repeats_is_joined(ran, pool, tmp_path):
    """uids.npy of a run, as DataComp's filters write theirs: rules see how often each uid is in it, and it repeats again."""
    expected = expected_repeats(ran)
    join = {"path": f"{ran.folder}/uids.npy", "on": "uid", "columns": {"listed": "uid", "times": "times"}}
    recipe = kit.recipe_of(pool, source={"join": join}, rules={"often": "times >= 3"}, output={"repeat": "times"})
    run = kit.run_local(recipe, tmp_path / "run")
    scores = run.table("scores")
    assert scores.schema.field("times").type == pa.int32()
    for row in scores.to_pylist():
        assert (row["listed"], row["times"]) == (
            (row["uid"], expected[row["uid"]]) if row["uid"] in expected else (None, None)
        )
    was = np.load(ran.folder / "uids.npy")
    often = np.isin(was["f1"], uid_pairs(pa.array([uid for uid, n in expected.items() if n >= 3]))["f1"])
    assert np.array_equal(np.load(run.folder / "uids.npy"), was[often]) and not often.all()


def test_parquet_has_scores_language_and_probability(ran):
    table = sidecars(ran)
    more = ["language_score", "number", "license", "language", "probability", "repeats"]
    assert table.column_names == [*SIDECAR.names, *more]
    known = {row["uid"]: row for row in ran.table("samples").to_pylist()}
    for name in ("scores", "decisions"):
        for row, kept in zip(ran.table(name).to_pylist(), ran.table("decisions")["kept"].to_pylist(), strict=True):
            if kept:
                known[row["uid"]] |= row
    for row in table.to_pylist():
        assert {name: row[name] for name in more} == {name: known[row["uid"]][name] for name in more}


def test_json_has_what_is_asked_for(ran):
    rows = {row["key"]: row for row in sidecars(ran).to_pylist()}
    for name, data in ran.members:
        if name.endswith(".json"):
            row, fields = rows[name.partition(".")[0]], json.loads(data)
            assert {"probability", "aspect", "uid"} <= fields.keys() and "captions" not in fields
            assert fields["number"] == row["number"] and fields["probability"] == row["probability"]
            sides = row["width"], row["height"]
            assert fields["aspect"] == pytest.approx(max(sides) / min(sides))
            assert "language" not in fields


def test_another_choice_runs_nothing_again(ran, pool, sections, tmp_path, monkeypatch):
    read = kit.watch_measuring(monkeypatch)
    output = {"columns": ["Language_score", "draw", "width"], "rows_per_shard": 20}
    recipe = kit.recipe_of(pool, **sections, measure={"language": {}}, output=output)
    new = kit.run_local(recipe, tmp_path / "new", reuse=ran.folder)
    assert read == [] and sidecars(new).column_names == [*SIDECAR.names, *OWN, "language_score", "draw"]
    assert "repeats" not in new.table("decisions").column_names
    assert len(np.load(new.folder / "uids.npy")) == new.counts["kept"]
    found = diff_runs(str(ran.folder), str(new.folder))
    assert (found.lost, found.gained) == (0, 0)
    output = {"columns": [], "repeat": "2"}
    recipe = kit.recipe_of(pool, **sections, measure={"language": {}}, output=output)
    assert sidecars(kit.run_local(recipe, tmp_path / "few", reuse=ran.folder)).column_names == [
        *SIDECAR.names,
        *OWN,
        "repeats",
    ]


def test_what_is_forgotten_repeats_no_more(pool, sections, tmp_path):
    recipe = kit.recipe_of(pool, **sections, output={"repeat": "2"})
    run = kit.run_local(recipe, tmp_path / "run")
    before = np.load(run.folder / "uids.npy")
    uid = sidecars(run)["uid"][0].as_py()
    forget(str(run.folder), Items.of({"uid": [bytes.fromhex(uid)]}))
    after = np.load(run.folder / "uids.npy")
    assert len(after) < len(before) and set(Counter(map(tuple, after.tolist())).values()) == {2}
    assert verify_run(str(run.folder))[1] == []


def refusal(path, form, folder, **sections):
    with pytest.raises(RecipeError) as caught:
        kit.run_local(kit.recipe_of(path, form, **sections), folder / "refused")
    return str(caught.value)


def test_pools_without_images(tmp_path):
    rows = kit.make_rows(200).append_column("probability", pa.array([0.5] * 250))
    path = kit.write_parquets(tmp_path / "rows", rows, 2)
    own = tmp_path / "own.csv"
    own.write_text("url,mine\n" + "".join(f"https://example.com/{i},{i}\n" for i in range(200)))
    join = {"join": {"path": str(own), "on": "url", "columns": {"mine": "mine"}}}
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
    second = kit.run_local(again, tmp_path / "second")
    assert sidecars(second).column_names == table.column_names
    message = refusal(path, "parquet", tmp_path, output={"columns": ["probability"]})
    assert "output.columns: the inputs have a column 'probability'" in message
    message = refusal(path, "parquet", tmp_path, output={"json_columns": ["words"]})
    assert "output.json_columns: the pool has no images" in message


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ({"repeat": "number"}, ["output.repeat: no column 'number'", "write columns: {number: int}"]),
        ({"repeat": "words > 3"}, ["output.repeat: 'words > 3' is of type BOOLEAN", "an integer, such as"]),
        ({"repeat": "random()::INT"}, ["output.repeat must be deterministic"]),
        (
            {"repeat": "ceil(3 * quantile(words))::INT"},
            ["output.repeat looks at one row, and quantile() at many", "derive"],
        ),
        ({"repeat": "count(*)::INT"}, ["count_star() is an aggregate; output.repeat looks at one row"]),
        ({"columns": ["licence"]}, ["output.columns: no column 'licence'", "columns: "]),
        ({"json_columns": ["license"]}, ["output.json_columns: no column 'license'", "write columns: {license: text}"]),
        ({"columns": "words"}, ["output.columns", "list"]),
    ],
)
def test_refusals(pool, tmp_path, output, parts):
    message = refusal(pool, "webdataset", tmp_path, output=output)
    assert not [part for part in parts if part not in message], message


# Columns of the source


def field_pool(folder):
    """Tars as img2dataset writes them with further columns, whose types differ from file to file, and Parquet with images."""
    rows = [
        [
            {"NSFW": "NO", "similarity": 1, "LICENSE": None, "is_ad": False, "uid": None, "tags": ["x"]}
            for _ in range(3)
        ],
        [
            {"NSFW": "é", "similarity": 0.1, "LICENSE": "cc", "is_ad": None, "Url": "x"},
            {"NSFW": 7, "similarity": "low"},
        ],
        [{"note": 2**40, "exif": '{"Make": "x"}', "key": "other"}, {"note": 2**70}],
    ]
    paths = []
    for tar, of_tar in enumerate(rows):
        members = []
        for i, fields in enumerate(of_tar):
            key = f"{tar}{i}"
            members += [(f"{key}.jpg", picture(10 * tar + i)), (f"{key}.txt", f"caption {key}".encode())]
            members.append((f"{key}.json", json.dumps({"sha256": DOWNLOADED, **fields}).encode()))
        paths.append(write_tar(folder / f"{tar}.tar", members))
    table = pa.table(
        {
            "jpg": pa.array([picture(90), picture(91)]),
            "TEXT": ["in Parquet", "too"],
            "NSFW": ["UNSURE", None],
            "note": pa.array([1, 2], pa.int8()),
            "when": [dt.date(2024, 1, 2)] * 2,
            "raw": [b"0", b"1"],
        }
    )
    return [*tars(*paths), *({**one, "name": "q"} for one in parquets(folder / "q", table))]


@pytest.fixture(scope="module")
def with_fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    sources = field_pool(folder)
    return emitted(folder / "run", sources, rows_per_shard=2), sources


def test_the_sources_columns_stay_in_the_parquet_of_shards(with_fields):
    ran, _ = with_fields
    paths = list(ran.folder.glob("shards/*.parquet"))
    schemas = {pq.read_schema(path).remove_metadata().to_string() for path in paths}
    assert len(paths) == 5 and len(schemas) == 1, "readers of many files want one schema"
    table = sidecars(ran)
    own = {
        "LICENSE": "string",
        "NSFW": "string",
        "TEXT": "string",
        "is_ad": "bool",
        "note": "int64",
        "similarity": "double",
        "when": "string",
    }
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
    glob = f"{ran.folder}/shards/*.parquet"
    assert duckdb.sql(f"SELECT count(nsfw), count(note), sum(similarity) FROM '{glob}'").fetchall() == [(5, 3, 3.1)]


def test_columns_of_the_source_do_not_depend_on_units_or_workers(with_fields, tmp_path):
    ran, sources = with_fields
    again = run_beam(recipe(sources, 2), tmp_path / "again")
    assert read_run(again) == read_run(ran)
    one_unit = [{**sources[0], "path": [source["path"] for source in sources[:3]]}, sources[3]]
    cut = run_local(recipe(one_unit, 100), tmp_path / "cut")
    names = [name for name in sidecars(cut).column_names if name != "source"]
    assert sidecars(cut).select(names).equals(sidecars(ran).select(names))


def test_another_field_writes_shards_again_and_reads_nothing(tmp_path, monkeypatch):
    sources = field_pool(tmp_path)[:2]
    first = emitted(tmp_path / "first", sources[:1])
    read = watch_measuring(monkeypatch)
    second = run_local(recipe(sources), tmp_path / "second", reuse=first.folder)
    assert len(read) == 1, "only the tar that was added"
    names = sidecars(second).column_names
    assert "is_ad" in sidecars(first).column_names and "is_ad" in names
    assert sidecars(first).schema.field("similarity").type == pa.int64()
    assert sidecars(second).schema.field("similarity").type == pa.float64()
