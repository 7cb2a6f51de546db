"""Law 3: a run that was killed goes on where it was, and ends as if nothing had happened."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from curate.ask.verify import verify_run
from curate.base import process
from curate.base.errors import RunError
from curate.measure import images as measuring_images
from curate.measure import part
from curate.recipe.recipe import load_recipe
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore
from curate.tar.byte_sources import open_copy
from pipelines.prepare import prepare
from tests import kit
from tests.kit import forked

CHAINS, KILLS = 3, 4  # folders, and kills in each


def write_recipe(folder, clean=120, shards=24, **sections):
    """A pool of many small units and a recipe of all steps, in a folder."""
    kit.write_tars(folder / "pool", kit.make_samples(clean), shards)
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": f"pool/{{00000..{shards - 1:05d}}}.tar"},
        "match": {"metadata": kit.write_metadata(folder)},
        "rules": {"words": "words > 3"},
        "dedup": {"by": ["uid", "sha256"]},
        "balance": {"t": 10},
        "output": {"rows_per_shard": 8},
        "max_failed": 1.0,
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def kill_at(files, delay, out, *arguments):
    """Runs `curate` into `out` and kills it with all its processes, `delay` seconds after the folder has so many files.

    Returns:
        Whether it was still there.
    """
    process = forked.start(*arguments)
    while process.is_alive():
        if count_files(out) >= files:
            time.sleep(delay)
            forked.kill(process)
            break
        time.sleep(0.005)
    process.join()
    return process.exitcode == -signal.SIGKILL


def count_files(out):
    """The files of a run folder that are in place."""
    return sum(len(files) for folder, _, files in os.walk(out) if not folder.startswith(f"{out}/tmp"))


def check_killed(out):
    """What must hold at any moment: files that stand are whole, and `_SUCCESS` stands beside a whole run only."""
    for path in out.glob("tables/**/*.parquet"):
        RunStore(str(out)).footer(str(path.relative_to(out)))
    if (out / "_SUCCESS").exists():
        assert verify_run(str(out))[1] == []


def check_finished(out, undisturbed):
    """That a run ended like the undisturbed one, with nothing left over."""
    assert kit.lasting_files(out) == kit.lasting_files(undisturbed)
    assert set(kit.files_of(out)) == set(kit.files_of(undisturbed))
    assert not (out / "tmp").exists()
    assert verify_run(str(out))[1] == []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The recipe of a pool of some units, and an undisturbed run of its command."""
    recipe = write_recipe(tmp_path_factory.mktemp("many"), 60, 12)
    done = forked.run("run", recipe, "--out", recipe.parent / "undisturbed")
    assert done.returncode == 0, done.stderr
    return recipe, recipe.parent / "undisturbed"


def kill_chains(many, folder, chains, kills, options):
    """Kills runs again and again, each time a little further on, at moments spread over all that a run writes."""
    (recipe, undisturbed), killed = many, 0
    total, rng = count_files(undisturbed), np.random.default_rng(20)
    for number in range(chains):
        out = folder / f"out{number}"
        for files in np.sort(rng.choice(np.arange(1, total), kills, replace=False)).tolist():
            killed += kill_at(files, float(rng.uniform(0, 0.1)), out, "run", recipe, "--out", out, *options)
            check_killed(out)
        last = forked.run("run", recipe, "--out", out, *options)
        assert last.returncode == 0, last.stderr
        check_finished(out, undisturbed)
    # On a crowded machine the last ones may end before they are killed.
    assert killed >= chains * kills / 2, f"only {killed} runs were still there to be killed"


@pytest.mark.slow
def test_twenty_kills(many, tmp_path):
    kill_chains(many, tmp_path, CHAINS, KILLS, [])


@pytest.mark.slow
def test_kills_of_processes(many, tmp_path):
    """Which start as slowly as interpreters do, so these are few."""
    options = ["--", "--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    kill_chains(many, tmp_path, 2, 3, options)


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
def test_a_kill_within_a_unit(small, whole, tmp_path, monkeypatch):
    """What was measured of the unit is not measured again, and the run ends like the undisturbed one."""
    recipe, out = Path(small.input[0].paths[0]).parents[1] / "recipe.yaml", tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED_WITHIN, str(recipe), str(out), "7"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((out / "parts/measured/00000").glob("*-*"))) == 1 and not (out / "tables/samples").exists()
    images = []
    measure = measuring_images.measure_image

    def measuring(data, *arguments):
        images.append(len(data))
        return measure(data, *arguments)

    monkeypatch.setattr(measuring_images, "measure_image", measuring)
    monkeypatch.setattr(part, "STEP_ROWS", 4)
    kit.run_local(small, out)
    check_finished(out, whole)
    measured = len(images)
    kit.run_local(small, tmp_path / "again")
    assert len(images) - measured == measured + 4


# ---------------------------------------------------------------- one run a folder


