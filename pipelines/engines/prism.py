"""Prism, Beam's portable engine on one machine: a program that Beam finds or downloads; steps work in this process.

With `environment_type: PROCESS` they work in processes that Prism starts.
"""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from curate.pool.plan import Unit
from curate.run.context import RunContext
from pipelines.engines.base import Report, ancestors
from pipelines.engines.job import Job
from pipelines.engines.local import Local
from pipelines.engines.programs import check_that_a_worker_starts, fetching


class Prism(Local):
    """Prism, started here, or at `job_endpoint`."""

    key = "prism"
    runner = "PrismRunner"
    defaults = ("--job_server_timeout=604800",)  # seconds: of Beam's 300, the streams end by which it follows a job

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        return cls.runner in ancestors(runner)

    @property
    def _is_ours(self) -> bool:
        return not self.options.view_as(PortableOptions).job_endpoint

    def check(self) -> None:
        if not self._is_ours:
            return
        from apache_beam.runners.portability.prism_runner import PrismJobServer

        source = "go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, of Beam's version"
        with fetching(f"{self.name} needs the program prism", f"--prism_location=FILE ({source})"):
            PrismJobServer.local_bin(PrismJobServer(self.options).path_to_binary())

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        check_that_a_worker_starts(self, context.store)

    def follow(self, result: PipelineResult) -> Job:
        """Return the job, which ends Prism too where it is cancelled."""
        return _PrismJob(self.name, result) if self._is_ours else super().follow(result)


class _PrismJob(Job):
    def stop(self, *seconds: float) -> None:
        """Cancel the job, and end the program: Beam would at a normal end of this process."""
        try:
            super().stop(*seconds)
        finally:
            from apache_beam.runners.portability.prism_runner import PrismRunner

            PrismRunner.shared_handle.acquire(lambda: None).stop()  # the server that the runner has started
