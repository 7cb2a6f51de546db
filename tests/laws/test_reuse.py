"""Law 4: a table is taken over where all that determines it is equal, and nowhere else."""

import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.stages import VERSIONS
from curate.decide.settings import DecideSettings
from curate.emit.settings import EmitSettings
from curate.match.unit import MatchSettings
from curate.measure.current import count_needed
from curate.measure.settings import MeasureSettings
from curate.run.context import RunContext
from curate.store.tables import UnitTables
from pipelines.prepare import prepare
from tests import kit

SECTIONS = {
    "rules": {"words": "words > 3"},
    "dedup": {"by": ["uid", "sha256"]},
    "balance": {"t": 10},
    "output": {"rows_per_shard": 20},
}
MEASURED = ("samples", "members", "scores")


@pytest.fixture
def metadata(tmp_path):
    return kit.write_metadata(tmp_path)


@pytest.fixture
def tars(tmp_path):
    return kit.write_tars(tmp_path / "tars", kit.make_samples(60), 6)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The path of a pool, that of its metadata, and a finished run over them; not to be changed."""
    folder = tmp_path_factory.mktemp("done")
    metadata, path = kit.write_metadata(folder), kit.write_tars(folder / "tars", kit.make_samples(60), 6)
    old = kit.run_local(kit.recipe_of(path, match={"metadata": metadata}, **SECTIONS), folder / "old")
    return path, metadata, old.folder


@pytest.fixture
def measured(monkeypatch):
    """The input files that are opened to be measured, and units that are matched (as `match N`), from now on."""
    seen = kit.watch_measuring(monkeypatch)
    write = UnitTables.write

    def writing(tables, name, *arguments):
        if name == "matches":
            seen.append(f"match {tables.unit}")
        write(tables, name, *arguments)

    monkeypatch.setattr(UnitTables, "write", writing)
    yield seen


def tables(run, *names):
    """The files of some tables: their digests."""
    return {
        p: h for p, h in kit.files_of(run.folder).items() if p.split("/")[0] == "tables" and p.split("/")[1] in names
    }


def test_another_t_measures_and_matches_nothing(tars, metadata, tmp_path, measured):
    """Through Beam; the result is the one of a run from nothing."""
    match = {"metadata": metadata}
    old = kit.run_local(kit.recipe_of(tars, match=match, **SECTIONS), tmp_path / "old")
    assert len(measured) == 6 + 6
    measured.clear()
    before = kit.files_of(old.folder)
    recipe = kit.recipe_of(tars, match=match, **{**SECTIONS, "balance": {"t": 3}})
    new = kit.run_beam(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == []
    names = (*MEASURED, "matches")
    assert tables(new, *names) == tables(old, *names) and len(tables(new, *names)) == 3 * 6
    assert not set(tables(new, "decisions").values()) & set(tables(old, "decisions").values())
    assert new.counts["kept"] < old.counts["kept"]
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert kit.files_of(old.folder) == before, "a run that is reused is not changed"


def test_another_t_opens_no_parquet(metadata, tmp_path, measured):
    path = kit.write_parquets(tmp_path / "rows", kit.make_rows(500), 3)
    old = kit.run_local(
        kit.recipe_of(path, "parquet", match={"metadata": metadata}, balance={"t": 20}), tmp_path / "old"
    )
    measured.clear()
    recipe = kit.recipe_of(path, "parquet", match={"metadata": metadata}, balance={"rows": 200})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == []
    assert tables(new, *MEASURED, "matches") == tables(old, *MEASURED, "matches")
    assert len(tables(new, "scores")) == 1
    assert new.counts["kept"] < 240 < old.counts["kept"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change",
    [
        {"rules": {"words": "words > 4"}},
        {"dedup": {"by": ["uid"]}},
        {"seed": 5},
        {"output": {"rows_per_shard": 7}},
        {"balance": None},
        {"name": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_deciding_measures_nothing(change, done, tmp_path, measured):
    tars, metadata, old = done
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **{**SECTIONS, **change})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old)
    assert measured == []
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def test_other_metadata_is_matched_not_measured(tars, metadata, tmp_path, measured):
    old = kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    measured.clear()
    Path(metadata).write_text('["red", "dog", "blue"]')
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert sorted(measured) == [f"match {i}" for i in range(6)]
    assert tables(new, *MEASURED) == tables(old, *MEASURED)
    assert not set(tables(new, "matches").values()) & set(tables(old, "matches").values())
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def test_the_same_metadata_under_another_name_is_reused(tars, metadata, tmp_path, measured):
    old = kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    measured.clear()
    elsewhere = Path(metadata).rename(tmp_path / "elsewhere.json")
    recipe = kit.recipe_of(tars, match={"metadata": str(elsewhere)}, **SECTIONS)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == []
    assert new.kept == old.kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"measure": {"language": {}}},
        {"measure": {"image": {"phash": True}}},
        {"measure": {"image": {"max_pixels": 1000}}},
        {"measure": {"image": {"decode": False}}},
        {"source": {"caption_key": "key"}},
        {"source": {"name": "other"}},
    ],
    ids=str,
)
def test_other_signals_are_measured(change, done, tmp_path, measured):
    tars, metadata, old = done
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **{**SECTIONS, **change})
    new = kit.run_local(recipe, tmp_path / "new", reuse=old)
    assert sorted(measured) == sorted([f"{i:05d}.tar" for i in range(6)] + [f"match {i}" for i in range(6)])
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def touch(path):
    """Makes a file look written a second later than it was."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


