"""One SparkContext for all tests of a file: to start one takes seconds."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip("pyspark")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = pyspark.SparkConf().setMaster("local[2]").setAppName("tests")
    conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    context = pyspark.SparkContext(conf=conf)
    context.setLogLevel("OFF")  # errors that tests provoke
    yield context
    context.stop()


@pytest.fixture
def options(spark: Any) -> PipelineOptions:
    return PipelineOptions(["--runner=pipelines.spark.SparkRunner"])
