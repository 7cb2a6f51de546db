"""The SparkContext that tests of a process share."""

import os
import sys

import pytest


def start(master):
    pyspark = pytest.importorskip("pyspark")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    conf = pyspark.SparkConf().setMaster(master).setAppName("tests")
    conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
    context = pyspark.SparkContext(conf=conf)
    context.setLogLevel("OFF")  # errors that tests provoke
    return context


def stop():
    """Stop the context that is active, if there is one."""
    if (pyspark := sys.modules.get("pyspark")) and (active := pyspark.SparkContext._active_spark_context):
        active.stop()
