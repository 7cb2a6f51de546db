"""The runner as a guest of Spark: what it refuses, errors, counters, cancelling, what passes through files, and what kills cost."""

import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.userstate import BagStateSpec

from curate.base import process
from pipelines.spark import execution, runner

pytestmark = pytest.mark.runners


class Wrong(Exception):
    permanent = True

    def __init__(self, text, number):
        super().__init__(text)
        self.number = number

    def __reduce__(self):
        return type(self), (str(self), self.number)


class Unpicklable(Wrong):
    def __reduce__(self):
        raise TypeError("not me")


def count_calls(folder):
    (folder / uuid.uuid4().hex).touch()


@pytest.mark.parametrize(("kind", "raised"), [(Wrong, Wrong), (Unpicklable, RuntimeError), (ValueError, RuntimeError)])
def test_errors(options, tmp_path, kind, raised):
    """What is permanent is raised as it was, and nobody tried it twice; all else as Python's traceback."""

    def fail(number):
        count_calls(tmp_path)
        raise kind("no good", number) if issubclass(kind, Wrong) else kind("no good")

    root = beam.Pipeline(options=options)
    _ = root | beam.Create([7]) | "Fail here" >> beam.Map(fail)
    result = root.run()
    with pytest.raises(raised, match="no good") as found:
        result.wait_until_finish()
    assert result.state == PipelineState.FAILED
    assert len(list(tmp_path.iterdir())) == 1  # a local master tries nothing again; a cluster's does
    text = str(found.value)
    assert raised is not Wrong or found.value.number == 7
    assert [part in text for part in ("Traceback", "Fail here")] == [kind is ValueError] * 2
    assert "org.apache.spark" not in text


def test_of_several_tasks_that_fail_all_are_raised(options):
    def fail_some(number):
        if number in (1, 6):
            raise Wrong(f"no {number}", number) if number == 1 else ValueError(f"no {number}")
        return number

    root = beam.Pipeline(options=options)
    _ = root | beam.Create(range(8)) | beam.Reshuffle() | beam.Map(fail_some)
    with pytest.raises(ExceptionGroup, match="2 tasks failed") as found:
        root.run().wait_until_finish()
    assert [re.findall(r"no \d", str(error))[-1] for error in found.value.exceptions] == ["no 1", "no 6"]


def test_an_error_while_a_permanent_one_is_handled_is_not_permanent(options):
    def fail(number):
        try:
            raise Wrong("no good", number)
        except Wrong:
            raise OSError("which may pass")  # noqa: B904

    root = beam.Pipeline(options=options)
    _ = root | beam.Create([7]) | beam.Map(fail)
    with pytest.raises(RuntimeError, match="which may pass"):
        root.run().wait_until_finish()


class Stateful(beam.DoFn):
    BAG = beam.DoFn.StateParam(BagStateSpec("bag", beam.coders.VarIntCoder()))

    def process(self, pair, bag=BAG):
        yield pair


class Finalizing(beam.DoFn):
    def process(self, element, final=beam.DoFn.BundleFinalizerParam):
        final.register(lambda: None)
        yield element


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (beam.Create([1]) | beam.Map(lambda n: (n, n)) | beam.ParDo(Stateful()), "state and timers"),
        (beam.Create([1]) | beam.ParDo(Finalizing()), "bundle finalization"),
        (PeriodicImpulse(fire_interval=1), r"unbounded collection, as in streaming \(PeriodicImpulse"),
    ],
)
def test_refused_before_anything_runs(options, step, named):
    root = beam.Pipeline(options=options)
    _ = root | step
    with pytest.raises(NotImplementedError, match=named):
        root.run()


def test_counters(options):
    root = beam.Pipeline(options=options)

    def count(number):
        Metrics.counter("test", "numbers").inc()
        return number

    numbers = root | beam.Create(range(100)) | beam.Reshuffle() | "Count" >> beam.Map(count)
    _ = numbers | "Again" >> beam.Reshuffle() | "After" >> beam.Map(count)
    result = root.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_name("numbers"))["counters"]
    assert {metric.key.step: metric.committed for metric in found} == {"Count": 100, "After": 100}


