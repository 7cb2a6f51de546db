"""Any other runner of Beam's, by its name or the dotted path of its class.

Beam's own SparkRunner and FlinkRunner work by a job server, a Java program. They can be named, and are not among the
engines that curate is tested on.
"""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions, PortableOptions
from apache_beam.runners.runner import PipelineRunner

from curate.pool.plan import Unit
from curate.run.context import RunContext
from pipelines.engines.base import PipelineEngine, Report, ancestors
from pipelines.engines.programs import check_java, check_that_a_worker_starts, fetching

# Of those that have one, the option that names the jar of the job server
_JARS = {"SparkRunner": "spark_job_server_jar", "FlinkRunner": "flink_job_server_jar"}


class Beam(PipelineEngine):
    """A runner of which nothing more is known; so its workers are taken for other machines."""

    key = "beam"

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        super().__init__(options, runner)
        self.may_know_more = "PortableRunner" in ancestors(runner)  # its job server

    def check(self) -> None:
        """Raise RecipeError where the job server is missing that the runner would start."""
        if self.name not in _JARS or self.options.view_as(PortableOptions).job_endpoint:
            return
        launcher = self.options.view_as(JobServerOptions).job_server_java_launcher
        check_java(launcher, f"{self.name}, Beam's own, needs Java for its job server")
        with fetching(
            f"{self.name}, Beam's own, which curate is not tested on, needs the jar of its job server",
            f"--{_JARS[self.name]}=FILE, from Maven (org.apache.beam) in the version of Beam; "
            "--job_endpoint=HOST:PORT of a running job server; or runner: spark, which needs neither",
        ):
            from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
            from apache_beam.runners.portability.spark_runner import SparkJarJobServer

            server = {"SparkRunner": SparkJarJobServer, "FlinkRunner": FlinkJarJobServer}[self.name](self.options)
            server.local_jar(server.path_to_jar(), self.options.view_as(JobServerOptions).jar_cache_dir)

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Say which runner it is, and where. Raises RunError where workers are programs, and none starts."""
        server = self.options.view_as(PortableOptions).job_endpoint
        report(f"{self.name}{f' at {server}' if server else ''}")
        if self.may_know_more:
            check_that_a_worker_starts(self, context.store)
