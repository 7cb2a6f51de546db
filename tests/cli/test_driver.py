"""`--detach` hands a run to a driver. It outlives its shell, and users follow, kill, cancel, and continue it."""

import os
import platform
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests import kit
from tests.kit.commands import run_command
from tests.kit.range_server import Served, serving_ranges
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("interruptible")]


def wait_for(process, served, method, before=0):
    """Wait until the server gets one more request with this method."""
    wait_until(
        lambda: sum(request[0] == method for request in served.requests) > before,
        lambda: process is None or process.is_running(),
    )


@dataclass
class Handed:
    """A run whose pool is not read before `go`, and the commands about it."""

    recipe: Path
    out: Path
    served: Served
    go: threading.Event

    def run(self, *words):
        return run_command("run", str(self.recipe), "--out", str(self.out), *words)

    def status(self, *words):
        return run_command("status", str(self.out), *words)

    def cancel(self):
        return run_command("cancel", str(self.out))

    def detach(self, *words):
        """Hand the run over, and return the driver once it works."""
        before = len(self.served.gets(""))
        done = self.run("--detach", *words)
        assert done.status == 0, done.err
        assert f"curate status {self.out} --watch" in done.out and f"curate cancel {self.out}" in done.out
        number = re.search(r"runs in process (\d+)", done.out)
        assert number is not None
        driver = psutil.Process(int(number[1]))
        wait_for(driver, self.served, "GET", before)
        return driver


@pytest.fixture
def handed(tmp_path):
    kit.write_tars(tmp_path / "pool", kit.make_samples(12), 2)
    go = threading.Event()
    with serving_ranges(tmp_path / "pool", gates={"GET": go}) as served:
        source = {"name": "pool", "format": "webdataset", "path": f"{served.url}/{{00000..00001}}.tar"}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"input": source, "max_failed": 1.0}))
        yield Handed(tmp_path / "recipe.yaml", tmp_path / "run", served, go)
        go.set()


@pytest.mark.slow
def test_it_outlives_its_shell_and_is_followed_to_its_end(handed):
    driver = handed.detach()
    assert os.getsid(driver.pid) == driver.pid != os.getsid(0)
    now = handed.status()
    assert now.status == 3 and f"curate run (process {driver.pid} on " in now.out and "is at work" in now.out
    assert re.search(r"measure +0/2", now.out) and f"{handed.out}/logs/driver.log on " in now.out
    for words in ((), ("--detach",), ("--detach", "--take-over")):
        second = handed.run(*words)
        assert second.status == 1 and f"curate run (process {driver.pid} on " in second.err
    handed.go.set()
    done = handed.status("--watch")
    assert done.status == 0 and "of 18 rows are kept" in done.out
    psutil.wait_procs([driver], 300)
    assert not (handed.out / "tmp").exists()
    log = (handed.out / "logs/driver.log").read_text()
    assert "measure 2/2" in log and f"curate sql {handed.out}" in log and "Traceback" not in log
    assert "nothing differs" in run_command("verify", str(handed.out)).out
    assert "nothing is running here; the run is finished" in handed.cancel().out


@pytest.mark.slow
def test_it_is_cancelled_and_goes_on_when_run_again(handed):
    driver = handed.detach()
    record = handed.out / "tmp/lock"
    text = record.read_text()
    with open(record, "r+") as file:  # which stays locked
        file.write(text.replace(platform.node(), "x" * len(platform.node())))
    done = handed.cancel()
    assert done.status == 1 and "may still be running: its driver is on another host" in done.err
    assert f"kill {driver.pid}" in done.err and driver.is_running() and handed.status().status == 3
    with open(record, "r+") as file:
        file.write(text)
    done = handed.cancel()
    assert done.status == 0 and f"process {driver.pid} on " in done.out and "is canceled; run its recipe" in done.out
    assert not (handed.out / "tmp/lock").exists()
    now = handed.status()
    assert now.status == 1 and "nobody works on it" in now.out and "curate: interrupted" in now.out
    handed.go.set()
    assert handed.run().status == 0
    assert handed.status().status == 0


@pytest.mark.slow
def test_a_run_that_was_not_handed_over(handed):
    """`status` follows the run, but `cancel` does not end it, because its user is there."""
    command = [sys.executable, "-m", "curate", "run", str(handed.recipe), "--out", str(handed.out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(None, handed.served, "GET")
        now = handed.status()
        assert now.status == 3 and f"curate run (process {running.pid} on " in now.out
        done = handed.cancel()
        assert done.status == 1 and "runs in a terminal; press Ctrl-C there, or on " in done.err
        assert f"kill {running.pid}" in done.err and running.poll() is None
    finally:
        running.kill()
        running.wait()
    assert handed.status().status == 1 and "nothing is running here" in handed.cancel().out


@pytest.mark.slow
def test_what_is_wrong_is_said_before_it_is_handed_over(handed):
    done = handed.run("--detach", "--set", "input.0.path=none.parquet", "--set", "input.0.format=parquet")
    assert done.status == 2 and not done.out and "none.parquet: no such file" in done.err
    done = handed.run("--detach", "--", "--no_such_option=1")
    assert done.status == 2 and "no_such_option" in done.err
    assert not handed.out.exists()
    for done in (handed.status(), handed.cancel()):
        assert done.status == 2 and "no such folder; accepted: the folder of a run" in done.err


@pytest.mark.slow
def test_an_interrupt_before_it_is_handed_over_ends_the_driver(tmp_path):
    """The interrupt reaches the shell's command; the driver has its own session."""
    (tmp_path / "00000.tar").write_bytes(b"")
    (tmp_path / "recipe.yaml").write_text("")
    gate = threading.Event()
    with serving_ranges(tmp_path, gates={"HEAD": gate, "GET": gate}) as served:
        source = {"name": "pool", "format": "webdataset", "path": f"{served.url}/00000.tar"}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"input": source}))
        words = ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), "--detach"]
        running = subprocess.Popen([sys.executable, "-m", "curate", *words], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: served.requests, lambda: running.poll() is None)
        children = psutil.Process(running.pid).children()
        running.terminate()
        assert running.wait(300) == 143 and len(children) == 1
        assert not psutil.wait_procs(children, 60)[1] and not (tmp_path / "run").exists()
        gate.set()