def test_a_step_learns_how_many_cores_are_its_own(options):
    with beam.Pipeline(options=options) as root:
        found = root | beam.Create([1]) | beam.Map(lambda _: (os.environ["SPARK_TASK_CPUS"], process.CORES))
        assert_that(found, equal_to([("1", 1)]))


def test_waiting_and_cancelling(options, tmp_path):
    root = beam.Pipeline(options=options)
    slow = root | beam.Create([1]) | beam.Map(lambda number: count_calls(tmp_path) or time.sleep(600))
    _ = slow | beam.Reshuffle() | "Never" >> beam.Map(lambda number: count_calls(tmp_path))
    result = root.run()
    began = time.monotonic()
    assert result.wait_until_finish(duration=300) == PipelineState.RUNNING
    while not list(tmp_path.iterdir()):
        time.sleep(0.1)
    assert result.cancel() == PipelineState.CANCELLED == result.wait_until_finish() == result.state
    assert time.monotonic() - began < 300
    assert len(list(tmp_path.iterdir())) == 1


def test_large_collections_pass_through_files(options, tmp_path, monkeypatch):
    """As main and side inputs, and in groups that a shuffle makes; the files are gone afterwards."""
    monkeypatch.setattr(runner, "_HELD", 1000)
    monkeypatch.setattr(execution, "_GROUPED_HERE", (10, 10))
    exchange = tmp_path / "exchange"
    options = PipelineOptions(["--runner=pipelines.spark.SparkRunner", f"--spark_exchange={exchange}"])
    seen = []

    def see(n):
        (tmp_path / "seen").write_text("\n".join(map(str, exchange.rglob("*"))))
        return n

    root = beam.Pipeline(options=options)
    with root:
        texts = root | beam.Create(range(500)) | beam.Reshuffle() | beam.Map(lambda n: (n % 7, str(n) * 100))
        sizes = texts | beam.GroupByKey() | beam.MapTuple(lambda key, found: (key, sum(map(len, found))))
        expected = Counter[int]()
        for number in range(500):
            expected[number % 7] += len(str(number)) * 100
        assert_that(sizes, equal_to(list(expected.items())))
        total = (
            root
            | "One" >> beam.Create([0])
            | beam.Map(lambda zero, found: see(zero) + sum(len(text) for _, text in found), beam.pvalue.AsIter(texts))
        )
        assert_that(total, equal_to([sum(expected.values())]), label="Side")
    costs = {cost.name: cost for cost in root.result.costs}
    grouped = max((cost for cost in costs.values() if cost.tasks), key=lambda cost: cost.bytes_shuffled)
    assert grouped.bytes_shuffled > sum(expected.values()) and grouped.bytes_given > sum(expected.values())
    assert all(cost.seconds > 0 for cost in costs.values())
    seen = [Path(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) > 2
    assert not list(exchange.rglob("*"))


def test_what_a_killed_driver_left_is_swept(options, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left = tmp_path / f"beam-spark-{host}-{ended.pid}-{'0' * 32}"
    other = tmp_path / f"beam-spark-{host}-{os.getpid()}-{'0' * 32}"
    for folder in (left, other):
        folder.mkdir()
        (folder / "file").touch()
    options = PipelineOptions(["--runner=pipelines.spark.SparkRunner", f"--spark_exchange={tmp_path}"])
    with beam.Pipeline(options=options) as root:
        _ = root | beam.Create([1])
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_what_may_pass_is_tried_four_times(tmp_path, retrying):
    """As Spark does where nobody says otherwise; what is permanent, once."""
    options = retrying(4)
    for kind, calls in ((Wrong, 1), (ValueError, 4)):
        folder = tmp_path / kind.__name__
        folder.mkdir()

        def fail(number, kind=kind, folder=folder):
            count_calls(folder)
            raise kind("no good", number)

        root = beam.Pipeline(options=options)
        _ = root | beam.Create([7]) | beam.Map(fail)
        with pytest.raises((Wrong, RuntimeError), match="no good"):
            root.run().wait_until_finish()
        assert len(list(folder.iterdir())) == calls
