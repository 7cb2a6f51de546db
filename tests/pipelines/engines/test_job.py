"""An interrupt cancels the job, and curate logs whether the job has ended."""

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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("of a step")])
def test_an_interrupt_cancels_the_job_and_an_error_of_the_job_does_not(error, caplog):
    result, is_error = Interrupted(error), isinstance(error, RuntimeError)
    with pytest.raises(type(error)):
        Job("Spark", result).wait()
    assert result.state == (PipelineState.RUNNING if is_error else PipelineState.CANCELLED) and not process._cleanups
    assert caplog.messages[-1:] == ([] if is_error else ["Spark: the job has ended"])


def test_a_command_that_ends_meanwhile_cancels_it_and_hears_no_error_of_it(caplog):
    """The interrupt's thread ends the process. The thread that waits for the job logs nothing."""
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
    """The job of an earlier attempt has the same name."""
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
    """A job in this process ends with the process, so nothing waits for it."""
    submission, result = Submission("Flink", None, is_apart), EndlessResult()
    cancelling = threading.Thread(target=submission.cancel)
    cancelling.start()
    if not is_apart:
        cancelling.join()
    submission.set_job(Job("Flink", result))
    cancelling.join()
    assert result.state == state


def refuse():
    raise OSError("no route to the job server")


@pytest.mark.parametrize(
    ("cancel", "reasons"),
    [
        (refuse, ["no route to the job server"]),
        (threading.Event().wait, ["no answer in time"]),
        (lambda: PipelineState.RUNNING, ["it is RUNNING", "no answer in time"]),
    ],
)
def test_a_job_that_may_go_on_is_named(cancel, reasons, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "_SECONDS", 0.5)
    monkeypatch.setattr(Job, "logs", "https://logs.example")
    result = EndlessResult()
    result.cancel = cancel
    Job("Dataflow", result).cancel()
    assert caplog.records[-1].levelno == logging.ERROR
    assert caplog.messages[-1].startswith("Dataflow: the job may still be running: ")
    assert any(reason in caplog.messages[-1] for reason in reasons)
    assert caplog.messages[-1].endswith("; see https://logs.example")


def test_a_job_that_has_ended_is_not_cancelled():
    result = EndlessResult()
    result.cancel, result._state = refuse, PipelineState.DONE
    Job("Spark", result).stop()
