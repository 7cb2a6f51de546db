"""Law 3: a killed run continues where it was, and ends as if nothing had happened."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from curate.base.errors import RunError
from curate.measure import images as measuring_images
from curate.measure import part
from curate.recipe.recipe import Recipe, load_recipe
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore
from curate.tar.byte_sources import open_copy
from pipelines.prepare import prepare
from tests import kit
from tests.kit import forked
from tests.kit.kills import check_finished, check_killed, count_files, kill_at, kill_workers, states_of


class Case(NamedTuple):
    """A recipe with all steps, its file, and an undisturbed run, which tests must not change."""

    recipe: Recipe
    path: Path
    whole: Path


def make_case(folder, clean, shards):
    kit.write_tars(folder / "pool", kit.make_samples(clean), shards)
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": f"pool/{{00000..{shards - 1:05d}}}.tar"},
        "match": {"metadata": kit.write_metadata(folder)}, "rules": {"words": "words > 3"},
        "dedup": {"by": ["uid", "sha256"]}, "balance": {"t": 10}, "output": {"rows_per_shard": 8}, "max_failed": 1.0,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    case = Case(load_recipe(str(path)), path, folder / "whole")
    kit.run_local(case.recipe, case.whole)
    return case


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A few samples in 2 tars, run in this process."""
    return make_case(tmp_path_factory.mktemp("small"), 12, 2)


# ---------------------------------------------------------------- kills
@pytest.mark.slow
def test_a_kill_before_each_kind_of_file(small, tmp_path):
    with states_of(tmp_path / "out", tmp_path / "killed") as states:
        kit.run_local(small.recipe, tmp_path / "out")
    check_finished(tmp_path / "out", small.whole)
    assert len(states) > len({kit.kind_of(name) for name in kit.files_of(small.whole)})
    for out in states:
        check_killed(out)
        if prepare(small.recipe, str(out)).finished:  # except for files that are deleted after `_SUCCESS`
            assert kit.lasting_files(small.whole).items() <= kit.lasting_files(out).items()
        else:
            kit.run_local(small.recipe, out)
            check_finished(out, small.whole)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_case(tmp_path_factory.mktemp("many"), 60, 12)


@pytest.mark.slow
def test_a_chain_of_kills(many, tmp_path):
    """SIGKILL ends the run again and again, each time a little later."""
    out, rng, killed = tmp_path / "out", np.random.default_rng(20), 0
    moments = np.sort(rng.choice(np.arange(1, count_files(many.whole)), 6, replace=False)).tolist()
    for files in moments:
        killed += kill_at(files, float(rng.uniform(0, 0.1)), out, "run", many.path, "--out", out)
        check_killed(out)
    last = forked.run("run", many.path, "--out", out)
    assert last.returncode == 0, last.stderr
    check_finished(out, many.whole)
    # On a busy machine, the last runs may end before their kill.
    assert killed >= len(moments) / 2


@pytest.mark.slow
def test_kills_of_the_process_that_works(many, tmp_path):
    """The command survives kills while it measures, decides, emits, and publishes."""
    measuring = [("tables/samples/*.parquet", 2), ("tables/samples/*.parquet", 7)]
    later = [("tables/decisions/*.parquet", 1), ("shards/*.tar", 2), ("manifest.parquet", 1)]
    kill_workers(tmp_path / "out", many.path, measuring + later)
    check_finished(tmp_path / "out", many.whole)


# A run whose images are measured in steps of 4, each with a checkpoint, one unit after the other; it kills itself at the n-th image.
KILLED_WITHIN = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from curate.base import process
from curate.measure import images as measuring_images, part
from curate.recipe.recipe import load_recipe
from curate.store import checkpoints
from tests import kit
part.STEP_ROWS, checkpoints.INTERVAL, one, threads = 4, 0.0, ThreadPoolExecutor(1), process.threads
process.threads = lambda name: one if name == "unit" else threads(name)
measure, recipe, out, images = measuring_images.measure_image, *sys.argv[1:3], int(sys.argv[3])
def measuring(*arguments):
    global images
    images -= 1
    if not images:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(*arguments)
measuring_images.measure_image = measuring
kit.run_local(load_recipe(recipe), Path(out))
"""


@pytest.mark.slow
def test_a_kill_within_a_unit(small, tmp_path, monkeypatch):
    """Images that were measured are not measured again, and the run ends like the undisturbed one."""
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED_WITHIN, str(small.path), str(out), "7"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((out / "parts/measured/00000").glob("*-*"))) == 1 and not (out / "tables/samples").exists()
    images, measure_image = [], measuring_images.measure_image

    def measuring(data, *arguments):
        images.append(len(data))
        return measure_image(data, *arguments)

    monkeypatch.setattr(measuring_images, "measure_image", measuring)
    monkeypatch.setattr(part, "STEP_ROWS", 4)
    kit.run_local(small.recipe, out)
    check_finished(out, small.whole)
    measured = len(images)
    kit.run_local(small.recipe, tmp_path / "again")
    assert len(images) - measured == measured + 4


def test_an_interrupted_run_goes_on_with_its_recipe_alone(small, tmp_path, monkeypatch):
    """Each stop comes one step later. Limits may change between the starts."""
    for step in ("match", "decide_rows", "emit"):
        with monkeypatch.context() as patched, pytest.raises(TypeError):
            patched.setattr(f"pipelines.curate.{step}", None)
            kit.run_local(small.recipe, tmp_path / "out")
        check_killed(tmp_path / "out")
        with pytest.raises(Exception, match=r"seed.*--reuse"):
            prepare(small.recipe.model_copy(update={"seed": 1}), str(tmp_path / "out"))
    kit.run_local(small.recipe.model_copy(update={"max_failed": 0.5}), tmp_path / "out")
    assert (tmp_path / "out/uids.npy").read_bytes() == (small.whole / "uids.npy").read_bytes()


# ---------------------------------------------------------------- what others leave
def unfinished(whole, out):
    """A copy of a run that lacks only `_SUCCESS`."""
    shutil.copytree(whole, out)
    (out / "_SUCCESS").unlink()
    return out


@pytest.mark.thorough
def test_files_of_others_are_removed_and_missing_ones_made_anew(small, tmp_path):
    """The run's copy of the metadata in tmp/ is gone, and matching needs it."""
    out = unfinished(small.whole, tmp_path / "out")
    for name in ("shards/00099.tar", "shards/00099.parquet", "tables/samples/00099.parquet", "tables/other/0.parquet"):
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copy(small.whole / "failures.parquet", out / name)
    shutil.rmtree(out / "tables/matches")
    assert not (out / METADATA_FILE).exists()
    kit.run_local(small.recipe, out)
    check_finished(out, small.whole)


