"""Prism, Beam's portable engine on one machine: a program that Beam finds or downloads; steps work in this process.

With `environment_type: PROCESS` they work in processes that Prism starts.
"""

from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from curate.base.errors import RecipeError
from curate.base.wording import one_line
from pipelines.engines.base import ancestors
from pipelines.engines.job import Job
from pipelines.engines.local import Local


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

        try:
            PrismJobServer.local_bin(PrismJobServer(self.options).path_to_binary())
        except (OSError, ValueError, RuntimeError) as error:
            source = "go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, of Beam's version"
            missing = f"{self.name} needs the program prism, which is missing: {one_line(error, 500)}"
            raise RecipeError(f"{missing}; accepted: --prism_location=FILE ({source})") from None

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
