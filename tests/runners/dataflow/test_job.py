"""A job on Dataflow: followed, cancelled and found again, in the process that submitted it and in others."""

import json
import signal
import time

import apache_beam as beam
import pytest
import yaml
from apache_beam.runners.runner import PipelineState

from curate.base.errors import RunError
from curate.store.store import RunStore
from pipelines.engines import dataflow
from pipelines.engines.choose import choose_engine
from pipelines.engines.dataflow import Dataflow
from tests import kit
from tests.kit.commands import run_command
from tests.runners.dataflow.loopback import BUCKET, upload

pytestmark = pytest.mark.runners

ENDED = {
    "JOB_STATE_DONE": PipelineState.DONE,
    "JOB_STATE_FAILED": PipelineState.FAILED,
    "JOB_STATE_PENDING": PipelineState.PENDING,
}
METRICS = {"TotalVcpuTime": 7200.0, "TotalMemoryUsage": 3.0e7, "TotalShuffleDataProcessed": 123456.0}


def submit(cloud, out):
    """A job of one element."""
    engine = choose_engine([], str(cloud.write_options()), out)
    assert isinstance(engine, Dataflow)
    return engine, engine.submit(lambda root: root | beam.Create([0]), RunStore(out))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(dataflow, "_BETWEEN", 0.05)


def test_a_job_is_found_by_its_number_and_by_its_name(cloud):
    out = f"{BUCKET}/found"
    engine, job = submit(cloud, out)
    by_name = engine.name_job(RunStore(out))
    assert job.handle == by_name | {"job": cloud.service.jobs[0].id} and json.dumps(job.handle)
    page = "https://console.cloud.google.com/dataflow/jobs/us-central1"
    assert job.logs == f"{page}/{cloud.service.jobs[0].id}?project=my-project-1"
    for handle in (job.handle, by_name):
        other, cloud.service.jobs[0].state = Dataflow.attach(handle), "JOB_STATE_RUNNING"
        assert (other.handle, other.logs, other.state) == (job.handle, job.logs, PipelineState.RUNNING)
        for state, ours in ENDED.items():
            cloud.service.jobs[0].state = state
            assert other.state == ours
    assert Dataflow.attach(by_name | {"job": "curate-another"}).state == PipelineState.UNKNOWN


def test_of_one_run_there_is_one_active_job(cloud):
    out = f"{BUCKET}/one"
    submit(cloud, out)
    with pytest.raises(RunError, match=r"already has an active job curate-one-\w{8}: https://console.*-00\?project="):
        submit(cloud, out)
    cloud.service.jobs[0].state = "JOB_STATE_FAILED"
    engine, _ = submit(cloud, out)
    assert len(cloud.service.jobs) == 2
    latest = Dataflow.attach(engine.name_job(RunStore(out))).handle
    assert latest is not None and latest["job"] == cloud.service.jobs[1].id


def test_what_ended_a_job_and_what_it_took(cloud, caplog):
    _, job = submit(cloud, f"{BUCKET}/failed")
    assert not job.costs
    cloud.service.jobs[0].metrics = METRICS
    errors = ["The work item was attempted 4 times", "Traceback …\nValueError: boom", "work item was attempted"]
    cloud.service.jobs[0].errors = errors
    cloud.service.jobs[0].state = "JOB_STATE_FAILED"
    costs = []
    with pytest.raises(RuntimeError, match="ValueError: boom"):
        job.follow(lambda: costs.append(job.costs))
    used = {cost.name: cost.seconds_in_bundles for cost in costs[-1]}
    assert used == {"(job: vCPUs)": 7200.0, "(job: GB of memory)": 30000.0, "(job: shuffles)": 0.0}
    assert costs[-1][-1].bytes_shuffled == 123456
    assert f"the job is FAILED; see {job.logs}" in caplog.text


def test_a_job_is_cancelled_from_elsewhere(cloud):
    _, job = submit(cloud, f"{BUCKET}/cancelled")
    assert job.handle is not None
    Dataflow.attach(json.loads(json.dumps(dict(job.handle)))).stop()
    assert cloud.service.jobs[0].state == "JOB_STATE_CANCELLED"
    with pytest.raises(RuntimeError, match="the job is CANCELLED"):
        job.follow(lambda: None)


