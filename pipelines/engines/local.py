"""The local engine (the default), which is Beam's FnApiRunner in this process, and Prism.

The local engine has one worker, whose steps use threads (see `InThreads`). `direct_running_mode: multi_processing`
starts several processes. Beam's other local runners count as this engine. Prism is a program that Beam finds or
downloads; its steps run in this process, or with `environment_type: PROCESS` in processes that it starts.
"""

import ctypes
from contextlib import suppress
from typing import ClassVar

from apache_beam.options.pipeline_options import DirectOptions, PortableOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from curate.ask.costs.model import Workers
from curate.base.errors import RecipeError, reraised
from curate.base.process import CORES
from curate.run.units import WorkerLocation
from pipelines.engines.base import PipelineEngine, ancestors
from pipelines.engines.job import Job

_SAMPLING_MS = 5
_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 20  # bytes from which a freed array returns its memory to the system


class Local(PipelineEngine):
    """All cores of this machine."""

    key = "local"
    runner = "FnApiRunner"
    runners: ClassVar[set[str]] = {*StandardOptions.LOCAL_RUNNERS} - {"PrismRunner"}  # count as this engine
    defaults = ("--no_pipeline_type_check",)  # saves a quarter of a second at each start

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        return not ancestors(runner).isdisjoint(cls.runners)

    @property
    def place(self) -> WorkerLocation:
        """This process or other processes on this machine, depending on Beam's options."""
        is_one = self.options.view_as(DirectOptions).direct_running_mode != "multi_processing"
        in_threads = self.options.view_as(PortableOptions).environment_type in (None, "LOOPBACK")
        return WorkerLocation.THIS_PROCESS if is_one and in_threads else WorkerLocation.PROCESSES

    @property
    def workers(self) -> Workers:
        processes = self.options.view_as(DirectOptions).direct_num_workers or CORES
        return Workers(self.key, CORES, max(1, processes) if self.place is WorkerLocation.PROCESSES else 1)

    def set_up(self) -> None:
        """Keep large arrays out of the heap, which never shrinks, and work around problems in Beam.

        A bundle waits up to 200 ms for the thread that samples its time, in each of some forty stages. Workers that
        flush once a second may cut an element in two and lose it (apache/beam issue 21104); the default, in_memory,
        does not flush by time. The cache for side inputs measures each one by a walk over all modules.
        """
        with suppress(AttributeError):  # only glibc has it
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
        from apache_beam.runners.worker.statesampler import StateSampler

        StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)
        from apache_beam.runners.portability.fn_api_runner import worker_handlers

        worker_handlers.STATE_CACHE_SIZE_MB = 0
        if self.options.view_as(DirectOptions).direct_running_mode != "in_memory":
            worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


class Prism(Local):
    """Prism, started here or running at `job_endpoint`."""

    key = "prism"
    runner = "PrismRunner"
    runners: ClassVar[set[str]] = {"PrismRunner"}
    defaults = ("--job_server_timeout=604800",)  # seconds; after Beam's 300, the streams that follow a job would end

    @property
    def _is_ours(self) -> bool:
        return not self.options.view_as(PortableOptions).job_endpoint

    def check(self) -> None:
        if not self._is_ours:
            return
        from apache_beam.runners.portability.prism_runner import PrismJobServer

        source = "go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, for Beam's version"
        missing = f"{self.name} needs the program prism, which is missing"
        remedy = f"; accepted: --prism_location=FILE ({source})"
        with reraised(RecipeError, missing, OSError, ValueError, RuntimeError, remedy=remedy):
            PrismJobServer.local_bin(PrismJobServer(self.options).path_to_binary())

    def follow(self, result: PipelineResult) -> Job:
        """Return the job; canceling it also ends Prism."""
        return _PrismJob(self.name, result) if self._is_ours else super().follow(result)


class _PrismJob(Job):
    def stop(self, *seconds: float) -> None:
        """Cancel the job and end Prism, which Beam does only at a normal end of this process."""
        try:
            super().stop(*seconds)
        finally:
            from apache_beam.runners.portability.prism_runner import PrismRunner

            PrismRunner.shared_handle.acquire(lambda: None).stop()  # the server that the runner started
