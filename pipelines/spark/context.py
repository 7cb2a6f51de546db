"""The options of `SparkRunner`, its SparkContext, and the costs of stages.

Beam parses these options together with its own. Settings in Spark's own commands and files also apply.
"""

import os
import re
import signal
import sys
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SparkRunnerOptions

_MASTERS = r"local(-cluster)?(\[.*\])?|yarn|(k8s|mesos|sc)://.+|spark://[^,/]+:\d+(,[^,/]+:\d+)*"
_EXAMPLE = "such as spark.executor.memory=4g"
_MADE_HERE = "_made_for_beam"  # an attribute of contexts
_SECRET = re.compile(r"(?i)secret|password|token|access\.?key")  # Spark's own default for what its pages and logs hide
_LOGGING = f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}"
_ONE_COMPILER = "-XX:TieredStopAtLevel=1"  # halves the JVM's CPU time


class StageCost(NamedTuple):
    """The cost of a stage, or of a grouping by key.

    Attributes:
        name: its steps.
        tasks: the number of its tasks; 0 if the driver did it.
        seconds: wall time.
        seconds_in_bundles: time inside bundles, summed over its tasks.
        bytes_shuffled: bytes of elements that were grouped by key.
        bytes_given: bytes of elements that it passed to other stages.
    """

    name: str
    tasks: int
    seconds: float
    seconds_in_bundles: float
    bytes_shuffled: int
    bytes_given: int


class SparkOptions(PipelineOptions):
    """Spark's configuration, and the folder for data between stages. `--spark_master_url` is Beam's own option."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        setting = f"a setting of Spark, {_EXAMPLE}; may be repeated"
        parser.add_argument("--spark_conf", action="append", metavar="KEY=VALUE", help=setting)
        folder = "a folder or URL that all workers can access, for data between stages"
        default = "default: temp_location, or the temporary folder if the master is on this machine"
        parser.add_argument("--spark_exchange", help=f"{folder}; {default}")

    def read_conf(self) -> dict[str, str]:
        """Return the given Spark settings, including the master. Raises ValueError if one is not usable."""
        conf = {}
        for text in self.spark_conf or ():
            key, equals, value = text.partition("=")
            if not equals or not key.startswith("spark."):
                raise ValueError(f"--spark_conf {text}: is not a Spark setting; accepted: {_EXAMPLE}")
            conf[key] = value
        gpus, of_task = (float(conf.get(f"spark.{whose}.resource.gpu.amount", 0)) for whose in ("executor", "task"))
        if of_task and gpus > max(1, of_task):  # each process keeps the GPU of its first task
            amounts = f"spark.executor.resource.gpu.amount: {gpus:g}, but spark.task.resource.gpu.amount: {of_task:g}"
            raise ValueError(f"{amounts}; accepted: the same number for both; use more executors for more GPUs")
        url = self.view_as(SparkRunnerOptions).spark_master_url
        is_named = any(str(word).partition("=")[0] == "--spark_master_url" for word in self._flags or ())
        if is_named or url != SparkRunnerOptions([]).spark_master_url:
            if not re.fullmatch(_MASTERS, url):
                accepted = "local[N], spark://HOST:PORT, yarn, or k8s://https://HOST:PORT"
                raise ValueError(f"--spark_master_url {url}: accepted: {accepted}")
            conf["spark.master"] = url
        return conf

    def find_exchange(self) -> str | None:
        """Return the folder or URL for data between stages, if one is set."""
        folder: str | None = self.spark_exchange or self.view_as(GoogleCloudOptions).temp_location
        return os.path.abspath(folder) if folder and "://" not in folder else folder


def open_context(settings: SparkOptions) -> tuple[Any, bool]:
    """Return the active SparkContext or a new one, and whether it was created here, so that the caller must stop it."""
    from pyspark import SparkConf, SparkContext

    named = settings.read_conf()
    if (active := SparkContext._active_spark_context) is not None:
        return active, getattr(active, _MADE_HERE, False)
    if submitted := "PYSPARK_GATEWAY_PORT" in os.environ:  # started by spark-submit: Java already has settings
        SparkContext._ensure_initialized()
    conf = SparkConf()
    for key, value in named.items():
        if not submitted or key != "spark.master":  # a pod uses another address for Kubernetes than a user
            conf.set(key, value)
    conf.setIfMissing("spark.master", "local[*]")
    conf.setIfMissing("spark.app.name", "beam")
    conf.setIfMissing("spark.ui.showConsoleProgress", "false")
    master = conf.get("spark.master") or ""
    if not submitted and (local := re.fullmatch(r"local(?:\[(\d+|\*)\])?", master)):  # no retries there
        conf.setMaster(master := f"local[{local[1] or 1},{conf.get('spark.task.maxFailures', '4')}]")
    if not submitted:
        java = conf.get("spark.driver.extraJavaOptions") or (_ONE_COMPILER if is_here(master) else "")
        logging = "" if "log4j" in java else _LOGGING  # unless the user configured it
        conf.set("spark.driver.extraJavaOptions", f"{java} {logging}".strip())
    if python := conf.get("spark.pyspark.python", ""):  # otherwise only spark-submit reads it
        os.environ["PYSPARK_PYTHON"] = python
    elif is_here(master) or master.startswith("spark://"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    interrupt = signal.getsignal(signal.SIGINT)
    public = SparkConf()
    public.setAll((key, value) for key, value in conf.getAll() if not is_secret(key))
    SparkContext._ensure_initialized(conf=public)  # starts Java with these settings on its command line
    spark = SparkContext(conf=conf)
    setattr(spark, _MADE_HERE, True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)  # PySpark's handler outlives the context
    return spark, True


def is_secret(key: str) -> bool:
    """Return whether a setting's value must not be in command lines, which all users of a machine can read."""
    return bool(_SECRET.search(key))


def is_here(master: str) -> bool:
    """Return whether all executors of a master are on this machine."""
    return master.startswith("local")
