"""Executors of a cluster are killed, in map and in reduce, where DoFns draw random keys: nothing is lost, nothing doubled."""

import os
import random
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from itertools import count

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.spark import execution, runner
from tests.pipelines.spark.contexts import stop
from tests.runners.clusters import find_executors

pytestmark = pytest.mark.runners

ELEMENTS = 100


@pytest.fixture(scope="module")
def executors(cluster):
    """The folder of a cluster of two executors; the SparkContext is active."""
    stop()
    pyspark = pytest.importorskip("pyspark")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = pyspark.SparkConf().setMaster(cluster.url).setAppName("tests").set("spark.ui.enabled", "false")
    conf.set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.executor.memory", "512m").set("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
    conf.set("spark.task.maxFailures", "20").set("spark.stage.maxConsecutiveAttempts", "20")
    conf.set("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
    context = pyspark.SparkContext(conf=conf)
    context.setLogLevel("OFF")
    yield cluster.folder
    context.stop()


def begin(folder, phase, seconds):
    """Say that an element of a phase has begun, and take some time for it."""
    (folder / f"{phase}-{uuid.uuid4().hex}").touch()
    time.sleep(seconds)


def draw(number, folder):
    """Give a number a random key."""
    begin(folder, "map", 0.005)
    yield random.randrange(40), number


def gather(pair, folder):
    """Give the numbers of a key."""
    begin(folder, "reduce", 0.02)
    yield from pair[1]


class Killer(threading.Thread):
    """Kills an executor once so many elements of a phase have begun."""

    def __init__(self, cluster, folder, phase, begun):
        super().__init__(daemon=True)
        self._cluster, self._folder, self._phase, self._begun = cluster, folder, phase, begun
        self.stop, self.has_killed = threading.Event(), False

    def run(self):
        while not self.has_killed and not self.stop.wait(0.01):
            if len(list(self._folder.glob(f"{self._phase}-*"))) < self._begun:
                continue
            if found := find_executors(self._cluster):
                with suppress(ProcessLookupError):
                    os.kill(random.choice(found), signal.SIGKILL)
                    self.has_killed = True


@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_executors_lose_and_double_nothing(rounds, executors, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_HELD", 1000)  # what stages give lies in files
    monkeypatch.setattr(execution, "_GROUPED_HERE", (10, 10))  # groups are shuffled
    exchange = tmp_path / "exchange"
    options = PipelineOptions(["--runner=pipelines.spark.SparkRunner", f"--spark_exchange={exchange}"])
    draws = random.Random(rounds)
    lost = doubled = kills = 0
    for number in count():
        if number >= rounds and kills >= rounds / 2:  # others came too late
            break
        folder, out = tmp_path / f"begun{number}", tmp_path / f"out{number}"
        folder.mkdir()
        phase = ("map", "reduce")[number % 2]
        killer = Killer(executors, folder, phase, draws.randrange(1, ELEMENTS // 2 if phase == "map" else 20))
        killer.start()
        root = beam.Pipeline(options=options)
        drawn = root | beam.Create(range(ELEMENTS)) | beam.Reshuffle() | beam.FlatMap(draw, folder)
        found = drawn | beam.GroupByKey() | beam.FlatMap(gather, folder)
        _ = found | beam.Map(str) | beam.io.WriteToText(str(out))
        try:
            root.run().wait_until_finish()
        finally:
            killer.stop.set()
            killer.join()
        kills += killer.has_killed
        lines = [int(line) for path in tmp_path.glob(f"{out.name}-*") for line in path.read_text().split()]
        lost += ELEMENTS - len(set(lines))
        doubled += len(lines) - len(set(lines))
    assert (lost, doubled) == (0, 0)
    print(f"{number} rounds, {kills} executors killed: {lost} lost, {doubled} doubled")