@pytest.mark.thorough
def test_what_changed_is_measured(tars, metadata, tmp_path, measured):
    """Of six tars one is written anew; its old folder is refused, and its new run takes over the other five."""
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS)
    old = kit.run_local(recipe, tmp_path / "old")
    changed = tmp_path / "tars/00002.tar"
    size = changed.stat().st_size
    kit.write_tar(changed, kit.make_samples(60, seed=9)[:10])
    with changed.open("ab") as file:
        file.write(bytes(max(0, size - changed.stat().st_size)))  # not even the size may differ
    touch(changed)
    with pytest.raises(
        Exception, match=r"its inputs, the metadata, an evaluation set, a joined file or a library changed.*--reuse"
    ):
        prepare(recipe, str(old.folder))
    measured.clear()
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == ["00002.tar", "match 2"]
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert new.kept != old.kept


@pytest.mark.thorough
def test_content_tells_changes_that_stamps_hide(tars, tmp_path):
    """`--fingerprint content`: a touched file is the same, a changed one with its old size and time is not."""
    recipe = kit.recipe_of(tars)
    old = prepare(recipe, str(tmp_path / "out"), content=True).plan.pool.key
    victim = tmp_path / "tars/00003.tar"
    touch(victim)
    assert prepare(recipe, str(tmp_path / "out"), content=True).plan.pool.key == old
    found, data = victim.stat(), bytearray(victim.read_bytes())
    data[600] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert prepare(recipe, str(tmp_path / "out"), content=True).plan.pool.key != old


@pytest.mark.parametrize("form", ["range", "glob", "list", "file"])
def test_a_moved_pool_is_not_measured(form, tars, tmp_path, measured):
    """Its tables name the paths of now, those of files that cannot be read too."""
    (tmp_path / "tars/00001.tar").write_bytes(b"no tar" * 999)

    def paths(folder):
        place = tars.replace("tars", folder, 1)
        names = [f"{tmp_path}/{folder}/{i:05d}.tar" for i in range(6)]
        return {"range": place, "glob": f"{tmp_path}/{folder}/*.tar", "list": names, "file": names[4]}[form]

    old = kit.run_local(kit.recipe_of(paths("tars"), max_failed=1), tmp_path / "old")
    (tmp_path / "tars").rename(tmp_path / "moved")
    recipe = kit.recipe_of(paths("moved"), max_failed=1, rules={"words": "words > 3"}, output={"rows_per_shard": 20})
    measured.clear()
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == [] and len(new.kept)
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
def test_a_copied_pool_is_measured_unless_contents_are_compared(tars, tmp_path, measured, monkeypatch):
    """As `cp -r` copies: the files are written later."""
    shutil.copytree(tmp_path / "tars", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = tars.replace("tars", "copy")
    for content, count in ((False, 6), (True, 0)):
        old, new = (tmp_path / f"{name} {content}" for name in ("old", "new"))
        kit.run_local(kit.recipe_of(tars), old, content=content)
        measured.clear()
        kit.run_local(kit.recipe_of(copy), new, reuse=old, content=content)
        assert len(measured) == count


@pytest.mark.thorough
def test_a_signal_is_added_to_a_moved_pool(tars, tmp_path):
    """Other columns of scores are taken over where the files were elsewhere."""
    old = kit.run_local(kit.recipe_of(tars, measure={"text_area": {}}), tmp_path / "old")
    (tmp_path / "tars").rename(tmp_path / "moved")
    both = {"text_area": {}, "language": {}}
    recipe = kit.recipe_of(tars.replace("tars", "moved"), measure=both)
    prepared = prepare(recipe, str(tmp_path / "new"), str(old.folder))
    settings, units = MeasureSettings.of(prepared.context), prepared.plan.units
    assert count_needed(settings, units, prepared.context.unit_tables) == {"language": 6}
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


def test_shards_added_at_the_end(tars, metadata, tmp_path, measured):
    """Only the new ones are measured, where each shard is a unit of its own."""
    old = kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    measured.clear()
    kit.write_tar(tmp_path / "tars/00006.tar", kit.make_samples(60, seed=3)[:10])
    kit.write_tar(tmp_path / "tars/00007.tar", kit.make_samples(60, seed=3)[10:20])
    recipe = kit.recipe_of(f"{tmp_path}/tars/*.tar", match={"metadata": metadata}, **SECTIONS)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert sorted(measured) == ["00006.tar", "00007.tar", "match 6", "match 7"]
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [(110, 111), (110, 400)])
def test_tars_added_at_the_end_keep_small_units(count, tmp_path):
    """Small pools of many tars: units hold several; all but the last are the same when tars are added, within a step of four."""
    samples = kit.make_samples(400)
    kit.write_tars(tmp_path / "tars", samples[: count[1]], count[1])

    def keys(tars):
        path = f"{tmp_path}/tars/{{00000..{tars - 1:05d}}}.tar"
        return {unit.key for unit in prepare(kit.recipe_of(path), str(tmp_path / "out")).plan.units}

    few, more = keys(count[0]), keys(count[1])
    assert len(few & more) >= len(few) - 1


