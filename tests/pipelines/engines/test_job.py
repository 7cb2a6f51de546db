"""A job is cancelled by an interrupt of whoever waits for it, and what came of that is said."""

import logging
import threading

import pytest
from apache_beam.runners.runner import PipelineState

from curate.base import process
from curate.base.errors import RunError
from pipelines.engines import job as jobs
from pipelines.engines.job import Job, Submission, cancel_by_name
from tests.pipelines.engines.endless import EndlessResult


class Interrupted(EndlessResult):
    """A job whose wait is interrupted."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def wait_until_finish(self, duration=None):
        raise self.error


@pytest.fixture(autouse=True)
def no_cleanups(monkeypatch):
    """Other tests of this process may have left some."""
    monkeypatch.setattr(process, "_cleanups", [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupt_cancels_the_job(error, caplog):
    result = Interrupted(error)
    with pytest.raises(type(error)):
        Job("Spark", result).wait()
    assert result.state == PipelineState.CANCELLED and process._cleanups == []
    assert caplog.messages == ["Spark: canceling the job; this takes at most 30 s", "Spark: the job has ended"]


def test_an_error_of_the_job_is_raised_and_nothing_is_cancelled(caplog):
    result = Interrupted(RuntimeError("of a step"))
    with pytest.raises(RuntimeError, match="of a step"):
        Job("Spark", result).wait()
    assert result.state == PipelineState.RUNNING and not caplog.messages and process._cleanups == []


def test_a_command_that_ends_meanwhile_cancels_it_and_hears_no_error_of_it(caplog):
    """The interrupt's thread ends the process; the one that waits for the job has nothing more to say."""
    result, raised = EndlessResult(), []

    def wait():
        try:
            Job("Prism", result).wait()
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while not process._cleanups:
        pass
    process.clean_up()
    waiting.join(0.5)
    assert waiting.is_alive() and not raised
    assert result.state == PipelineState.CANCELLED and caplog.messages[-1] == "Prism: the job has ended"


def test_a_job_that_comes_while_it_is_looked_for_is_cancelled(caplog, monkeypatch):
    """The one of an attempt before has its name too."""
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    earlier, result = EndlessResult(), EndlessResult()
    earlier.cancel()
    answers = iter([earlier, OSError("away"), result])

    def find():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise RunError(str(answer))
        return Job("Dataflow", answer)

    cancel_by_name("Dataflow", find)
    assert result.state == PipelineState.CANCELLED and caplog.messages[-1] == "Dataflow: the job has ended"
    monkeypatch.setattr(jobs, "_COMES", 0)
    caplog.clear()
    cancel_by_name("Dataflow", lambda: Job("Dataflow", earlier))
    assert len(caplog.messages) == 1  # there is none


@pytest.mark.parametrize(("is_apart", "state"), [(True, PipelineState.CANCELLED), (False, PipelineState.RUNNING)])
def test_a_job_that_has_no_name_is_cancelled_once_it_is_submitted(is_apart, state):
    """One of this process ends with it: nobody waits."""
    submission, result = Submission("Flink", None, is_apart), EndlessResult()
    cancelling = threading.Thread(target=submission.cancel)
    cancelling.start()
    if not is_apart:
        cancelling.join()
    submission.set_job(Job("Flink", result))
    cancelling.join()
    assert result.state == state


class Refusing(EndlessResult):
    def cancel(self):
        raise OSError("no route to the job server")


class Hanging(EndlessResult):
    def cancel(self):
        threading.Event().wait()
        return ""


class Deaf(EndlessResult):
    def cancel(self):
        return self.state


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Refusing, "no route to the job server"),
        (Hanging, "no answer in time"),
        (Deaf, "it is RUNNING|no answer in time"),
    ],
)
def test_a_job_that_may_go_on_is_named(make, why, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "_SECONDS", 0.5)

    class Shown(Job):
        logs = "https://logs.example"

    Shown("Dataflow", make()).cancel()
    assert caplog.records[-1].levelno == logging.ERROR
    assert caplog.messages[-1].startswith("Dataflow: the job may still be running: ")
    assert any(reason in caplog.messages[-1] for reason in why.split("|"))
    assert caplog.messages[-1].endswith("; see https://logs.example")


def test_a_job_that_has_ended_is_not_cancelled():
    result = Refusing()
    result._state = PipelineState.DONE
    Job("Spark", result).stop()
