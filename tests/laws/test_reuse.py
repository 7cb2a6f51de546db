"""Law 4: a run reuses a table if and only if all inputs of the table are equal."""

import os
import shutil
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
    "rules": {"words": "words > 3"}, "dedup": {"by": ["uid", "sha256"]}, "balance": {"t": 10},
    "output": {"rows_per_shard": 20},
}  # fmt: skip
MEASURED = ("samples", "members", "scores")


@pytest.fixture
def tars(tmp_path):
    return kit.write_tars(tmp_path / "tars", kit.make_samples(60), 6)


@pytest.fixture
def metadata(tmp_path):
    return kit.write_metadata(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A recipe over 6 tars with changed sections, and a finished run, which tests must not change."""
    folder = tmp_path_factory.mktemp("done")
    metadata, path = kit.write_metadata(folder), kit.write_tars(folder / "tars", kit.make_samples(60), 6)

    def recipe(**changed):
        return kit.recipe_of(path, **{"match": {"metadata": metadata}, **SECTIONS, **changed})

    return recipe, kit.run_local(recipe(), folder / "old")


@pytest.fixture
def measured(monkeypatch):
    """The input files that are measured, and the units that are matched (as `match N`), from now on."""
    seen = kit.watch_measuring(monkeypatch)
    write = UnitTables.write

    def writing(tables, name, *arguments):
        if name == "matches":
            seen.append(f"match {tables.unit}")
        write(tables, name, *arguments)

    monkeypatch.setattr(UnitTables, "write", writing)
    return seen


@pytest.fixture
def reuse(measured, tmp_path):
    """Run a recipe with reuse, and check it against a run from scratch. Return what is measured, and the new run."""

    def run(recipe, old, run=kit.run_local):
        before = kit.files_of(old)
        measured.clear()
        new = run(recipe, tmp_path / "new", reuse=old)
        seen = sorted(measured)
        fresh = kit.run_local(recipe, tmp_path / "fresh")
        assert kit.lasting_files(new.folder) == kit.lasting_files(fresh.folder)
        assert kit.files_of(old) == before, "a run that is reused is not changed"
        return seen, new

    return run


def tables(run, *names):
    """The files of some tables: their digests."""
    starts = tuple(f"tables/{name}/" for name in names)
    return {path: digest for path, digest in kit.files_of(run.folder).items() if path.startswith(starts)}


# ---------------------------------------------------------------- another recipe
def test_another_t_measures_and_matches_nothing(done, reuse):
    recipe, old = done
    seen, new = reuse(recipe(balance={"t": 3}), old.folder, kit.run_beam)
    names = (*MEASURED, "matches")
    assert seen == []
    assert tables(new, *names) == tables(old, *names) and len(tables(new, *names)) == 3 * 6
    assert not set(tables(new, "decisions").values()) & set(tables(old, "decisions").values())
    assert new.counts["kept"] < old.counts["kept"]


ALL = sorted([*(f"{i:05d}.tar" for i in range(6)), *(f"match {i}" for i in range(6))])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rules": {"words": "words > 4"}, "name": "other"}, []),
        ({"dedup": {"by": ["uid"]}, "seed": 5}, []),
        ({"output": {"rows_per_shard": 7}, "balance": None}, []),
        pytest.param({"measure": {"image": {"max_pixels": 1000}}}, ALL, marks=pytest.mark.slow),
        ({"source": {"caption_key": "key"}}, ALL),
        pytest.param({"source": {"name": "other"}}, ALL, marks=pytest.mark.slow),
    ],
    ids=lambda value: next(iter(value), ""),
)
def test_deciding_measures_nothing_and_another_input_all(change, expected, done, reuse):
    recipe, old = done
    assert reuse(recipe(**change), old.folder)[0] == expected


def test_other_metadata_is_matched_not_measured(done, tmp_path, reuse):
    """Equal entries under another name are not matched again."""
    recipe, old = done
    same = kit.write_metadata(tmp_path)
    seen, new = reuse(recipe(match={"metadata": same}), old.folder)
    assert seen == [] and new.kept == old.kept
    shutil.rmtree(tmp_path / "new")
    shutil.rmtree(tmp_path / "fresh")
    Path(same).write_text('["red", "dog", "blue"]')
    seen, new = reuse(recipe(match={"metadata": same}), old.folder)
    assert seen == [f"match {i}" for i in range(6)]
    assert tables(new, *MEASURED) == tables(old, *MEASURED)
    assert not set(tables(new, "matches").values()) & set(tables(old, "matches").values())


# ---------------------------------------------------------------- other files
def touch(path):
    """Let a file look a second newer."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


@pytest.mark.thorough
def test_what_changed_is_measured(tars, metadata, tmp_path, reuse):
    """One of six tars is rewritten: the old folder is refused, and a new run reuses the other five."""
    recipe = kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS)
    old = kit.run_local(recipe, tmp_path / "old")
    changed = tmp_path / "tars/00002.tar"
    size = changed.stat().st_size
    kit.write_tar(changed, kit.make_samples(60, seed=9)[:10])
    with changed.open("ab") as file:
        file.write(bytes(max(0, size - changed.stat().st_size)))  # the size stays the same
    touch(changed)
    with pytest.raises(Exception, match=r"an input, .* changed.*--reuse"):
        prepare(recipe, str(old.folder))
    seen, new = reuse(recipe, old.folder)
    assert seen == ["00002.tar", "match 2"] and new.kept != old.kept


