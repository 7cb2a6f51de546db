"""Many small units: their tables lie in few files once the run is published, and nothing else about the run differs."""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from curate.ask.explain import explain_sample
from curate.ask.query import asking
from curate.ask.verify import verify_run
from curate.publish import publish
from curate.publish.forget.forget import forget
from curate.store.items import Items, hash_url
from tests import kit
from tests.ask.whatif.asked import whatif
from tests.kit import Ran

pytestmark = pytest.mark.thorough

TABLES = ("samples", "scores", "matches", "decisions")


@pytest.fixture(autouse=True)
def _tiny_units(monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (8, 8))
    monkeypatch.setattr(publish, "CHUNK_ROWS", 200)  # of 25 units


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two sources of text."""
    folder = tmp_path_factory.mktemp("pool")
    one = kit.write_parquets(folder / "one", kit.make_rows(250), 2, group=8)
    two = kit.write_parquets(folder / "two", kit.make_rows(200, seed=3), 2, group=8)
    recipe = kit.recipe_of(
        one,
        "parquet",
        match={"metadata": kit.write_metadata(folder)},
        measure={"language": {}},
        rules={"words": "words > 3"},
        dedup={"by": ["uid"]},
        balance={"t": 10},
        output={"rows_per_shard": 20},
    )
    other = recipe.input[0].model_copy(update={"name": "other", "path": two})
    return recipe.model_copy(update={"input": (*recipe.input, other)})


@pytest.fixture(scope="module")
def runs(recipe, tmp_path_factory):
    """A run whose tables lie in chunks, and the same with files of each unit; neither is to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("curate.pool.plan.UNIT_ROWS", (8, 8))
        patched.setattr(publish, "CHUNK_ROWS", 200)
        merged = kit.run_local(recipe, folder / "merged")
        patched.setattr(publish, "MIN_UNITS", 10**6)
        return merged, kit.run_local(recipe, folder / "plain")


@pytest.fixture
def measured(monkeypatch):
    """The input files that are opened to be measured, from now on."""
    return kit.watch_measuring(monkeypatch)


def names_of(run, table="samples"):
    return sorted(path.name for path in (run.folder / "tables" / table).iterdir())


def rows_equal(run, other):
    """That two runs hold the same rows, in order, in every table, and the same shards."""
    for table in TABLES:
        assert run.table(table).equals(other.table(table)), table
    ours, theirs = (kit.lasting_files(one.folder) for one in (run, other))
    assert {k: v for k, v in ours.items() if "tables" not in k} == {
        k: v for k, v in theirs.items() if "tables" not in k
    }
    assert run.counts == other.counts
    for one in (run, other):
        assert verify_run(str(one.folder))[1] == []


def ask(run, sql):
    with asking(str(run.folder), sql) as result:
        return list(result.rows)


def test_many_small_units_lie_in_few_files(runs):
    merged, plain = runs
    assert len(names_of(plain)) > 64 and len(names_of(merged)) == 4
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
        assert [found.funnel[name].to_pylist() for name in ("rule", "whatif")] == [
            expected.funnel["rule"].to_pylist(),
            pytest.approx(expected.funnel["whatif"].to_pylist()),
        ]


def test_through_beam(recipe, runs, tmp_path):
    run = kit.run_beam(recipe, tmp_path / "run")
    assert kit.lasting_files(run.folder) == kit.lasting_files(runs[0].folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["merged", "plain"])
def test_one_units_tables_are_reused(place, recipe, runs, tmp_path, measured):
    """Of either kind of run; units have other numbers where the first source is gone."""
    old = runs[place]
    other_t = recipe.model_copy(update={"balance": recipe.balance and recipe.balance.model_copy(update={"t": 3})})
    shorter = other_t.model_copy(update={"input": recipe.input[1:]})
    for number, changed in enumerate((other_t, shorter)):
        new = kit.run_local(changed, tmp_path / f"new{number}", reuse=old.folder)
        assert measured == []
        fresh = kit.run_local(changed, tmp_path / f"fresh{number}")
        measured.clear()
        assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def request(run):
    kept = [row for row in run.table("decisions").to_pylist() if row["kept"]]
    urls = run.table("samples", ["url"])["url"].to_pylist()
    return Items.of(
        {
            "uid": [bytes.fromhex(kept[5]["uid"]), bytes.fromhex(kept[-5]["uid"])],
            "url": [hash_url(url.encode()) for url in urls[300:302]],
        }
    )


