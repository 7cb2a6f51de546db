"""The local engine, the default: Beam's FnApiRunner in this process, with one worker, whose steps have threads; Prism.

See `InThreads`. `direct_running_mode: multi_processing` has several processes. Beam's other runners that work on
this machine count as this one. Prism is a program that Beam finds or downloads; its steps work in this process, or with
`environment_type: PROCESS` in processes that it starts.
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
_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 20  # bytes of an array that is given back once it is freed


class Local(PipelineEngine):
    """This machine with all its cores."""

    key = "local"
    runner = "FnApiRunner"
    runners: ClassVar[set[str]] = {*StandardOptions.LOCAL_RUNNERS} - {"PrismRunner"}  # of Beam, that count as this one
    defaults = ("--no_pipeline_type_check",)  # of our own steps: a quarter of a second, at each start

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        return not ancestors(runner).isdisjoint(cls.runners)

    @property
    def place(self) -> WorkerLocation:
        """This process, or others of this machine, by Beam's own options."""
        is_one = self.options.view_as(DirectOptions).direct_running_mode != "multi_processing"
        in_threads = self.options.view_as(PortableOptions).environment_type in (None, "LOOPBACK")
        return WorkerLocation.THIS_PROCESS if is_one and in_threads else WorkerLocation.PROCESSES

    @property
    def workers(self) -> Workers:
        processes = self.options.view_as(DirectOptions).direct_num_workers or CORES
        return Workers(self.key, CORES, max(1, processes) if self.place is WorkerLocation.PROCESSES else 1)

    def set_up(self) -> None:
        """Keep large arrays out of the heap, which never shrinks; work around faults of Beam's.

        A bundle waits for the thread that samples where its time goes: 200 ms at most, in each of some forty stages.
        What workers send once a second may end within an element, which is then lost (apache/beam issue 21104); in
        memory, the default, nothing is sent by time. A cache of side inputs weighs each by a walk over all modules.
        """
        with suppress(AttributeError):  # of glibc alone
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
        from apache_beam.runners.worker.statesampler import StateSampler

        StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)
        from apache_beam.runners.portability.fn_api_runner import worker_handlers

        worker_handlers.STATE_CACHE_SIZE_MB = 0
        if self.options.view_as(DirectOptions).direct_running_mode != "in_memory":
            worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


class Prism(Local):
    """Prism, started here, or at `job_endpoint`."""

    key = "prism"
    runner = "PrismRunner"
    runners: ClassVar[set[str]] = {"PrismRunner"}
    defaults = ("--job_server_timeout=604800",)  # seconds: of Beam's 300, the streams end by which it follows a job

    @property
    def _is_ours(self) -> bool:
        return not self.options.view_as(PortableOptions).job_endpoint

    def check(self) -> None:
        if not self._is_ours:
            return
        from apache_beam.runners.portability.prism_runner import PrismJobServer

        source = "go install github.com/apache/beam/sdks/v2/go/cmd/prism@vVERSION, of Beam's version"
        missing = f"{self.name} needs the program prism, which is missing"
        remedy = f"; accepted: --prism_location=FILE ({source})"
        with reraised(RecipeError, missing, OSError, ValueError, RuntimeError, remedy=remedy):
            PrismJobServer.local_bin(PrismJobServer(self.options).path_to_binary())

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