# ---------------------------------------------------------------- every file in turn
class Stopped(BaseException):
    """Stands for the end of the process."""


@contextmanager
def stop_at(monkeypatch, number):
    """Ends the process, so to speak, in place of its n-th renaming or linking, and leaves what was written aside.

    Yields a list that names, after the block, the file that did not come into place; empty where all did.
    """
    count = itertools.count(1)
    stopped = []
    unlink = os.unlink

    def stopping(put):
        def put_or_stop(source, target):
            if next(count) >= number:
                stopped.append(target)
                raise Stopped
            put(source, target)

        return put_or_stop

    def unlinking(path, **options):
        if not (stopped and re.search(r"/tmp/[0-9a-f]{32}$", path)):  # what was being written stays
            unlink(path, **options)

    with monkeypatch.context() as patched, suppress(Stopped):
        patched.setattr("os.replace", stopping(os.replace))
        patched.setattr("os.link", stopping(os.link))
        patched.setattr("os.unlink", unlinking)
        try:
            yield stopped
        finally:  # no thread outlives its process: one that works on would write among the files of the next
            for threads in (process.threads("unit"), process.threads("core")):
                threads.shutdown()
            process.threads.cache_clear()


@contextmanager
def states_of(out, into):
    """What a kill would leave of a run in `out`, before each renaming or linking: a copy of the folder as it is then.

    Yields a list that has, after the block, the last such folder for each kind of file that came into place.
    """
    names = []
    states = []
    alone = threading.Lock()

    def copying(put):
        def copy_and_put(source, target):
            with alone:
                copy_state(out, into / f"{len(names)}")
                names.append(os.path.relpath(target, out))
                put(source, target)

        return copy_and_put

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.replace", copying(os.replace))
        patched.setattr("os.link", copying(os.link))
        yield states
    states += [into / f"{number}" for number in kit.last_of_each_kind(names)]


def copy_state(folder, into):
    """Copies a folder in which other threads are at work."""
    into.mkdir(parents=True)
    for at, folders, files in os.walk(folder):
        for name in folders:
            (into / os.path.relpath(f"{at}/{name}", folder)).mkdir(exist_ok=True)
        for name in files:
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{at}/{name}", into / os.path.relpath(f"{at}/{name}", folder))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recipe over a few samples in 2 tars."""
    return load_recipe(str(write_recipe(tmp_path_factory.mktemp("small"), 12, 2)))


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Its run, undisturbed."""
    return kit.run_local(small, tmp_path_factory.mktemp("whole") / "out").folder


@pytest.mark.slow
def test_a_kill_before_each_kind_of_file(small, whole, tmp_path):
    with states_of(tmp_path / "out", tmp_path / "killed") as states:
        kit.run_local(small, tmp_path / "out")
    check_finished(tmp_path / "out", whole)
    assert len(states) > len({kit.kind_of(name) for name in kit.files_of(whole)})
    for out in states:
        check_killed(out)
        if not prepare(small, str(out)).finished:
            kit.run_local(small, out)
        check_finished(out, whole)


def test_a_run_stopped_again_and_again(small, whole, tmp_path, monkeypatch):
    """It gets further each time."""
    stops = 0
    while not (tmp_path / "out/_SUCCESS").exists():
        stops += 1
        assert stops < len(kit.files_of(whole))
        # From the audit on all is written anew, 26 files: so many must come through in one go.
        with stop_at(monkeypatch, 4 + 8 * stops):
            kit.run_local(small, tmp_path / "out")
        check_killed(tmp_path / "out")
    check_finished(tmp_path / "out", whole)
    assert stops >= 3


# ---------------------------------------------------------------- running again


def test_an_unfinished_folder_is_its_recipes(small, tmp_path, monkeypatch):
    """Also before it is finished, a folder takes no other recipe; limits may change."""
    with stop_at(monkeypatch, 28):
        kit.run_local(small, tmp_path / "out")
    with pytest.raises(Exception, match=r"seed.*--reuse"):
        prepare(small.model_copy(update={"seed": 1}), str(tmp_path / "out"))
    assert not prepare(small.model_copy(update={"max_failed": 0.5}), str(tmp_path / "out")).finished


@pytest.mark.thorough
def test_strays_are_removed(small, whole, tmp_path):
    """Files in `tables` and `shards` that are not of this run do not stay, and are not published."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patched, stop_at(patched, 8):
        kit.run_local(small, out)
    for name in (
        "shards/00099.tar",
        "shards/00099.parquet",
        "tables/samples/00099.parquet",
        "tables/other/00000.parquet",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole / "failures.parquet", out / name)
    kit.run_local(small, out)
    check_finished(out, whole)


# ---------------------------------------------------------------- damage by others
TABLES = ("samples", "members", "matches", "decisions")


