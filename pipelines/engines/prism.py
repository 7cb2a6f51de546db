"""Prism, Beam's portable engine on one machine: a program that Beam finds or downloads; steps work in this process.

With `environment_type: PROCESS` they work in processes that Prism starts.
"""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineResult

from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.place import Place
from pipelines.engines.base import PipelineEngine, Report
from pipelines.engines.job import BeamJob, Job
from pipelines.engines.local import end_bundles_at_once, find_place
from pipelines.engines.portable import check_that_a_worker_starts
from pipelines.engines.programs import fetch_program


class Prism(PipelineEngine):
    """Prism, started here, or at `job_endpoint`."""

    key = "prism"
    runner = "PrismRunner"
    defaults = ("--job_server_timeout=604800",)  # seconds: of Beam's 300, the streams end by which it follows a job

    @property
    def place(self) -> Place:
        """This process, or others of this machine."""
        return find_place(self.options)

    @property
    def _is_ours(self) -> bool:
        return not self.options.view_as(PortableOptions).job_endpoint

    def set_up(self) -> None:
        """Work around a fault of Beam's workers."""
        end_bundles_at_once()

    def check(self) -> None:
        """Raise RecipeError where the program is not there, and cannot be downloaded."""
        if not self._is_ours:
            return
        from apache_beam.runners.portability.prism_runner import PrismJobServer

        fetch_program(
            lambda: PrismJobServer.local_bin(PrismJobServer(self.options).path_to_binary()),
            f"{self.name} needs the program prism",
            "--prism_location=FILE (go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, "
            "of Beam's version)",
        )

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Raise RunError where workers are programs, and none starts."""
        check_that_a_worker_starts(self, context.store)

    def follow(self, result: PipelineResult) -> Job:
        """Return the job, which ends Prism too where it is cancelled."""
        return _PrismJob(self.name, result) if self._is_ours else super().follow(result)


class _PrismJob(BeamJob):
    def stop(self) -> None:
        """Cancel the job, and end the program: Beam would at a normal end of this process."""
        try:
            super().stop()
        finally:
            from apache_beam.runners.portability.prism_runner import PrismRunner

            PrismRunner.shared_handle.acquire(lambda: None).stop()  # the server that the runner has started