@pytest.mark.thorough
def test_files_added_at_the_end_of_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (500, 500))
    rows = kit.make_rows(4000)
    kit.write_parquets(tmp_path / "rows", rows, 10, group=250)

    def keys(files):
        path = f"{tmp_path}/rows/{{00000..{files - 1:05d}}}.parquet"
        return [unit.key for unit in prepare(kit.recipe_of(path, "parquet"), str(tmp_path / "out")).plan.units]

    few, more = keys(8), keys(10)
    assert more[: len(few) - 1] == few[:-1] and len(more) > len(few)


def two_sources(first, second, metadata, form="webdataset"):
    """A recipe of two sources, whose names do not follow their places."""
    recipe = kit.recipe_of(second, form, match={"metadata": metadata}, **SECTIONS)
    front = kit.recipe_of(first, form, source={"name": "front"})
    return recipe.model_copy(update={"input": (*front.input, *recipe.input)})


@pytest.mark.thorough
@pytest.mark.parametrize("through", ["memory", "beam"])
def test_a_source_in_front(tars, metadata, through, tmp_path, measured):
    """Units have other numbers than in the old run: only the new source is read, and all files are those of a fresh run."""
    old = kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    before = kit.files_of(old.folder)
    measured.clear()
    recipe = two_sources(kit.write_tars(tmp_path / "front", kit.make_samples(20, seed=4), 2), tars, metadata)
    run = kit.run_beam if through == "beam" else kit.run_local
    new = run(recipe, tmp_path / "new", reuse=old.folder)
    assert sorted(measured) == ["00000.tar", "00001.tar", "match 0", "match 1"]
    assert set(new.table("samples")["unit"].to_pylist()) == set(range(8))
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
    assert kit.files_of(old.folder) == before, "a run that is reused is not changed"


