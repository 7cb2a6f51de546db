"""The driver process of a run that was handed over: found again by host, number and start, and stopped by a signal."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress

from apache_beam.runners.runner import PipelineResult, PipelineState

from curate.base.errors import RunError
from curate.store.lease import Process


class DriverProcess(PipelineResult):
    """A driver as the result of its job: it is RUNNING or, once the process has ended, DONE, whatever came of the run.

    On another host it is UNKNOWN, and cannot be cancelled.
    """

    def __init__(self, handle: Mapping[str, str]) -> None:
        super().__init__(PipelineState.UNKNOWN)
        self._process = Process.model_validate(handle)

    @property
    def state(self) -> str:
        """One of the three."""
        if not self._process.is_here:
            return str(PipelineState.UNKNOWN)
        return str(PipelineState.RUNNING if self._process.is_alive else PipelineState.DONE)

    def cancel(self) -> None:
        """Ask the process to end, which cancels what it began. Raises RunError where it is on another host."""
        number = self._process.process
        if not self._process.is_here:
            raise RunError(f"the driver is process {number} on {self._process.host}; there: kill {number}")
        if self._process.is_alive:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)
