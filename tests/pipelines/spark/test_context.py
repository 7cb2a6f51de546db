"""What a SparkContext says that was made by options."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.runners

FAILING = """
from apache_beam.options.pipeline_options import PipelineOptions
from pipelines.spark.context import SparkOptions, open_context

def fail(number):
    try:
        raise OSError("inner")
    except OSError as error:
        raise RuntimeError("503 of a store") from error

words = ["--spark_master_url=local[1, 2]", "--spark_conf=spark.ui.enabled=false"]
context, is_new = open_context(PipelineOptions(words).view_as(SparkOptions))
try:
    context.parallelize([1], 1).map(fail).collect()
except Exception:
    context.stop()
"""


SUBMITTED = """
from apache_beam.options.pipeline_options import PipelineOptions
from pipelines.spark.context import SparkOptions, open_context

words = ["--spark_master_url=k8s://https://outside:6443", "--spark_conf=spark.ui.enabled=false"]
context, is_new = open_context(PipelineOptions(words).view_as(SparkOptions))
print("this is", context.appName, "at", context.master, is_new)
context.stop()
"""


def test_where_spark_submit_began_it(tmp_path):
    """Its name and master hold: on Kubernetes it gives the driver another address of the same cluster."""
    (tmp_path / "driver.py").write_text(SUBMITTED)
    program = Path(pytest.importorskip("pyspark").__file__).parent / "bin/spark-submit"
    words = ["--master", "local[1]", "--name", "mine", str(tmp_path / "driver.py")]
    variables = os.environ | {"PYSPARK_PYTHON": sys.executable}
    done = subprocess.run([str(program), *words], env=variables, capture_output=True, text=True, check=False)
    assert "this is mine at local[1] True" in done.stdout, done.stderr


def test_a_lost_task_is_a_line():
    """With Python's last error, and no trace of Python or Java."""
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "\tat " not in done.stderr
    (lost,) = re.findall(r"WARN TaskSetManager: Lost task .*", done.stderr)
    assert lost.endswith("): RuntimeError: 503 of a store")
    assert re.findall(r"ERROR TaskSetManager: .* failed 2 times; aborting job", done.stderr)
