"""What a SparkContext says that was made by options."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.runners

FAILING = """
from apache_beam.options.pipeline_options import PipelineOptions
from pipelines.spark.context import SparkOptions, open_context, quietly

def fail(number):
    try:
        raise OSError("inner")
    except OSError as error:
        raise RuntimeError("503 of a store") from error

words = ["--spark_master_url=local[1, 2]", "--spark_conf=spark.ui.enabled=false"]
context, is_new = open_context(PipelineOptions(words).view_as(SparkOptions))
with quietly(context._jvm, ["org.apache.spark.scheduler.TaskSetManager"]):
    pass
try:
    context.parallelize([1], 1).map(fail).collect()
except Exception:
    context.stop()
"""


def test_a_lost_task_is_a_line() -> None:
    """With Python's last error, and no trace of Python or Java; after the logs were off, too."""
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "\tat " not in done.stderr
    (lost,) = re.findall(r"WARN TaskSetManager: Lost task .*", done.stderr)
    assert lost.endswith("): RuntimeError: 503 of a store")
    assert re.findall(r"ERROR TaskSetManager: .* failed 2 times; aborting job", done.stderr)