def unfinished(whole, out):
    """A copy of a run that lacks its end only."""
    shutil.copytree(whole, out)
    (out / "_SUCCESS").unlink()
    shutil.copytree(whole, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("_SUCCESS"))
    return out


@pytest.mark.thorough
def test_a_stop_before_what_is_damaged_is_made_anew(small, whole, tmp_path, monkeypatch):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    shard = out / "shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])

    def stop(folder, name, delete=RunStore.delete_file):
        delete(folder, name)
        if name == "_SUCCESS":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunStore, "delete_file", stop)
        kit.run_local(small, out)
    kit.run_local(small, out)
    assert kit.lasting_files(out) == kit.lasting_files(whole)


def refuse_second_tar(patched):
    """Let nothing open the second tar of the pool."""

    def refusing(path, storage=None):
        if path.endswith("00001.tar"):
            raise PermissionError(13, "Permission denied", path)
        return open_copy(path, storage)

    patched.setattr("curate.pool.formats.webdataset.open_copy", refusing)


@pytest.mark.thorough
def test_a_file_that_could_not_be_opened_is_tried_again(small, whole, tmp_path, monkeypatch):
    """A run in which one tar could not be opened, too much for its limit; later it can be, and nothing else changed."""
    out = tmp_path / "out"
    strict = small.model_copy(update={"max_failed_files": 0.1})

    with monkeypatch.context() as patched:
        refuse_second_tar(patched)
        with pytest.raises(RunError, match="unreadable"):
            kit.run_local(strict, out)
    kit.run_local(strict, out)
    check_finished(out, whole)
    # And over, when the first run went through without the file.
    with monkeypatch.context() as patched:
        refuse_second_tar(patched)
        partial = kit.run_local(small.model_copy(update={"max_failed_files": 0.5}), tmp_path / "partial")
    assert partial.reasons[("00001.tar", None)] == "unreadable"
    reused = kit.run_local(small, tmp_path / "reused", reuse=partial.folder)
    check_finished(reused.folder, whole)


# ---------------------------------------------------------------- reads that fail
@pytest.mark.thorough
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TimeoutError("no answer"), RuntimeError("503")])
@pytest.mark.parametrize("table", TABLES)
def test_a_failed_read_deletes_nothing(table, error, small, whole, tmp_path, monkeypatch):
    """What a file holds is not known while it cannot be read: the run ends, and goes on later from all that was there."""
    out = unfinished(whole, tmp_path / "out")
    before = {path: path.stat().st_ino for top in ("tables", "shards") for path in (out / top).rglob("*.parquet")}
    open_file = RunStore.open

    def failing(folder, name):
        if name == f"tables/{table}/00001.parquet":
            raise error
        return open_file(folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "open", failing)
        with pytest.raises((RunError, OSError), match=str(error.args[-1])):
            kit.run_local(small, out)
    assert {path: path.stat().st_ino for path in before} == before
    kit.run_local(small, out)
    assert {path: path.stat().st_ino for path in before} == before
    check_finished(out, whole)


@pytest.mark.thorough
def test_a_failed_read_hides_no_damage(small, whole, tmp_path, monkeypatch):
    """Of a published run one file is missing, and another cannot be read now."""
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (out / "shards/00000.tar").unlink()
    before = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file()}
    open_file = RunStore.open

    def failing(folder, name):
        if name == "shards/00001.tar":
            raise OSError(5, "Input/output error")
        return open_file(folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "open", failing)
        with pytest.raises((RunError, OSError), match="Input/output error"):
            kit.run_local(small, out)
    made_again = {out / "_SUCCESS", out / "run.json", *(out / "shards").glob("00000*")}
    assert all(path in made_again or path.stat().st_ino == inode for path, inode in before.items())
    kit.run_local(small, out)
    check_finished(out, whole)


@pytest.mark.thorough
def test_what_rows_changed_is_decided_again(small, whole, tmp_path, monkeypatch):
    """A finished pool that lacked a file, taken up after the file can be read, keeps the tables of the other units."""
    out = tmp_path / "out"

    with monkeypatch.context() as patched:
        refuse_second_tar(patched)
        kit.run_local(small.model_copy(update={"max_failed_files": 0.5}), out)
    (out / "_SUCCESS").unlink()
    kept = [out / f"tables/{table}/00000.parquet" for table in ("samples", "members", "matches")]
    before = [path.stat().st_ino for path in kept]
    kit.run_local(small, out)
    assert [path.stat().st_ino for path in kept] == before
    check_finished(out, whole)


@pytest.mark.thorough
def test_metadata_is_back_for_a_rerun(small, whole, tmp_path):
    """The run's copy of the metadata lies in tmp/, which a kill may have emptied."""
    out = unfinished(whole, tmp_path / "out")
    assert not (out / METADATA_FILE).exists()
    shutil.rmtree(out / "tables/matches")
    kit.run_local(small, out)
    check_finished(out, whole)
