"""What a process uses, by the step at work."""

import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest

import curate.base.compiling  # noqa: F401
from curate.base.meter import CPU, ENGINE, METER, START, Meter
from curate.base.process import ModelPool


@pytest.fixture
def clock(monkeypatch):
    """The CPU seconds of this process, which the test sets."""
    seconds = [1.0]
    monkeypatch.setattr(time, "process_time", lambda: seconds[0])
    return seconds


def test_blocks_have_their_own_part_and_the_engine_the_rest(clock):
    meter = Meter()
    clock[0] = 3.0
    with meter.at("emit") as outer:
        clock[0] = 4.0
        with meter.at("measure") as inner:
            clock[0] = 7.0
            meter.count("reads")
        clock[0] = 7.5
        meter.count("reads", 2)
    clock[0] = 8.0
    used = meter.take()
    assert (outer.cpu, inner.cpu) == (1.5, 3.0) and (used["emit", "reads"], used["measure", "reads"]) == (2, 1)
    assert (used[ENGINE, CPU], used["emit", CPU], used["measure", CPU]) == (3.5, 1.5, 3.0)
    with pytest.raises(ValueError), meter.at("emit"):
        raise ValueError
    clock[0] = 9.0
    assert meter.take()[ENGINE, CPU] == 1.0  # since the last time: an error ends a block


def test_steps_at_once_share(clock):
    meter, entered, leave = Meter(), threading.Event(), threading.Event()

    def other():
        with meter.at("match"):
            entered.set()
            leave.wait(300)

    with meter.at("measure"):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(300)
        clock[0] = 5.0
        leave.set()
        thread.join(300)
        clock[0] = 6.0
    used = meter.take()
    assert (used["match", CPU], used["measure", CPU]) == (2.0, 3.0)
    assert sum(value for (_, kind), value in used.items() if kind == CPU) == 6.0


FORKS = """
import os
from curate.base.meter import ENGINE, METER
with METER.at("measure"):
    if (child := os.fork()) == 0:
        METER.count("reads")
        os._exit({step for step, _ in METER.take()} != {ENGINE})
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_begins_anew():
    """In a process of its own: in that of the tests, libraries have threads."""
    assert subprocess.run([sys.executable, "-c", FORKS], check=False).returncode == 0


@pytest.mark.parametrize(("device", "is_counted"), [("cuda:0", True), ("cpu", False)])
def test_a_model_that_is_used_keeps_its_gpu(device, is_counted):
    METER.take()
    with METER.at("measure"), ModelPool(lambda device: [device], lambda: [device]).use() as model:
        assert model == [device]
        time.sleep(0.05)
    assert (METER.take()["measure", "gpu"] >= 0.05) == is_counted


def test_compiling_is_no_part_of_the_step_that_waits_for_it():
    METER.take()
    before = METER.compiling

    @numba.njit
    def kernel(n):
        return np.sqrt(n) % 7.0

    with METER.at("measure") as block:
        kernel(1.0)
    compiling = METER.compiling - before
    assert compiling > 10 * block.cpu > 0
    assert METER.take()[START, CPU] == pytest.approx(compiling, rel=0.1)
