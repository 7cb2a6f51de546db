"""A job: a run's pipeline in the hands of an engine. Whoever waits for it and is interrupted cancels it."""

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
_SECONDS = 30  # that a job has to end once it is cancelled
_COMES = 10  # within which a job that is being submitted is known to its engine
_BETWEEN = 0.2  # seconds between two looks at it


class EngineUnresponsiveError(RunError):
    """An engine has not said for long how a job is, which may go on."""


class Job:
    """A job by what a runner of Beam's gave. It holds nothing of the pipeline: elsewhere it needs no process here."""

    def __init__(self, engine: str, result: PipelineResult) -> None:
        self.engine = engine  # in messages
        self.result = result

    @property
    def state(self) -> str:
        """One of Beam's PipelineState."""
        return str(self.result.state)

    @property
    def costs(self) -> Sequence[StageCost]:
        """What each stage took that has ended, as far as the runner tells."""
        return getattr(self.result, "costs", ())

    @property
    def logs(self) -> str | None:
        """The address at which the engine shows what it and its workers log of the job."""
        return None

    @property
    def fault(self) -> str | None:
        """What the engine says of why the job failed, once `state` says that it did."""
        return None

    @property
    def handle(self) -> Mapping[str, str] | None:
        """What `PipelineEngine.attach` finds the job by; `job` names it for people. None: it ends with this process."""
        return None

    def follow(self, on_costs: Callable[[], None]) -> None:
        """Wait for the end; call `on_costs` where `costs` may have changed. Raises what ended the job, if it failed."""
        self.result.wait_until_finish()

    def _look_until_ended(self, on_look: Callable[[], None], between: float, patience: float) -> str:
        """Return the state at the end. Raises EngineUnresponsiveError after `patience` seconds without any."""
        last_answered = time.monotonic()
        while True:
            state, problem = str(PipelineState.UNKNOWN), f"{self.engine}: the job is not known there; see {self.logs}"
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
        """Cancel the job, unless it has ended. Raises what the runner does, and TimeoutError after so many seconds."""
        if PipelineState.is_terminal(self.state):
            return
        self._end()
        ends = time.monotonic() + seconds
        while not PipelineState.is_terminal(state := self.state):
            if time.monotonic() > ends:
                raise TimeoutError(f"it is {state}")
            time.sleep(_BETWEEN)

    def _end(self) -> None:
        self.result.cancel()

    def wait(self, on_costs: Callable[[], None] = lambda: None) -> None:
        """Do as `follow`; an interrupt, which is raised here or ends a command's process, cancels the job."""
        with stopped_if_interrupted(self.cancel):
            self.follow(on_costs)

    def cancel(self) -> None:
        """Stop the job, but wait for no more than some seconds; log what came of it."""
        _log.warning("%s: cancelling the job, for at most %s s", self.engine, _SECONDS)
        errors: list[Exception] = []

        def stop() -> None:
            try:
                self.stop()
            except Exception as error:  # of any library's
                errors.append(error)

        stopping = threading.Thread(target=stop, name="cancel", daemon=True)  # calls of an engine may have no limit
        stopping.start()
        stopping.join(_SECONDS)
        if not errors and not stopping.is_alive():
            _log.warning("%s: the job has ended", self.engine)
            return
        reason = one_line(errors[0], 300) if errors else "no answer in time"
        _log.error("%s: the job may go on: %s%s", self.engine, reason, f"; see {self.logs}" if self.logs else "")


class Submission:
    """A job's lifetime, from before it is submitted to its end, so that an interrupt cancels it at any moment.

    `find` finds the job by its name, if it has one before it is submitted; `is_apart`: it outlives this process.
    """

    def __init__(self, engine: str, find: Callable[[], Job] | None, is_apart: bool) -> None:
        self._engine, self._find, self._is_apart = engine, find, is_apart
        self._submitter, self._submitted = threading.current_thread(), threading.Event()
        self._job: Job | None = None

    def set_job(self, job: Job) -> None:
        self._job = job
        self._submitted.set()

    def cancel(self) -> None:
        """Cancel the job, which may be submitted a moment later; log what came of it."""
        if not self._job and self._find:
            cancel_by_name(self._engine, self._find)
            return
        if self._is_apart and threading.current_thread() is not self._submitter:
            self._submitted.wait(_COMES)
        if self._job:
            self._job.cancel()


def cancel_by_name(engine: str, find: Callable[[], Job]) -> None:
    """Cancel a job that was being submitted; `find` gives it by its name. It may come a moment later, or never."""
    _log.warning("%s: interrupted while the job was being submitted: looking for it, for %s s", engine, _COMES)
    ends = time.monotonic() + _COMES
    while True:
        problem = ""
        try:
            job = find()
            if not PipelineState.is_terminal(state := job.state) and state != PipelineState.UNKNOWN:
                job.cancel()
                return
        except RunError as error:
            problem = f"{engine}: the job may go on: {error}"
        if time.monotonic() > ends:
            break
        time.sleep(1)
    if problem:
        _log.error(problem)
