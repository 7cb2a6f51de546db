"""The lock of a run folder: one holder at a time, and free again however the holder ends."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.base.errors import RunError
from curate.store.lock import check_unlocked, clear_tmp, locked, remove_leftovers
from curate.store.store import RunStore

HOLD = """
import sys, time
from curate.store.lock import locked
from curate.store.store import RunStore
with locked(RunStore(sys.argv[1]), "forget"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_until_it_ends_however_it_ends(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    match = rf"curate forget \(process {process.pid} on .*\) is running here; wait until it ends"
    for _ in range(2):
        with pytest.raises(RunError, match=match), locked(RunStore(str(tmp_path)), "run"):
            pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "tmp/lock").exists()
    with locked(RunStore(str(tmp_path)), "run"):
        pass


def test_a_file_that_names_a_living_process_locks_nobody_out(tmp_path):
    """After a kill, another process may have its number: in a container every command is process 1."""
    (tmp_path / "tmp").mkdir()
    for number in (os.getpid(), os.getppid()):
        (tmp_path / "tmp/lock").write_text(str(number))
        with locked(RunStore(str(tmp_path)), "run"):
            assert json.loads((tmp_path / "tmp/lock").read_text())["process"] == os.getpid()
        assert not (tmp_path / "tmp").exists()  # nothing is left of it
        (tmp_path / "tmp").mkdir()


def test_a_folder_that_is_removed_under_it(tmp_path):
    folder = RunStore(str(tmp_path))
    with locked(folder, "run"):
        folder.delete("tmp")
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize("name", ["file", "/proc/none"])
def test_a_folder_that_cannot_be(tmp_path, name):
    (tmp_path / "file").mkdir()
    (tmp_path / "file/tmp").write_text("")
    with pytest.raises(OSError, match=r"tmp|none"), locked(RunStore(str(tmp_path / name)), "run"):
        pass


def test_what_is_left_is_removed_unless_somebody_works(tmp_path):
    folder = RunStore(str(tmp_path))
    with locked(folder, "run"):
        folder.write_json("tmp/forgetting.json", {})
        remove_leftovers(folder)
        assert folder.files("tmp") == ["tmp/forgetting.json", "tmp/lock"]
    remove_leftovers(folder)
    assert not (tmp_path / "tmp").exists()
    remove_leftovers(folder)
    assert os.listdir(tmp_path) == []


def test_who_asks_who_holds_it_keeps_nobody_out(tmp_path):
    """As `curate status --watch` does while the run begins."""
    (tmp_path / "tmp").mkdir()
    asking = open(tmp_path / "tmp/lock", "w")  # noqa: SIM115
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.2, asking.close).start()
    with locked(RunStore(str(tmp_path)), "run"):
        assert asking.closed


def test_never_two_at_once(folder, monkeypatch):
    """On a disk by a lock, in an object store by a lease."""
    inside, put, one = [], RunStore._put_new, threading.Lock()

    def put_alone(*arguments):  # fsspec's memory creates a file in two steps, stores in one
        with one:
            return put(*arguments)

    monkeypatch.setattr(RunStore, "_put_new", put_alone)

    def work(number):
        try:
            with locked(folder, "run"):
                inside.append(number)
                time.sleep(0)  # lets other threads in
                assert inside == [number]
                inside.remove(number)
                if number % 3 == 0:
                    clear_tmp(folder)
        except RunError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(300))) > 1
    assert folder.files() == []


def test_what_is_cleared_is_not_the_lock(tmp_path):
    folder = RunStore(str(tmp_path))
    with locked(folder, "run"):
        folder.write_json("tmp/errors/a.json", {})
        folder.log("tmp/steps", "emit.0.1.")
        clear_tmp(folder, keep="tmp/steps")
        assert folder.read_log("tmp/steps") == ["emit.0.1."] and not folder.exists("tmp/errors/a.json")
        clear_tmp(folder)
        assert folder.files() == ["tmp/lock"]
        with pytest.raises(RunError, match="curate run"):
            check_unlocked(folder)
        (tmp_path / "tmp/lock").write_text("")  # an empty lock file is still a lock
        with pytest.raises(RunError, match="another curate command is running"):
            check_unlocked(folder)
    check_unlocked(folder)
    assert os.listdir(tmp_path) == []