@pytest.mark.slow
def test_forgotten_rows_are_gone_from_chunks(recipe, runs, tmp_path):
    """As from files of units; and a run that is published again keeps them out."""
    copies = [Ran(Path(shutil.copytree(run.folder, tmp_path / run.folder.name))) for run in runs]
    for run in copies:
        assert forget(str(run.folder), request(runs[0])).rows.units
    merged, plain = copies
    for table in TABLES:
        assert merged.table(table).equals(plain.table(table)), table
    assert merged.counts == plain.counts and merged.counts["forgotten"] >= 3
    assert verify_run(str(merged.folder))[1] == []
    before = kit.lasting_files(merged.folder)
    (merged.folder / "_SUCCESS").unlink()
    kit.run_local(recipe, merged.folder)
    again = kit.lasting_files(merged.folder)
    assert {k: v for k, v in again.items() if k.startswith("tables/samples")} == {
        k: v for k, v in before.items() if k.startswith("tables/samples")
    }
    assert verify_run(str(merged.folder))[1] == [] and merged.counts["forgotten"] >= 3


def test_a_run_goes_on_from_chunks(recipe, runs, tmp_path, measured):
    out = Path(shutil.copytree(runs[0].folder, tmp_path / "out"))
    (out / "_SUCCESS").unlink()
    kit.run_local(recipe, out)
    assert measured == []
    assert kit.lasting_files(out) == kit.lasting_files(runs[0].folder)


@pytest.mark.slow
@pytest.mark.parametrize("shift", range(4))
def test_only_damaged_chunks_are_made_anew(shift, recipe, runs, tmp_path, measured):
    """One chunk of each table, each in another way."""
    out = Path(shutil.copytree(runs[0].folder, tmp_path / "out"))
    units = 0
    for place, table in enumerate(TABLES):
        path = sorted((out / "tables" / table).iterdir())[place]
        data = bytearray(path.read_bytes())
        data[40] ^= 255  # within a page: the footer is whole
        path.write_bytes([data[: len(data) // 2], b"", data, b""][(place + shift) % 4])
        if (place + shift) % 4 == 3:
            path.unlink()
        if table in ("samples", "scores"):  # of which columns are of the inputs
            units += runs[0].run["units_per_file"][place]
    (out / "uids.npy").unlink()  # by which the run knows that something happened to it
    kit.run_local(recipe, out)
    assert len(measured) == units
    assert kit.lasting_files(out) == kit.lasting_files(runs[0].folder)
    assert verify_run(str(out))[1] == []


class Stopped(BaseException):
    """Stands for the end of the process."""


def _stop(*_):
    raise Stopped


@contextmanager
def stop_at(number):
    """End the process, so to speak, in place of the n-th file that is put into place or removed for good; yield those before."""
    seen = []
    replace, unlink = os.replace, os.unlink

    def step(path):
        if len(seen) == number:
            raise Stopped
        seen.append(path)

    def replacing(source, target):
        step(target)
        replace(source, target)

    def unlinking(path, **options):
        if "/tmp/" not in str(path).removeprefix(tempfile.gettempdir()):
            step(str(path))
        unlink(path, **options)

    with pytest.MonkeyPatch.context() as patched, suppress(Stopped):
        patched.setattr("os.replace", replacing)
        patched.setattr("os.unlink", unlinking)
        yield seen


@pytest.mark.slow
def test_a_stop_from_compacting_on(recipe, runs, tmp_path, measured):
    """Between chunks, between the files of units that are removed, and before `_SUCCESS`: a rerun completes it."""
    start, out, whole = tmp_path / "start", tmp_path / "out", runs[0].folder
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("curate.publish.publish.compact_units", _stop)
        with suppress(Stopped):
            kit.run_local(recipe, start)
    shutil.copytree(start, out)
    with stop_at(-1) as steps:
        kit.run_local(recipe, out)
    first = next(i for i, path in enumerate(steps) if re.search(r"\d-\d+\.parquet", path))
    removed = [i for i, path in enumerate(steps) if path.startswith(f"{out}/tables") and path.endswith("00030.parquet")]
    assert len(removed) == len(TABLES)
    measured.clear()
    success = next(i for i, path in enumerate(steps) if path.endswith("_SUCCESS"))
    for number in (first + 1, first + 6, removed[2] + 1, success):
        shutil.rmtree(out)
        shutil.copytree(start, out)
        with stop_at(number):
            kit.run_local(recipe, out)
        assert not (out / "_SUCCESS").exists()
        kit.run_local(recipe, out)
        assert measured == []
        assert kit.lasting_files(out) == kit.lasting_files(whole)
        assert set(kit.files_of(out)) == set(kit.files_of(whole))
