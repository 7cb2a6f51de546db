"""Jobs: a run's pipeline on an engine. An interrupt of a process that waits for a job cancels the job."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from apache_beam.runners.runner import PipelineResult, PipelineState

from curate.base.errors import RunError
from curate.base.process import stopped_if_interrupted
from curate.base.wording import one_line
from pipelines.spark.context import StageCost

_log = logging.getLogger(__name__)
_SECONDS = 30  # seconds that a canceled job has to end
_COMES = 10  # seconds until an engine knows a job that is being submitted
_BETWEEN = 0.2  # seconds between two polls


class EngineUnresponsiveError(RunError):
    """An engine has not reported a job's state for a long time. The job may still be running."""


class Job:
    """A job, from the result of a Beam runner. It does not depend on the pipeline, nor on this process if remote."""

    def __init__(self, engine: str, result: PipelineResult) -> None:
        self.engine = engine  # in messages
        self.result = result

    @property
    def state(self) -> str:
        """The job's state, one of Beam's PipelineState."""
        return str(self.result.state)

    @property
    def costs(self) -> Sequence[StageCost]:
        """Costs of the stages that have ended, if the runner reports them."""
        return getattr(self.result, "costs", ())

    @property
    def logs(self) -> str | None:
        """The address where the engine shows the job's logs."""
        return None

    @property
    def fault(self) -> str | None:
        """The engine's reason for a failure, after `state` is FAILED."""
        return None

    @property
    def handle(self) -> Mapping[str, str] | None:
        """The handle for `PipelineEngine.attach`; `job` is a name for people. None: the job ends with this process."""
        return None

    def follow(self, on_costs: Callable[[], None]) -> None:
        """Wait for the end, and call `on_costs` when `costs` may have changed. Raises the error of a failed job."""
        self.result.wait_until_finish()

    def _look_until_ended(self, on_look: Callable[[], None], between: float, patience: float) -> str:
        """Return the final state. Raises EngineUnresponsiveError after `patience` seconds without an answer."""
        last_answered = time.monotonic()
        while True:
            state, problem = str(PipelineState.UNKNOWN), f"{self.engine} does not know this job; see {self.logs}"
            try:
                state = self.state
            except RunError as error:
                problem = str(error)
            on_look()
            if PipelineState.is_terminal(state):
                return state
            if state != PipelineState.UNKNOWN:
                last_answered = time.monotonic()
            elif time.monotonic() > last_answered + patience:
                raise EngineUnresponsiveError(problem)
            time.sleep(between)

    def stop(self, seconds: float = _SECONDS) -> None:
        """Cancel the job unless it has ended. Raises TimeoutError after the given seconds, and the runner's errors."""
        if PipelineState.is_terminal(self.state):
            return
        self._end()
        ends = time.monotonic() + seconds
        while not PipelineState.is_terminal(state := self.state):
            if time.monotonic() > ends:
                raise TimeoutError(f"its state is {state}")
            time.sleep(_BETWEEN)

    def _end(self) -> None:
        self.result.cancel()

    def wait(self, on_costs: Callable[[], None] = lambda: None) -> None:
        """Wait like `follow`, and cancel the job on an interrupt, raised here or ending the command's process."""
        with stopped_if_interrupted(self.cancel):
            self.follow(on_costs)

    def cancel(self) -> None:
        """Stop the job, wait for its end for some seconds, and log the outcome."""
        _log.warning("%s: canceling the job; this takes at most %s s", self.engine, _SECONDS)
        errors: list[Exception] = []

        def stop() -> None:
            try:
                self.stop()
            except Exception as error:  # from any library
                errors.append(error)

        stopping = threading.Thread(target=stop, name="cancel", daemon=True)  # an engine's calls may have no timeout
        stopping.start()
        stopping.join(_SECONDS)
        if not errors and not stopping.is_alive():
            _log.warning("%s: the job has ended", self.engine)
            return
        reason = one_line(errors[0], 300) if errors else "no answer in time"
        see = f"; see {self.logs}" if self.logs else ""
        _log.error("%s: the job may still be running: %s%s", self.engine, reason, see)


class Submission:
    """A job's lifetime, from submission to the end; an interrupt cancels it at any moment.

    `find` finds the job by its name, if that is known before submission. `is_apart` says that the job outlives this
    process.
    """

    def __init__(self, engine: str, find: Callable[[], Job] | None, is_apart: bool) -> None:
        self._engine, self._find, self._is_apart = engine, find, is_apart
        self._submitter, self._submitted = threading.current_thread(), threading.Event()
        self._job: Job | None = None

    def set_job(self, job: Job) -> None:
        self._job = job
        self._submitted.set()

    def cancel(self) -> None:
        """Cancel the job, which may be submitted a moment later, and log the outcome."""
        if not self._job and self._find:
            cancel_by_name(self._engine, self._find)
            return
        if self._is_apart and threading.current_thread() is not self._submitter:
            self._submitted.wait(_COMES)
        if self._job:
            self._job.cancel()


def cancel_by_name(engine: str, find: Callable[[], Job]) -> None:
    """Cancel a job during its submission. `find` finds it by name; it may appear a moment later, or never."""
    _log.warning("%s: interrupted while submitting the job; looking for it for %s s to cancel it", engine, _COMES)
    ends = time.monotonic() + _COMES
    while True:
        problem = ""
        try:
            job = find()
            if not PipelineState.is_terminal(state := job.state) and state != PipelineState.UNKNOWN:
                job.cancel()
                return
        except RunError as error:
            problem = f"{engine}: the job may still be running: {error}"
        if time.monotonic() > ends:
            break
        time.sleep(1)
    if problem:
        _log.error(problem)