def test_a_service_that_does_not_answer_for_a_while(cloud, monkeypatch):
    _, job = submit(cloud, f"{BUCKET}/silent")
    monkeypatch.setattr(dataflow, "_PATIENCE", 0.2)
    answer, silent = cloud.service.answer, 3

    def fail_some(*words):
        nonlocal silent
        silent -= 1
        error = {"code": 503, "message": "later", "status": "UNAVAILABLE"}
        return (503, {"error": error}) if silent >= 0 else answer(*words)

    monkeypatch.setattr(cloud.service, "answer", fail_some)
    with pytest.raises(RunError, match=r"^Dataflow: .*later"):
        _ = job.state
    silent = 0
    assert job.state == PipelineState.RUNNING
    silent = 10**9
    with pytest.raises(RunError, match="later"):
        job.follow(lambda: None)


@pytest.fixture
def recipe(cloud, tmp_path):
    kit.write_tars(tmp_path / "tars", kit.make_samples(12), 1)
    upload(tmp_path / "tars", f"{BUCKET}/{tmp_path.name}/tars")
    path = tmp_path / "recipe.yaml"
    source = {"name": "pool", "format": "webdataset", "path": f"{BUCKET}/{tmp_path.name}/tars/*.tar"}
    path.write_text(yaml.safe_dump({"input": source, "max_failed": 1.0}))
    return path


def test_a_run_that_is_handed_over_and_cancelled(cloud, recipe, tmp_path):
    """Of two submits one has the folder; the truth is told to whoever asks."""
    out, on = f"{BUCKET}/{tmp_path.name}/run", str(cloud.write_options())
    done = run_command("run", str(recipe), "--out", out, "--on", on, "--detach")
    assert done.status == 0, done.err
    [job] = cloud.service.jobs
    assert f"{out}: runs in Dataflow\n" in done.out
    status = run_command("status", out)
    assert status.status == 3 and f"job {job.id} on dataflow" in status.out and "(RUNNING)" in status.out
    refused = run_command("run", str(recipe), "--out", out, "--on", on)
    assert refused.status == 1 and f"job {job.id} on dataflow" in refused.err and len(cloud.service.jobs) == 1
    assert run_command("run", str(recipe), "--out", out, "--on", on, "--take-over").status == 1  # it is at work
    cancelled = run_command("cancel", out)
    assert cancelled.status == 0 and job.state == "JOB_STATE_CANCELLED", cancelled.err
    assert run_command("status", out).status == 1


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_the_job_and_a_kill_does_not(cloud, recipe, tmp_path):
    out = f"{BUCKET}/{tmp_path.name}/run"
    running = cloud.start(str(recipe), "--out", out)
    job = cloud.wait_for_job(running)
    running.kill()
    running.wait()
    assert job.state == "JOB_STATE_RUNNING" and run_command("status", out).status == 3
    job.state = "JOB_STATE_FAILED"
    assert run_command("status", out).status == 1
    cloud.service.begun.clear()
    other = cloud.start(str(recipe), "--out", out, "--take-over")
    job = cloud.wait_for_job(other)
    while not job.asked:  # once, by who waits for it
        time.sleep(0.1)
    other.send_signal(signal.SIGINT)
    assert other.wait(300) == 128 + signal.SIGINT
    assert job.state == "JOB_STATE_CANCELLED" and "Dataflow: the job has ended\n" in cloud.errors
    assert "Traceback" not in cloud.errors
    assert len(cloud.service.jobs) == 2


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_between_a_jobs_making_and_the_answer_cancels_it(cloud, recipe, tmp_path):
    cloud.service.delay = 15.0
    running = cloud.start(str(recipe), "--out", f"{BUCKET}/{tmp_path.name}/run")
    job = cloud.wait_for_job(running)
    running.send_signal(signal.SIGINT)
    assert running.wait(300) == 128 + signal.SIGINT
    assert job.state == "JOB_STATE_CANCELLED" and "Dataflow: the job has ended\n" in cloud.errors
    assert "Traceback" not in cloud.errors
