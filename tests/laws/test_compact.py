"""Publishing merges the tables of many small units into few files, and changes nothing else about the run."""

import shutil
from pathlib import Path

import pytest

from curate.ask.explain import explain_sample
from curate.ask.query import asking
from curate.ask.verify import verify_run
from curate.publish import publish
from curate.publish.forget.forget import forget
from curate.store.items import Items, hash_url
from pipelines.prepare import prepare
from tests import kit
from tests.kit import Ran
from tests.kit.kills import states_of
from tests.kit.whatif import whatif

pytestmark = pytest.mark.thorough

TABLES = ("samples", "scores", "matches", "decisions")


@pytest.fixture(autouse=True)
def _tiny_units(monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (8, 8))
    monkeypatch.setattr(publish, "CHUNK_ROWS", 40)  # of 5 units
    monkeypatch.setattr(publish, "MIN_UNITS", 4)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two sources of text."""
    folder = tmp_path_factory.mktemp("pool")
    one = kit.write_parquets(folder / "one", kit.make_rows(60), 2, group=8)
    two = kit.write_parquets(folder / "two", kit.make_rows(50, seed=3), 2, group=8)
    recipe = kit.recipe_of(
        one, "parquet", match={"metadata": kit.write_metadata(folder)}, measure={"language": {}},
        rules={"words": "words > 3"}, dedup={"by": ["uid"]}, balance={"t": 10}, output={"rows_per_shard": 20},
    )  # fmt: skip
    other = recipe.input[0].model_copy(update={"name": "other", "path": two})
    return recipe.model_copy(update={"input": (*recipe.input, other)})


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """A run with merged tables, and the same run with a file for each unit. Tests must not change them."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("curate.pool.plan.UNIT_ROWS", (8, 8))
        patched.setattr(publish, "CHUNK_ROWS", 40)
        patched.setattr(publish, "MIN_UNITS", 4)
        merged = kit.run_local(recipe, folder / "merged")
        patched.setattr(publish, "MIN_UNITS", 10**6)
        return merged, kit.run_local(recipe, folder / "plain")


@pytest.fixture
def measured(monkeypatch):
    """The input files that are opened to be measured from now on."""
    return kit.watch_measuring(monkeypatch)


def names_of(run, table="samples"):
    return sorted(path.name for path in (run.folder / "tables" / table).iterdir())


def rows_equal(run, other):
    """Check that two runs hold the same rows, in order, in every table, and the same shards."""
    for table in TABLES:
        assert run.table(table).equals(other.table(table)), table
    ours, theirs = (kit.lasting_files(one.folder).items() for one in (run, other))
    assert {file for file in ours if "tables" not in file[0]} == {file for file in theirs if "tables" not in file[0]}
    assert run.counts == other.counts
    assert verify_run(str(run.folder))[1] == verify_run(str(other.folder))[1] == []


def ask(run, sql):
    with asking(str(run.folder), sql) as result:
        return list(result.rows)


def test_many_small_units_lie_in_few_files(runs):
    merged, plain = runs
    assert len(names_of(plain)) > 15 and len(names_of(merged)) == 4
    assert [names_of(merged, table) for table in TABLES] == [names_of(merged)] * len(TABLES)
    assert sum(merged.run["units_per_file"]) == len(names_of(plain)) == sum(count for _, count in merged.run["units"])
    assert "units_per_file" not in plain.run
    rows_equal(merged, plain)


def test_readers_see_the_same(runs):
    merged, plain = runs
    for sql in ("funnel", "sources", "SELECT unit, row, uid, rule, language FROM verdicts ORDER BY unit, row"):
        assert ask(merged, sql) == ask(plain, sql)
    for uid in merged.table("samples", ["uid"])["uid"].drop_null().to_pylist()[::97]:
        assert str(explain_sample(str(merged.folder), uid)) == str(explain_sample(str(plain.folder), uid))
    for change in (["balance.t=3"], ["rules.words=words > 2"], ["dedup.by=[]"]):
        found, expected = (whatif(str(run.folder), change) for run in runs)
        assert found.funnel["rule"].equals(expected.funnel["rule"])
        assert found.funnel["whatif"].to_pylist() == pytest.approx(expected.funnel["whatif"].to_pylist())