@pytest.mark.thorough
def test_a_source_taken_away_from_the_front(tars, metadata, tmp_path, measured):
    front = kit.write_tars(tmp_path / "front", kit.make_samples(20, seed=4), 2)
    old = kit.run_local(two_sources(front, tars, metadata), tmp_path / "old")
    measured.clear()
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == []
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
def test_a_file_in_front(metadata, tmp_path, measured, monkeypatch):
    """Of a source whose later units stay as they were."""
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (100, 100))
    folder = tmp_path / "rows"
    kit.write_parquets(folder, kit.make_rows(600), 6)
    sections = {"match": {"metadata": metadata}, "measure": {"language": {}}, **SECTIONS}
    sections |= {"dedup": {"by": ["uid"]}}
    old = kit.run_local(kit.recipe_of(f"{folder}/0*.parquet", "parquet", **sections), tmp_path / "old")
    pq.write_table(kit.make_rows(90, seed=7), folder / "0.parquet")
    measured.clear()
    recipe = kit.recipe_of(f"{folder}/0*.parquet", "parquet", **sections)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old.folder)
    assert measured == ["0.parquet", "match 0"]
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
def test_a_source_in_front_of_an_unfinished_run(tars, metadata, tmp_path, measured, monkeypatch):
    """What was measured before the old run was interrupted is adopted under the new numbers; a damaged table is not."""
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.curate.decide_rows", None)
        with pytest.raises(TypeError):
            kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    old = tmp_path / "old"
    (old / "tables/samples/00004.parquet").unlink()
    data = bytearray((old / "tables/samples/00001.parquet").read_bytes())
    data[40] ^= 255  # within a page: the footer is whole
    (old / "tables/samples/00001.parquet").write_bytes(data)
    measured.clear()
    recipe = two_sources(kit.write_tars(tmp_path / "front", kit.make_samples(20, seed=4), 2), tars, metadata)
    new = kit.run_local(recipe, tmp_path / "new", reuse=old)
    read = ["00000.tar", "00001.tar"]  # of the source in front
    assert sorted(measured) == sorted([*read, "00001.tar", "00004.tar", "match 0", "match 1"])
    fresh = kit.run_local(recipe, tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
def test_another_column_of_scores_is_measured(tmp_path, measured):
    """A file that is added brings a score column: `scores` of the old units would lack it."""
    folder = tmp_path / "rows"
    kit.write_parquets(folder, kit.make_rows(200), 1)
    old = kit.run_local(kit.recipe_of(f"{folder}/*.parquet", "parquet"), tmp_path / "old")
    rows = kit.make_rows(200, seed=2)
    pq.write_table(rows.append_column("beauty", pa.array([0.5] * len(rows))), folder / "00001.parquet")
    measured.clear()
    new = kit.run_local(
        kit.recipe_of(f"{folder}/*.parquet", "parquet", rules={"pretty": "beauty IS NULL OR beauty < 1"}),
        tmp_path / "new",
        reuse=old.folder,
    )
    assert len(measured) >= 2
    assert new.table("scores").column_names[-1] == "beauty"
    assert new.table("scores")["beauty"].null_count == len(kit.make_rows(200))


@pytest.mark.thorough
def test_what_can_be_reused_and_what_not(tars, tmp_path):
    """A folder that is no run is refused; an unfinished run gives what it has; a damaged table is made anew."""
    recipe = kit.recipe_of(tars)
    with pytest.raises(Exception, match="is not a run"):
        prepare(recipe, str(tmp_path / "new"), str(tmp_path))
    old = kit.run_local(recipe, tmp_path / "old")
    (old.folder / "_SUCCESS").unlink()
    (old.folder / "tables/samples/00001.parquet").write_bytes(b"PAR1")
    (old.folder / "tables/members/00002.parquet").unlink()
    new = kit.run_local(recipe.model_copy(update={"seed": 1}), tmp_path / "new", reuse=old.folder)
    fresh = kit.run_local(recipe.model_copy(update={"seed": 1}), tmp_path / "fresh")
    assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)


@pytest.mark.thorough
def test_taken_files_are_the_runs_own(tars, tmp_path):
    """The old run may be deleted, and what one run writes anew does not appear in the other."""
    recipe = kit.recipe_of(tars)
    old = kit.run_local(recipe, tmp_path / "old")
    new = kit.run_local(recipe.model_copy(update={"seed": 1}), tmp_path / "new", reuse=old.folder)
    before = kit.files_of(old.folder)
    (new.folder / "_SUCCESS").unlink()
    (new.folder / "tables/samples/00000.parquet").unlink()
    time.sleep(0.01)
    kit.run_local(recipe.model_copy(update={"seed": 1}), tmp_path / "new")
    assert kit.files_of(old.folder) == before


@pytest.mark.thorough
def test_steps_raise_their_versions(tars, tmp_path, monkeypatch):
    """A new version of a step's code makes its tables anew, and all that follow from them."""
    recipe = kit.recipe_of(tars, match={"metadata": kit.write_metadata(tmp_path)})
    prepared = prepare(recipe, str(tmp_path / "out"))
    context, unit = prepared.context, prepared.plan.units[0]

    def keys():
        fresh = RunContext(context.recipe, context.pool, context.store, None, context.metadata_key, context.models)
        samples = MeasureSettings.of(fresh).key("samples", unit)
        return {
            "measure": samples, "matches": MatchSettings.of(fresh).key(samples),
            "decisions": DecideSettings.of(fresh).key, "shards": EmitSettings.of(fresh).key,
        }  # fmt: skip

    before = keys()
    follow = {
        "measure": {*before},
        "match": {"matches", "decisions", "shards"},
        "decide": {"decisions", "shards"},
        "emit": {"shards"},
    }
    for step, changed in follow.items():
        with monkeypatch.context() as patched:
            patched.setitem(VERSIONS, step, 99)
            assert {name for name, key in keys().items() if key != before[name]} == changed, step