@pytest.mark.parametrize("form", ["{00000..00005}.tar", "*.tar"])
def test_a_moved_pool_is_not_measured(form, tars, tmp_path, reuse):
    """Tables name the new paths, also of unreadable files. A recipe may add a signal."""
    (tmp_path / "tars/00001.tar").write_bytes(b"no tar" * 999)
    old = kit.run_local(kit.recipe_of(f"{tmp_path}/tars/{form}", measure={"text_area": {}}), tmp_path / "old")
    (tmp_path / "tars").rename(tmp_path / "moved")
    path = f"{tmp_path}/moved/{form}"
    sections = {"rules": {"words": "words > 3"}, "output": {"rows_per_shard": 20}}
    seen, new = reuse(kit.recipe_of(path, measure={"text_area": {}}, **sections), old.folder)
    assert seen == [] and len(new.kept)
    recipe = kit.recipe_of(path, measure={"text_area": {}, "language": {}})
    prepared = prepare(recipe, str(tmp_path / "both"), str(old.folder))
    settings, units = MeasureSettings.of(prepared.context), prepared.plan.units
    assert count_needed(settings, units, prepared.context.unit_tables) == {"language": 6}


@pytest.mark.thorough
def test_a_copied_pool_is_measured_unless_contents_are_compared(tars, tmp_path, measured):
    """`cp -r` gives files a later time."""
    shutil.copytree(tmp_path / "tars", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = tars.replace("tars", "copy")
    for content, count in ((False, 6), (True, 0)):
        old, new = (tmp_path / f"{name} {content}" for name in ("old", "new"))
        kit.run_local(kit.recipe_of(tars), old, content=content)
        measured.clear()
        kit.run_local(kit.recipe_of(copy), new, reuse=old, content=content)
        assert len(measured) == count


def test_tars_added_at_the_end(tars, metadata, tmp_path, reuse):
    """Only the new ones are measured, where each tar is a unit of its own."""
    old = kit.run_local(kit.recipe_of(tars, match={"metadata": metadata}, **SECTIONS), tmp_path / "old")
    for number in (6, 7):
        kit.write_tar(tmp_path / f"tars/{number:05d}.tar", kit.make_samples(60, seed=3)[number * 5 : number * 5 + 9])
    recipe = kit.recipe_of(f"{tmp_path}/tars/*.tar", match={"metadata": metadata}, **SECTIONS)
    assert reuse(recipe, old.folder)[0] == ["00006.tar", "00007.tar", "match 6", "match 7"]


@pytest.mark.thorough
@pytest.mark.parametrize("count", [(110, 111), (110, 400)])
def test_tars_added_at_the_end_keep_small_units(count, tmp_path):
    """Units of small pools hold several tars. More tars, up to four times as many, change only the last unit."""
    kit.write_tars(tmp_path / "tars", kit.make_samples(400)[: count[1]], count[1])

    def keys(tars):
        path = f"{tmp_path}/tars/{{00000..{tars - 1:05d}}}.tar"
        return {unit.key for unit in prepare(kit.recipe_of(path), str(tmp_path / "out")).plan.units}

    few, more = keys(count[0]), keys(count[1])
    assert len(few & more) >= len(few) - 1


# ---------------------------------------------------------------- other numbers of units
def two_sources(recipe, folder):
    """The recipe with a source of two tars in front."""
    front = kit.recipe_of(kit.write_tars(folder / "front", kit.make_samples(20, seed=4), 2), source={"name": "front"})
    return recipe.model_copy(update={"input": (*front.input, *recipe.input)})


FRONT = ["00000.tar", "00001.tar", "match 0", "match 1"]


@pytest.mark.thorough
@pytest.mark.parametrize("run", [kit.run_local, kit.run_beam])
def test_a_source_in_front(run, done, tmp_path, reuse):
    """Only the new source is read."""
    recipe, old = done
    seen, new = reuse(two_sources(recipe(), tmp_path), old.folder, run)
    assert seen == FRONT and set(new.table("samples")["unit"].to_pylist()) == set(range(8))


@pytest.mark.thorough
def test_a_file_in_front(metadata, tmp_path, reuse, monkeypatch):
    """The source's later units stay as they were."""
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (100, 100))
    kit.write_parquets(tmp_path / "rows", kit.make_rows(600), 6)
    sections = {**SECTIONS, "match": {"metadata": metadata}, "measure": {"language": {}}, "dedup": {"by": ["uid"]}}
    old = kit.run_local(kit.recipe_of(f"{tmp_path}/rows/0*.parquet", "parquet", **sections), tmp_path / "old")
    pq.write_table(kit.make_rows(90, seed=7), tmp_path / "rows/0.parquet")
    recipe = kit.recipe_of(f"{tmp_path}/rows/0*.parquet", "parquet", **sections)
    assert reuse(recipe, old.folder)[0] == ["0.parquet", "match 0"]