def test_through_beam(recipe, runs, tmp_path):
    run = kit.run_beam(recipe, tmp_path / "run")
    assert kit.lasting_files(run.folder) == kit.lasting_files(runs[0].folder)


@pytest.mark.slow
def test_one_units_tables_are_reused(recipe, runs, tmp_path, measured):
    """Without the first source, the units have other numbers."""
    other_t = recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"t": 3})})
    shorter = other_t.model_copy(update={"input": recipe.input[1:]})
    for number, changed in enumerate((other_t, shorter)):
        new = kit.run_local(changed, tmp_path / f"new{number}", reuse=runs[0].folder)
        assert measured == []
        fresh = kit.run_local(changed, tmp_path / f"fresh{number}")
        measured.clear()
        assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.slow
def test_forgotten_rows_are_gone_from_chunks(recipe, runs, tmp_path):
    """A request removes the same rows from both runs, and they stay out if the run is published again."""
    kept = [row for row in runs[0].table("decisions").to_pylist() if row["kept"]]
    urls = runs[0].table("samples", ["url"])["url"].to_pylist()[100:102]
    uids = [bytes.fromhex(kept[place]["uid"]) for place in (5, -5)]
    merged, plain = (Ran(Path(shutil.copytree(run.folder, tmp_path / run.folder.name))) for run in runs)
    for run in (merged, plain):
        found = forget(str(run.folder), Items.of({"uid": uids, "url": [hash_url(url.encode()) for url in urls]}))
        assert found.rows.units
    rows_equal(merged, plain)
    assert merged.counts["forgotten"] >= 3
    before = tables_of(merged, "samples")
    (merged.folder / "_SUCCESS").unlink()
    kit.run_local(recipe, merged.folder)
    assert tables_of(merged, "samples") == before
    assert verify_run(str(merged.folder))[1] == [] and merged.counts["forgotten"] >= 3


def tables_of(run, table):
    files = kit.lasting_files(run.folder)
    return {name: digest for name, digest in files.items() if name.startswith(f"tables/{table}/")}


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 2])
def test_only_damaged_chunks_are_made_anew(shift, recipe, runs, tmp_path, measured):
    """One chunk of each table is damaged, each in another way. An intact run continues from its chunks."""
    out = Path(shutil.copytree(runs[0].folder, tmp_path / "out"))
    (out / "_SUCCESS").unlink()
    kit.run_local(recipe, out)
    assert measured == [] and kit.lasting_files(out) == kit.lasting_files(runs[0].folder)
    units = 0
    for place, table in enumerate(TABLES):
        path = sorted((out / "tables" / table).iterdir())[place]
        data = bytearray(path.read_bytes())
        data[40] ^= 255  # within a page: the footer is whole
        path.write_bytes([data[: len(data) // 2], b"", data, b""][(place + shift) % 4])
        if (place + shift) % 4 == 3:
            path.unlink()
        if table in ("samples", "scores"):  # they have columns of the inputs
            units += runs[0].run["units_per_file"][place]
    (out / "uids.npy").unlink()  # so that the run is not finished
    kit.run_local(recipe, out)
    assert len(measured) == units
    assert kit.lasting_files(out) == kit.lasting_files(runs[0].folder)
    assert verify_run(str(out))[1] == []


@pytest.mark.slow
def test_a_kill_from_compacting_on(recipe, runs, tmp_path, measured):
    """A rerun completes a run that was killed between chunks, between deletions, or before `_SUCCESS`."""
    with states_of(tmp_path / "out", tmp_path / "killed") as states:
        kit.run_local(recipe, tmp_path / "out")
    measured.clear()
    compacting = [out for out in states if list(out.glob("tables/*/*-*.parquet"))]
    assert len(compacting) > 2 * len(TABLES)
    for out in compacting[::3]:
        if not prepare(recipe, str(out)).finished:
            kit.run_local(recipe, out)
            assert kit.lasting_files(out) == kit.lasting_files(runs[0].folder)
            assert set(kit.files_of(out)) == set(kit.files_of(runs[0].folder))
    assert measured == []
