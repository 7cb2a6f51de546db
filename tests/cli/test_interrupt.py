"""Ctrl-C ends a command at once with status 130, and `kill` with 143. The command removes its temporary files."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.shared import interrupt, start
from tests.kit.waiting import wait_until
from tests.pipelines.engines import endless

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("interruptible")]

ROOT = Path(__file__).parents[2]
SAID = "curate: interrupted\n"
ends = pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
SLEEP = "main.main = lambda: (print('begun', flush=True), __import__('time').sleep(60))"


def started(code, *arguments, **options):
    """Start a command, and return it once it has printed `begun`."""
    running = start(code, *arguments, **options)
    assert running.stdout.readline() == "begun\n"
    return running


def test_an_interrupt_in_a_callback_is_not_dropped():
    """Python drops exceptions in callbacks; in a callback from C++, the process would abort."""
    code = """
        import ctypes, os, signal

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        def compare(a, b):
            os.kill(os.getpid(), signal.SIGINT)
            return 0

        def sort():
            ctypes.CDLL(None).qsort((ctypes.c_int * 2)(), 2, 4, compare)
            ctypes.CDLL(None).sleep(600)
            print("it goes on")

        main.main = sort
    """
    out, err = (running := start(code, "verify")).communicate(timeout=300)
    assert (running.returncode, out, err) == (130, "", SAID)


def test_an_interrupt_in_the_midst_of_a_long_call_does_not_wait():
    """Most C code does not check for signals."""
    code = """
        import hashlib

        def work():
            print("begun\\n", end="", flush=True)  # at once: two threads do
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

        main.main = work
    """
    assert interrupt(started(code, "verify")) == (130, "", SAID)  # the work takes longer than `interrupt` waits


@ends
def test_locks_and_temporary_folders_are_removed(tmp_path, number, expected):
    code = """
        import time
        from curate.base.process import temporary_folder
        from curate.store.lock import locked
        from curate.store.store import RunStore

        def work():
            with locked(RunStore(sys.argv[1]), "run"), temporary_folder() as folder:
                open(f"{folder}/large", "w").close()
                print(folder, flush=True)
                time.sleep(60)

        main.main = work
    """
    running = start(code, str(tmp_path / "run"))
    folder = Path(running.stdout.readline().strip())
    assert (folder / "large").exists() and (tmp_path / "run/tmp/lock").exists()
    assert interrupt(running, number)[0] == expected
    assert not folder.exists() and not (tmp_path / "run/tmp").exists()


def test_a_terminal_has_its_cursor_again():
    mine, terminal = pty.openpty()
    running = started(SLEEP, "run", stderr=terminal)
    assert interrupt(running)[0] == 130
    assert os.read(mine, 1000).decode().replace("\r", "") == f"\n\x1b[?25h{SAID}"
    os.close(mine)
    os.close(terminal)


def test_a_shell_gets_it_as_an_exception(finished):
    running = start("", "sql", str(finished["texts"][0]), "--shell", stdin=subprocess.PIPE)
    running.stdin.write("SELECT 'begun' AS a;\n")
    running.stdin.flush()
    while "begun" not in running.stdout.readline():
        assert running.poll() is None
    used = seconds_of(running)
    running.stdin.write("SELECT sum(hash(range) % 7) FROM range(1_000_000_000_000);\n")
    running.stdin.flush()
    wait_until(lambda: seconds_of(running) > used + 1)  # more than to read it takes
    running.send_signal(signal.SIGINT)
    assert running.stderr.readline() == "stopped\n"
    out, _ = running.communicate("SELECT 'goes on' AS b;\n", timeout=300)
    assert "goes on" in out and running.returncode == 0


def seconds_of(running):
    """Return the CPU seconds that the process used."""
    times = psutil.Process(running.pid).cpu_times()
    return times.user + times.system


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--", "--direct_num_workers=2", "--direct_running_mode=multi_threading"]])
def test_a_run_that_was_interrupted_goes_on(pool, tmp_path, options):
    code = """
        import time
        from curate.measure import unit as measuring

        def hang(*arguments):
            print("begun\\n", end="", flush=True)  # at once: two threads do
            time.sleep(60)

        if "hang" in sys.argv:
            sys.argv.remove("hang")
            measuring.measure_unit = hang
    """
    words = ["run", str(pool / "tars.yaml"), "--out", str(tmp_path / "out"), *options]
    status, out, err = interrupt(started(code, "hang", *words))
    assert status == 130 and SAID in err and "Traceback" not in err
    out, err = (running := start(code, *words)).communicate(timeout=600)
    assert running.returncode == 0 and "kept" in out


@pytest.mark.slow
@ends
def test_a_job_that_was_handed_over_is_cancelled(pool, tmp_path, number, expected):
    """Otherwise the job would continue and cost money. The message does not show Beam's error."""
    runner = f"--runner={endless.__name__}.EndlessRunner"
    words = ["run", str(pool / "texts.yaml"), "--out", str(tmp_path / "out"), "--", runner]
    running = start("", *words, env=os.environ | {endless.NOTES: str(tmp_path)}, cwd=ROOT)
    wait_until((tmp_path / "begun").exists, lambda: running.poll() is None)
    status, _, err = interrupt(running, number)
    assert status == expected and SAID in err and "Traceback" not in err, err
    assert (tmp_path / "cancelled").exists() and not (tmp_path / "out/tmp/lock").exists()


@ends
def test_what_is_finished_is_counted(tmp_path, number, expected):
    code = """
        import time
        from curate.cli.progress import show_progress
        from curate.store.store import RunStore

        def work():
            store = RunStore(sys.argv[1])
            with show_progress(store, 3):
                store.write_bytes("tables/samples/00000.parquet", b"")
                print("begun", flush=True)
                time.sleep(60)

        main.main = work
    """
    status, _, err = interrupt(started(code, str(tmp_path / "run")), number)
    assert status == expected and f"{SAID}finished: measure 1/3 units;" in err


def test_a_background_job_can_be_ended(tmp_path):
    """A shell starts it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # handed down to the process
    try:
        running = started(SLEEP, "run")
    finally:
        signal.signal(signal.SIGINT, before)
    running.send_signal(signal.SIGINT)
    assert interrupt(running, signal.SIGTERM) == (143, "", SAID)


def start_to_count(*arguments):
    """Start a command, and return it once Python has started: from then on, curate handles interrupts."""
    script = """if True:
        import sys
        from functools import partial
        from curate import __main__

        def begin(*arguments, begin):
            begin(*arguments)
            print("begun", file=sys.stderr, flush=True)

        for name in ("end_when_interrupted", "end_when_read"):
            setattr(__main__, name, partial(begin, begin=getattr(__main__, name)))
        assert "typer" not in sys.modules, "imported while nobody looks for interrupts"
        __main__.start()
    """
    running = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr and running.stderr.readline() == "begun\n"
    return running


def test_an_interrupt_while_it_imports():
    """On a busy machine, the interrupt may come later, while the command waits for a recipe that never comes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        recipe = f"http://127.0.0.1:{silent.getsockname()[1]}/recipe.yaml"
        for delay in (0, 0.02, 0.1):
            running = start_to_count("plan", recipe)
            time.sleep(delay)
            assert interrupt(running) == (130, "", "curate: interrupted\n")
