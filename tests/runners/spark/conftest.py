"""One SparkContext for all tests of a file: to start one takes seconds."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions


def start(master: str) -> Any:
    pyspark = pytest.importorskip("pyspark")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = pyspark.SparkConf().setMaster(master).setAppName("tests")
    conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
    context = pyspark.SparkContext(conf=conf)
    context.setLogLevel("OFF")  # errors that tests provoke
    return context


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    context = start("local[2]")
    yield context
    context.stop()


@pytest.fixture
def options(spark: Any) -> PipelineOptions:
    return PipelineOptions(["--runner=pipelines.spark.SparkRunner"])


@pytest.fixture
def retrying(spark: Any) -> Iterator[Callable[[int], PipelineOptions]]:
    """Options for a context that tries a task so many times, in place of the module's: local[CORES, ATTEMPTS]."""
    spark.stop()
    contexts = []

    def begin(attempts: int) -> PipelineOptions:
        contexts.append(start(f"local[2, {attempts}]"))
        return PipelineOptions(["--runner=pipelines.spark.SparkRunner"])

    yield begin
    for context in contexts:
        context.stop()


def workers(older: float) -> list[int]:
    """The Python processes of executors, so many seconds old, below this one: children of PySpark's daemon, which forks."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            is_worker = "pyspark.daemon" in child.cmdline() and "pyspark.daemon" in child.parent().cmdline()
            if is_worker and time.time() - child.create_time() > older:
                found.append(child.pid)
    return found