@pytest.mark.thorough
def test_a_source_in_front_of_an_unfinished_run(done, tmp_path, reuse, monkeypatch):
    """Tables of the interrupted run are adopted under new numbers, except for a damaged one."""
    recipe, _ = done
    with monkeypatch.context() as patched, pytest.raises(TypeError):
        patched.setattr("pipelines.curate.decide_rows", None)
        kit.run_local(recipe(), tmp_path / "old")
    (tmp_path / "old/tables/samples/00004.parquet").unlink()
    damaged = tmp_path / "old/tables/samples/00001.parquet"
    data = bytearray(damaged.read_bytes())
    data[40] ^= 255  # within a page: the footer is whole
    damaged.write_bytes(data)
    assert reuse(two_sources(recipe(), tmp_path), tmp_path / "old")[0] == sorted([*FRONT, "00001.tar", "00004.tar"])


# ---------------------------------------------------------------- what can be reused
@pytest.mark.thorough
def test_another_column_of_scores_is_measured(tmp_path, reuse):
    """An added file brings a score column, which `scores` of the old units lacks."""
    kit.write_parquets(tmp_path / "rows", kit.make_rows(200), 1)
    old = kit.run_local(kit.recipe_of(f"{tmp_path}/rows/*.parquet", "parquet"), tmp_path / "old")
    rows = kit.make_rows(200, seed=2)
    pq.write_table(rows.append_column("beauty", pa.array([0.5] * len(rows))), tmp_path / "rows/00001.parquet")
    rules = {"pretty": "beauty IS NULL OR beauty < 1"}
    seen, new = reuse(kit.recipe_of(f"{tmp_path}/rows/*.parquet", "parquet", rules=rules), old.folder)
    assert seen == ["00000.parquet", "00001.parquet"]
    assert new.table("scores").column_names[-1] == "beauty"
    assert new.table("scores")["beauty"].null_count == len(kit.make_rows(200))


@pytest.mark.thorough
def test_steps_raise_their_versions(tars, metadata, tmp_path, monkeypatch):
    """A new version of a step changes the keys of its tables, and of all that follow from them."""
    prepared = prepare(kit.recipe_of(tars, match={"metadata": metadata}), str(tmp_path / "out"))
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
        "measure": {*before}, "match": {"matches", "decisions", "shards"}, "decide": {"decisions", "shards"},
        "emit": {"shards"},
    }  # fmt: skip
    for step, changed in follow.items():
        with monkeypatch.context() as patched:
            patched.setitem(VERSIONS, step, 99)
            assert {name for name, key in keys().items() if key != before[name]} == changed, step
