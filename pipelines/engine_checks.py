"""What an engine needs on this machine before anything is planned: packages, Java, a job server. Errors say how to get it.

Beam's own SparkRunner and FlinkRunner work by a job server, a Java program. They can be named, and are not among the engines
that curate is tested on.
"""

import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions, PortableOptions

from curate.base.errors import RecipeError, needing
from curate.base.wording import one_line
from curate.store.store import RunStore
from pipelines.spark.options import SparkOptions

_JOB_SERVERS = {
    "SparkRunner": "spark_job_server_jar",
    "FlinkRunner": "flink_job_server_jar",
}  # by an option that names it


def check_engine(runner: str, options: PipelineOptions) -> None:
    """Raise RecipeError where something is missing without which the runner cannot take a job, or a setting of Spark is none."""
    if runner == "DataflowRunner":
        with needing("Dataflow needs more packages", "'.[gcp]' in a checkout of curate"):
            from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient  # noqa: F401
    elif runner == "spark":
        with needing("Spark needs another package", "'.[spark]' in a checkout of curate"):
            import pyspark
        version = pyspark.__version__
        home = os.environ.get("JAVA_HOME")  # as Spark's own scripts find it
        least, accepted = (8, "8, 11 or 17") if version.startswith("3.") else (17, "17 or later")
        _check_java(f"{home}/bin/java" if home else "java", f"Spark {version} needs Java {accepted}", least)
        try:
            options.view_as(SparkOptions).read_conf()
        except ValueError as error:
            raise RecipeError(str(error)) from None
    elif runner == "PrismRunner" and not options.view_as(PortableOptions).job_endpoint:
        _fetch(
            lambda: _find_prism(options),
            f"{runner} needs the program prism",
            "--prism_location=FILE (go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, of Beam's version)",
        )
    elif runner in _JOB_SERVERS and not options.view_as(PortableOptions).job_endpoint:
        launcher = options.view_as(JobServerOptions).job_server_java_launcher
        _check_java(launcher, f"{runner}, Beam's own, needs Java for its job server")
        _fetch(
            lambda: _find_jar(runner, options),
            f"{runner}, Beam's own, which curate is not tested on, needs the jar of its job server",
            f"--{_JOB_SERVERS[runner]}=FILE, from Maven (org.apache.beam) in the version of Beam; "
            "--job_endpoint=HOST:PORT of a running job server; or runner: spark, which needs neither",
        )


def check_folder(runner: str, folder: RunStore) -> None:
    """Raise RecipeError where no worker of the runner could see the run's folder."""
    if runner == "DataflowRunner" and folder.is_local:
        raise RecipeError(
            f"--out {folder.url}: is on this machine, and Dataflow's workers are not; accepted: gs://BUCKET/…"
        )


def _check_java(launcher: str, needed: str, least: int = 0) -> None:
    """Raise RecipeError where there is no Java, or one before version `least`."""
    install = "install one (a JRE is enough), and set JAVA_HOME or PATH to find it"
    try:
        done = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RecipeError(f"{needed}, but none is found: {one_line(error, 200)}; {install}") from None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # 1.8.0_392 is 8
    if found and int(found[1]) < least:
        raise RecipeError(f"{needed}, but {launcher} is Java {found[1]}; {install}")


def _find_prism(options: PipelineOptions) -> None:
    """Let Beam find or download prism."""
    from apache_beam.runners.portability.prism_runner import PrismJobServer

    PrismJobServer.local_bin(PrismJobServer(options).path_to_binary())


def _find_jar(runner: str, options: PipelineOptions) -> None:
    """Let Beam find or download a job server."""
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    server = {"SparkRunner": SparkJarJobServer, "FlinkRunner": FlinkJarJobServer}[runner](options)
    server.local_jar(server.path_to_jar(), options.view_as(JobServerOptions).jar_cache_dir)


def _fetch(find: Callable[[], Any], needed: str, accepted: str) -> None:
    try:
        find()
    except Exception as error:  # of Beam's downloads: of many kinds
        raise RecipeError(f"{needed}, which is missing: {one_line(error, 500)}; accepted: {accepted}") from None
