"""`curate run` survives its worker process: it names the process that died, and starts another one, which continues."""

import signal

import psutil
import pytest

from curate.base.errors import RunError
from curate.store.lock import find_holder, locked
from curate.store.store import RunStore
from tests.cli.shared import interrupt, start
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("interruptible")]

# A command that does `work(number)` in place of a run, in the process of this number.
COMMAND = """
import os, signal, subprocess, sys, time
from pathlib import Path
from curate.cli.supervise import Supervisor

def begin():
    number = Supervisor.current.total
    print(f"process {number} of {Supervisor.current.process}", flush=True)
    work(number)

main.main = begin
"""


def command(body, *arguments, **options):
    return start(f"{COMMAND}\n{body}", "run", *arguments, **options)


def result(running):
    out, err = running.communicate(timeout=600)
    return running.returncode, out, err


@pytest.mark.parametrize(
    ("death", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"), ("os.kill(os.getpid(), signal.SIGTERM)", "signal 15"),
        ("os.abort()", "signal 6"), ("os._exit(3)", "status 3"), ("os._exit(0)", "status 0"),
    ],
)  # fmt: skip
def test_the_next_process_continues(death, text):
    running = command(f"def work(number):\n    if number < 2: {death}\n    sys.exit(4)")
    status, out, err = result(running)
    assert status == 4 and out.splitlines() == [f"process {number} of {running.pid}" for number in range(3)]
    assert err.count(text) == err.count("; another one continues\n") == 2


@pytest.mark.parametrize(
    ("end", "expected"), [("pass", 0), ("sys.exit()", 0), ("sys.exit(2)", 2), ("1 / 0", 1), ("raise MemoryError", 1)]
)
def test_what_ends_by_itself_is_the_end(end, expected):
    status, out, err = result(command(f"def work(number):\n    {end}"))
    assert status == expected and out.count("process") == 1 and "another one" not in err


def test_it_gives_up():
    status, out, err = result(command("def work(number): os._exit(5)"))
    assert status == 1 and out.count("process") == 7 and err.count("another one continues") == 6
    progress = "def work(number):\n    if number == 5: Supervisor.current.send(deaths=1)\n    os._exit(5)"
    assert result(command(progress))[1].count("process") == 11, "after progress, deaths are counted from 1"


def test_an_engine_of_its_own_is_not_supervised():
    body = "def work(number):\n    Supervisor.current.send(is_supervised=False)\n    os.abort()"
    status, out, err = result(command(body))
    assert status == 128 + signal.SIGABRT and out.count("process") == 1 and not err


# Starts a process in its own session, which inherits the socket, and waits.
GRANDCHILD = """
def work(number):
    if number and "once" in sys.argv:
        return
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(1)
        os.close(2)
        time.sleep(600)
    print(os.getpid(), child, flush=True)
    time.sleep(600)
"""


def started(running):
    """Return the child and the grandchild, once they have started."""
    assert running.stdout.readline().startswith("process 0 of ")
    return [psutil.Process(int(number)) for number in running.stdout.readline().split()]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_both(number, expected):
    running = command("def work(number):\n    print(os.getpid(), flush=True)\n    time.sleep(600)")
    [child] = started(running)
    status, _, err = interrupt(running, number)
    assert status == expected and err == "curate: interrupted\n" and not child.is_running()


@pytest.mark.slow
def test_the_second_interrupt_does_not_wait():
    body = GRANDCHILD.replace("def work", "from curate.base import process\n\ndef work").replace(
        "    print(os", "    process.at_interrupt(lambda: print('ending', flush=True) or time.sleep(600))\n    print(os"
    )
    running = command(body)
    processes = started(running)
    running.send_signal(signal.SIGTERM)
    assert running.stdout.readline() == "ending\n"
    assert interrupt(running)[0] == 143 and not psutil.wait_procs(processes, 300)[1]


@pytest.mark.slow
def test_all_end_with_the_command():
    """A killed command cannot signal its processes."""
    running = command(GRANDCHILD)
    processes = started(running)
    running.kill()
    assert not psutil.wait_procs(processes, 300)[1]
    running.communicate()


@pytest.mark.slow
def test_what_a_dead_process_has_started_ends():
    """Otherwise it could hold what the next process needs, such as the memory of a GPU."""
    running = command(GRANDCHILD, "once")
    child, grandchild = started(running)
    child.kill()
    status, _, err = result(running)
    assert status == 0 and "signal 9" in err and not psutil.wait_procs([grandchild], 300)[1]


@pytest.fixture(scope="module")
def bucket():
    with serving_s3() as url, bucket_at(url) as bucket:
        yield bucket


# Locks a folder. Then the first process dies; the second one waits for a file before it locks the folder.
FOLDER = """
from curate.cli.run import CommandKeeper
from curate.store.lock import locked
from curate.store.store import RunStore

def work(number):
    store, go = RunStore(sys.argv[2]), Path(sys.argv[3])
    while number and not go.exists():
        time.sleep(0.01)
    with locked(store, "run", keeper=CommandKeeper()) as hold:
        print("held", hold.holder.id, flush=True)
        if number < 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.slow)])
def test_nobody_gets_in_between(place, tmp_path, request):
    """The command keeps its lock or lease, and a second command names the first one's process."""
    url = str(tmp_path / "run") if place == "local" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    store, go = RunStore(url), tmp_path / "go"
    running = command(FOLDER, url, str(go))
    lines = [running.stdout.readline() for _ in range(3)]
    assert lines[2] == f"process 1 of {running.pid}\n"
    with (
        pytest.raises(RunError, match=rf"curate run \(process {running.pid} on .*\) is running here"),
        locked(store, "run"),
    ):
        pass
    go.touch()
    status, out, err = result(running)
    assert status == 0 and out.count(lines[1]) == 2, err
    assert find_holder(store) is None and not store.files("tmp")


def test_who_holds_it_says_how_often_a_process_died(tmp_path):
    go = tmp_path / "go"
    go.touch()
    body = FOLDER.replace("if number < 2:", "if number == 2: time.sleep(600)\n        else:")
    running = command(body, str(tmp_path / "run"), str(go))
    store = RunStore(str(tmp_path / "run"))
    wait_until(lambda: bool((holder := find_holder(store)) and holder.died.startswith("2 processes died")))
    running.kill()
    running.communicate()
    wait_until(lambda: find_holder(store) is None)
