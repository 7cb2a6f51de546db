"""Whatever of a cluster is killed in the midst of a task, what is published is the same, and nothing else is left.

Whom a round is to kill is stopped first; where Spark then says that a task of it runs, it is killed, else it goes on.
"""

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from itertools import cycle, islice

import psutil
import pytest

from tests.pipelines.spark.watched import Driver, check_run, find_executors
from tests.runners.clusters import Standalone
from tests.runners.runs import curate, digests, write_demo

pytestmark = pytest.mark.runners

STAGES = 12  # of which so many pass at most before the next kill
KINDS = ("driver", "executor", "worker", "python", "master", "both")


def send(number, processes):
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def find_targets(kind, driver, executors):
    """Who is stopped, and killed: of `worker` and `master` the executor is, too, but only stopped."""
    if kind == "driver":
        python = psutil.Process(driver.process.pid)
        return [python, *python.children(recursive=True)]
    if kind == "python":
        return executors[0].pythons
    return [executor.java for executor in executors]


def hit(kind, driver, cluster):
    """Kill one of a kind while a task of it runs; return the task's stage, None where none ran."""
    executors = find_executors(cluster)
    random.shuffle(executors)
    executors = executors if kind in ("both", "driver") else executors[:1]
    if not executors or (kind == "both" and len(executors) < 2):
        return None
    targets = find_targets(kind, driver, executors)
    stopped = [process for process in targets if "java" not in process.name()] if kind == "driver" else targets
    send(signal.SIGSTOP, stopped)
    time.sleep(0.2)  # what was under way to the driver arrives
    running = driver.find_running()
    stages = [running[executor.id] for executor in executors if executor.id in running]
    if not targets or len(stages) < (2 if kind == "both" else 1):
        send(signal.SIGCONT, stopped)
        return None
    if kind in ("worker", "master"):
        name = "master" if kind == "master" else executors[0].host
        cluster.processes[name].kill()
        cluster.processes[name].wait()
        send(signal.SIGCONT, stopped)
        cluster.start(name)
    else:
        send(signal.SIGKILL, targets)
    return stages[0]


def find_left(cluster):
    """The commands of processes of runs, executors, drivers and what they began, that go on."""
    left = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        is_of_run = (process.info["cwd"] or "").startswith(str(cluster.folder)) or cluster.url in words
        if is_of_run and "org.apache.spark.deploy.worker.Worker" not in words:
            left.append(words)
    return left


def wait_for_none(cluster):
    """The processes that are left once all had time to end: a driver's Java ends some time after its Python."""
    ends = time.monotonic() + 300
    while (left := find_left(cluster)) and time.monotonic() < ends:
        time.sleep(0.2)
    return left


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_what_is_published_is_the_same(kills, tmp_path):
    pytest.importorskip("pyspark")
    recipe = write_demo(tmp_path)
    curate(recipe, tmp_path / "local")
    wanted = digests(tmp_path / "local")
    (tmp_path / "cluster").mkdir()
    cluster = Standalone(tmp_path / "cluster", recovers=True)
    hits = []
    waiting = list(islice(cycle(KINDS), kills))
    rounds = 0
    try:
        cluster.start()
        while waiting:
            rounds += 1
            driver, first = Driver(recipe, tmp_path / f"run{rounds}", cluster), random.randrange(STAGES)
            while driver.process.poll() is None:
                time.sleep(random.uniform(0.1, 0.6))
                if waiting and driver.count_ended() >= first and (stage := hit(waiting[0], driver, cluster)):
                    hits.append((waiting.pop(0), stage))
                    time.sleep(random.uniform(1, 3))
                    first = driver.count_ended() + random.randrange(STAGES)
                if driver.process.poll() == -signal.SIGKILL:
                    driver, first = Driver(recipe, driver.out, cluster), random.randrange(STAGES)
            assert driver.process.returncode == 0, driver.said
            check_run(driver.out, wanted)
        assert not wait_for_none(cluster)
    finally:
        cluster.stop()
    print(f"{kills} kills in {rounds} runs:", *(f"{kind} in {stage!r}" for kind, stage in hits), sep="\n  ")
    assert len(hits) == kills and len({stage for _, stage in hits}) >= min(kills // 5, 4)
    assert set(Counter(kind for kind, _ in hits)) == set(KINDS[:kills])