@pytest.mark.thorough
def test_a_stop_before_what_is_damaged_is_made_anew(small, tmp_path, monkeypatch):
    out = Path(shutil.copytree(small.whole, tmp_path / "run"))
    shard = out / "shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])

    def stop(folder, name, delete=RunStore.delete_file):
        delete(folder, name)
        if name == "_SUCCESS":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunStore, "delete_file", stop)
        kit.run_local(small.recipe, out)
    kit.run_local(small.recipe, out)
    assert kit.lasting_files(out) == kit.lasting_files(small.whole)


# ---------------------------------------------------------------- reads that fail
@pytest.fixture
def refuse_second_tar(monkeypatch):
    """Call a function while nothing can open the second tar of the pool."""

    def refusing(path, storage=None):
        if path.endswith("00001.tar"):
            raise PermissionError(13, "Permission denied", path)
        return open_copy(path, storage)

    def call(run):
        with monkeypatch.context() as patched:
            patched.setattr("curate.pool.formats.webdataset.open_copy", refusing)
            return run()

    return call


@pytest.mark.thorough
def test_a_file_that_could_not_be_opened_is_tried_again(small, refuse_second_tar, tmp_path):
    """One run failed by its limit, another finished without the file. Both read the file later."""
    strict = small.recipe.model_copy(update={"max_failed_files": 0.1})
    with pytest.raises(RunError, match="unreadable"):
        refuse_second_tar(lambda: kit.run_local(strict, tmp_path / "out"))
    kit.run_local(strict, tmp_path / "out")
    check_finished(tmp_path / "out", small.whole)
    tolerant = small.recipe.model_copy(update={"max_failed_files": 0.5})
    partial = refuse_second_tar(lambda: kit.run_local(tolerant, tmp_path / "partial"))
    assert partial.reasons[("00001.tar", None)] == "unreadable"
    reused = kit.run_local(small.recipe, tmp_path / "reused", reuse=partial.folder)
    check_finished(reused.folder, small.whole)
    (partial.folder / "_SUCCESS").unlink()
    tables = [partial.folder / f"tables/{table}/00000.parquet" for table in ("samples", "members", "matches")]
    before = [path.stat().st_ino for path in tables]
    kit.run_local(small.recipe, partial.folder)
    assert [path.stat().st_ino for path in tables] == before
    check_finished(partial.folder, small.whole)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("tables/samples/00001.parquet", OSError(5, "Input/output error")),
        ("tables/matches/00001.parquet", TimeoutError("no answer")),
        ("tables/decisions/00001.parquet", RuntimeError("503")),
    ],
)
def test_a_failed_read_deletes_nothing(name, error, small, tmp_path, monkeypatch):
    """A failed read does not show damage. The run ends with the reason, and later continues from all files."""
    out = unfinished(small.whole, tmp_path / "out")
    before = {path: path.stat().st_ino for top in ("tables", "shards") for path in (out / top).rglob("*.parquet")}
    fail_to_read(name, error, small.recipe, out, monkeypatch)
    assert {path: path.stat().st_ino for path in before} == before
    kit.run_local(small.recipe, out)
    assert {path: path.stat().st_ino for path in before} == before
    check_finished(out, small.whole)


@pytest.mark.thorough
def test_a_failed_read_hides_no_damage(small, tmp_path, monkeypatch):
    """In a published run, one file is missing, and reads of another fail."""
    out = Path(shutil.copytree(small.whole, tmp_path / "out"))
    (out / "shards/00000.tar").unlink()
    before = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file()}
    fail_to_read("shards/00001.tar", OSError(5, "Input/output error"), small.recipe, out, monkeypatch)
    made_again = {out / "_SUCCESS", out / "run.json", *(out / "shards").glob("00000*")}
    assert all(path in made_again or path.stat().st_ino == inode for path, inode in before.items())
    kit.run_local(small.recipe, out)
    check_finished(out, small.whole)


def fail_to_read(unreadable, error, recipe, out, monkeypatch):
    """A run that cannot read one of its files ends with the reason."""
    open_file = RunStore.open

    def failing(folder, name):
        if name == unreadable:
            raise error
        return open_file(folder, name)

    with monkeypatch.context() as patched, pytest.raises((RunError, OSError), match=str(error.args[-1])):
        patched.setattr(RunStore, "open", failing)
        kit.run_local(recipe, out)
