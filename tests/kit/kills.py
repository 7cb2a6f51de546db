"""Kills of runs: real ones by SIGKILL, and copies of a run folder as kills would leave it."""

import os
import re
import shutil
import signal
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from curate.ask.verify import verify_run
from curate.store.store import RunStore
from tests.kit import forked
from tests.kit.runs import files_of, last_of_each_kind, lasting_files


def kill_at(files, delay, out, *arguments):
    """Run `curate` and kill it with all its processes, `delay` seconds after `out` has this many files.

    Returns whether it was still running.
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


def kill_workers(out, recipe, moments):
    """Run a recipe in one command; once `out` has this many files of a pattern, kill the processes that work for it."""
    err, killed = out.with_suffix(".err"), 0
    process = forked.start("run", recipe, "--out", out, err=err)
    command = psutil.Process(process.pid)
    for number, (pattern, files) in enumerate(moments):
        while process.is_alive() and len(list(out.glob(pattern))) < files:
            time.sleep(0.005)
        children = command.children() if process.is_alive() else []
        for child in children:
            child.send_signal((signal.SIGKILL, signal.SIGTERM)[number % 2])
        killed += len(children)
        psutil.wait_procs(children, 300)
    process.join()
    assert process.exitcode == 0, err.read_text()
    # On a crowded machine the last ones may end before they are killed.
    assert killed >= len(moments) / 2 and err.read_text().count("another one continues") >= len(moments) / 2


def count_files(out):
    """The number of files of a run folder that are in place."""
    return sum(len(files) for folder, _, files in os.walk(out) if not folder.startswith(f"{out}/tmp"))


def check_killed(out):
    """What must hold at any moment: files in place are whole, and a run with `_SUCCESS` is complete."""
    for path in out.glob("tables/**/*.parquet"):
        RunStore(str(out)).footer(str(path.relative_to(out)))
    if (out / "_SUCCESS").exists():
        assert verify_run(str(out))[1] == []


def check_finished(out, undisturbed):
    """That a run ended like the undisturbed one, with nothing left over."""
    assert lasting_files(out) == lasting_files(undisturbed)
    assert set(files_of(out)) == set(files_of(undisturbed))
    assert not (out / "tmp").exists()
    assert verify_run(str(out))[1] == []


@contextmanager
def states_of(out, into):
    """Yield a list that holds, after the block, what a kill would leave of a run in `out`.

    It has a copy of the folder as it was before the last file of each kind was put into place, or deleted.
    """
    names, states, one_at_a_time = [], [], threading.Lock()
    link, unlink = os.link, os.unlink

    def copy_and_call(name, call, *arguments, **options):
        with one_at_a_time:
            copy_state(link, out, into / f"{len(names)}")
            names.append(name)
            call(*arguments, **options)

    def copying(put):
        return lambda source, target: copy_and_call(os.path.relpath(target, out), put, source, target)

    def copying_unlink(path, **options):
        name = str(path).removeprefix(f"{out}/")
        if name == str(path) or re.match(r"tmp/(lock|[0-9a-f]{32})$", name):
            unlink(path, **options)
        else:
            copy_and_call(f"delete {name}", unlink, path, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.replace", copying(os.replace))
        patched.setattr("os.link", copying(link))
        patched.setattr("os.unlink", copying_unlink)
        yield states
    states += [into / f"{number}" for number in last_of_each_kind(names)]


def copy_state(link, folder, into):
    """Copy a folder in which other threads work; tables and shards, which are never changed in place, are linked."""
    into.mkdir(parents=True)
    for top, folders, files in os.walk(folder):
        name = os.path.relpath(top, folder)
        for one in folders:
            (into / name / one).mkdir(exist_ok=True)
        for one in files:
            with suppress(FileNotFoundError):
                (link if name.startswith(("tables", "shards")) else shutil.copyfile)(f"{top}/{one}", into / name / one)
