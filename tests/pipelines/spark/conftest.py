"""One SparkContext for all tests that ask for none of their own: to start one, and its workers' imports, takes seconds."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from tests.pipelines.spark.contexts import start, stop
from tests.runners.conftest import checkout_first, cluster  # noqa: F401


@pytest.fixture(scope="session")
def stopped():
    """In the end no context is left."""
    yield
    stop()


@pytest.fixture
def spark(stopped):
    """The active context, which is started where there is none."""
    return pytest.importorskip("pyspark").SparkContext._active_spark_context or start("local[2]")


@pytest.fixture
def options(spark):
    return PipelineOptions(["--runner=pipelines.spark.SparkRunner"])


@pytest.fixture
def retrying():
    """Options for a context that tries a task so many times, in place of all tests': local[CORES, ATTEMPTS]."""

    def begin(attempts):
        stop()
        start(f"local[2, {attempts}]")
        return PipelineOptions(["--runner=pipelines.spark.SparkRunner"])

    yield begin
    stop()
