"""Spark 3.5 or 4, on PySpark only, through the runner `pipelines.spark`, which does not depend on curate."""

import os
import re
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState

from curate.ask.costs.model import Workers
from curate.base.errors import RecipeError, RunError, needing, reraised
from curate.base.process import CORES
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.inputs import place_inputs
from curate.run.units import WorkerLocation
from curate.store.layout import INPUTS, staged_file
from curate.store.lease import find_lease
from curate.store.store import RunStore
from pipelines.engines import spark_cluster
from pipelines.engines.base import PipelineEngine, Report
from pipelines.engines.job import Job
from pipelines.spark import SparkRunner  # the import registers its options with Beam
from pipelines.spark.context import SparkOptions, is_here, is_secret

_BETWEEN = 5000  # milliseconds between two polls for ended stages
_PICKLES = beam.coders.PickleCoder()
# Settings for Kubernetes that only refer to secrets, or whose values Spark keeps out of config maps.
_REFERENCES = re.compile(r"(?i)spark\.kubernetes\.(?!driverEnv\.)|.*file$")


class Spark(PipelineEngine):
    """Spark, with any master."""

    key = "spark"
    runner = "pipelines.spark.SparkRunner"

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        super().__init__(options, runner)
        self.name = "Spark"
        self._settings = options.view_as(SparkOptions)
        self._handle: dict[str, str] = {}
        # For the check of the executors by the driver on the cluster
        self._asked: tuple[RunContext, Sequence[Unit]] | None = None

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        """Return whether this is the runner on PySpark; Beam has one with the same name."""
        return isinstance(runner, SparkRunner)

    @property
    def place(self) -> WorkerLocation:
        is_local = is_here(self._read_conf().get("spark.master", "local"))
        return WorkerLocation.LOCAL_CLUSTER if is_local else WorkerLocation.CLUSTER

    @property
    def workers(self) -> Workers:
        """Cores from local[N], or cores and memory from the settings of executors."""
        conf = self._settings.read_conf()
        of_task, memory = int(conf.get("spark.task.cpus", 1)), None
        if local := re.fullmatch(r"local(?:\[(\d+|\*).*\])?", conf.get("spark.master", "local")):
            cores: int | None = CORES if local[1] == "*" else int(local[1] or 1)
        else:
            each, count = (int(conf.get(f"spark.executor.{key}", 0)) for key in ("cores", "instances"))
            cores = int(conf.get("spark.cores.max", 0)) or each * count or None
            sizes = [_read_gb(conf.get(f"spark.executor.{key}", "0")) for key in ("memory", "memoryOverhead")]
            memory = sum(sizes) * cores / each if cores and each and all(sizes) else None
        missing = "give spark.cores.max, or spark.executor.cores and spark.executor.instances, in spark_conf"
        processes = max(1, (cores or 1) // of_task)
        return Workers(self.key, cores, processes, memory, missing, self.overhead, self.seconds)

    def check(self) -> None:
        with needing("Spark needs another package", "'.[spark]' in a checkout of curate"):
            import pyspark
        version = pyspark.__version__
        oldest, accepted = (8, "8, 11, or 17") if version.startswith("3.") else (17, "17 or later")
        _check_java(f"Spark {version} needs Java {accepted}", oldest)
        conf = self._read_conf()
        if conf.get("spark.master") == "yarn" and not spark_cluster.find_hadoop():
            accepted = "the folder with the cluster's yarn-site.xml and core-site.xml"
            raise RecipeError(f"spark_master_url: yarn: HADOOP_CONF_DIR is not set; accepted: {accepted}")
        if self.outlasts_driver and conf["spark.master"] != "yarn":
            for key in conf:
                if is_secret(key) and not _REFERENCES.match(key):
                    risk = "Spark would write this secret into pods or config maps"
                    accepted = "spark.kubernetes.driver.secretKeyRef.NAME: SECRET:KEY"
                    raise RecipeError(f"spark_conf: {key}: {risk}; accepted: {accepted}")

    def _read_conf(self) -> dict[str, str]:
        try:
            return dict(self._settings.read_conf())
        except ValueError as error:
            raise RecipeError(str(error)) from None

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Check all current executors, and report which Spark it is. In cluster mode, the driver does this."""
        if not self.outlasts_driver:
            self.ask_executors(context, units, report)
            return
        self._asked = replace(context, recipe=place_inputs(context.recipe, context.store, INPUTS)[0]), units
        report(f"Spark at {self._read_conf()['spark.master']}, in cluster mode, where the driver checks the executors")

    def ask_executors(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Check the executors from this process."""
        from pipelines.engines.workers import PACKAGES, asking_workers, raise_faults  # these imports load
        from pipelines.spark.probe import ProbeError, probe  # all of the runner, which other engines do not need

        report("checking Spark's executors; the first one takes 10 to 30 s to start")
        exchange = self._settings.find_exchange()
        folders = [("--spark_exchange", RunStore(exchange))] if exchange else []
        with asking_workers(context, units, folders) as ask, reraised(RunError, self.name, ProbeError):
            errors = probe(self.options, PACKAGES, ask, report)
        raise_faults(errors)

    def submit(self, add_steps: Callable[[beam.Pipeline], object], store: RunStore) -> Job:
        """Submit the pipeline. Data between stages goes to the run folder, unless an option names another."""
        self._settings.spark_exchange = self._settings.find_exchange() or f"{store.url}/tmp"
        if not self.outlasts_driver:
            return super().submit(add_steps, store)
        root, holder = beam.Pipeline(options=self.options), find_lease(store)
        add_steps(root)
        pipeline = root.to_runner_api(default_environment=root.runner.default_environment(self.options))
        os.rmdir(root.local_tempdir)
        options = self.options.get_all_options(drop_default=True)
        named = {text: text.partition("=")[0] for text in options.get("spark_conf", ())}
        options["spark_conf"] = [
            text for text, key in named.items() if key != spark_cluster.MODE and not is_secret(key)
        ]
        lease = holder.id if holder else ""
        store.write_bytes(staged_file(lease), _PICKLES.encode((pipeline.SerializeToString(), options, self._asked)))
        with ExitStack() as failing:  # also if the cluster has accepted the driver
            failing.callback(store.delete_file, staged_file(lease))
            job = spark_cluster.submit(self._read_conf(), self.name_job(store), store, lease)
            failing.pop_all()
        return job

    @classmethod
    def run_staged(cls, store: RunStore, lease: str, report: Report) -> Job:
        """Start the job that `submit` staged under this lease. This runs in the driver on the cluster.

        Raises the same errors as `check_workers`.
        """
        pipeline, named, asked = _PICKLES.decode(store.read_bytes(staged_file(lease)))
        options, runner = PipelineOptions.from_dictionary(named), SparkRunner()
        engine = cls(options, runner)
        if asked:
            context, units = asked
            engine.ask_executors(context, units, report)
        return engine.follow(runner.run_portable_pipeline(beam_runner_api_pb2.Pipeline.FromString(pipeline), options))

    @property
    def outlasts_driver(self) -> bool:
        """Whether this is Spark's cluster mode: on YARN and Kubernetes, unless the settings choose client mode."""
        conf = self._read_conf()
        is_elsewhere = conf.get("spark.master", "").startswith(("yarn", "k8s://"))
        return is_elsewhere and conf.get(spark_cluster.MODE) != "client"

    def name_job(self, store: RunStore) -> Mapping[str, str]:
        """Return the handle of the job that `submit` will create, with a unique name."""
        if not self._handle:
            word = re.sub("[^a-z0-9]+", "-", store.url.rpartition("/")[2].lower()).strip("-")[:30]
            name = "-".join(filter(None, ("curate", word, uuid.uuid4().hex[:8])))
            self._handle = spark_cluster.name_job(self._read_conf(), name)
        return self._handle

    @classmethod
    def attach(cls, handle: Mapping[str, str]) -> Job:
        """Return the job for a handle: by ID, or else the latest job with its name."""
        return spark_cluster.ClusterJob(handle)

    def follow(self, result: PipelineResult) -> Job:
        return _SparkJob(self.name, result)


def _check_java(requirement: str, oldest: int) -> None:
    home = os.environ.get("JAVA_HOME")  # Spark's scripts also use it
    launcher = f"{home}/bin/java" if home else "java"
    install = "install one (a JRE is enough), and set JAVA_HOME or PATH to find it"
    missing = OSError, subprocess.CalledProcessError
    with reraised(RecipeError, f"{requirement}, but none is found", *missing, remedy=f"; {install}"):
        done = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True)
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # 1.8.0_392 is 8
    if version and int(version[1]) < oldest:
        raise RecipeError(f"{requirement}, but {launcher} is Java {version[1]}; {install}")


def _read_gb(text: str) -> float:
    """Return a size in Spark's notation, such as 8g, in GB; 0 if it is not a size."""
    size = re.fullmatch(r"(\d+)([kmgt])b?", text.lower())
    return int(size[1]) * 1024 ** ("kmgt".index(size[2]) + 1) / 1e9 if size else 0.0


class _SparkJob(Job):
    def follow(self, on_costs: Callable[[], None]) -> None:
        counted = 0
        try:
            while not PipelineState.is_terminal(self.result.wait_until_finish(_BETWEEN)):
                if len(self.result.costs) > counted:
                    counted = len(self.result.costs)
                    on_costs()
        finally:
            on_costs()
