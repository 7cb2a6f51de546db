"""A job that continues without its driver. Users follow and cancel it by its handle, and it finishes by itself."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import apache_beam as beam
import fsspec
import pytest
from apache_beam.runners.runner import PipelineResult, PipelineState

from curate.base import registry
from curate.store import lease as leases
from curate.store.lease import find_lease, read_leases
from curate.store.store import RunStore
from pipelines.engines import registry as engines
from pipelines.engines.job import Job
from pipelines.engines.local import Local
from tests.kit.commands import run_command
from tests.kit.s3 import bucket  # noqa: F401  (a fixture)

pytestmark = pytest.mark.thorough


class ElsewhereJob(Job):
    """A job of the service."""

    def __init__(self, name):
        super().__init__("Elsewhere", Service.jobs[name])
        self.name = name

    handle = property(lambda self: {"job": self.name})
    logs = property(lambda self: f"http://elsewhere/{self.name}")


@dataclass
class Service(PipelineResult):
    """A service that works on jobs in its own threads. Each job waits for `begins`."""

    jobs: ClassVar[dict[str, "Service"]] = {}
    work: Callable[[], object]
    begins: threading.Event = field(default_factory=threading.Event)
    now: str = PipelineState.PENDING
    refuses: bool = False

    def __post_init__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        self.begins.wait()
        if self.now == PipelineState.CANCELLED:
            return
        self.now = PipelineState.RUNNING
        try:
            self.work()
        except Exception:
            self.now = PipelineState.FAILED
        else:
            self.now = PipelineState.DONE

    state = property(lambda self: self.now)

    def cancel(self):
        if self.refuses:
            raise OSError("no route to the service")
        self.now = PipelineState.CANCELLED
        self.begins.set()


class Elsewhere(Local):
    """The engine of this service."""

    key = "elsewhere"
    outlasts_driver = True

    def name_job(self, store):
        return {"job": store.url.rpartition("/")[2]}

    def submit(self, add_steps, store):
        name = self.name_job(store)["job"]
        assert (lease := find_lease(store)) is not None and lease.handle == {"job": name}, "it would be found"
        root = beam.Pipeline(options=self.options)
        add_steps(root)
        Service.jobs[name] = Service(lambda: root.run().wait_until_finish())
        return ElsewhereJob(name)

    @classmethod
    def attach(cls, handle):
        unknown = Job("Elsewhere", PipelineResult(PipelineState.UNKNOWN))
        return ElsewhereJob(handle["job"]) if handle["job"] in Service.jobs else unknown


@pytest.fixture
def clock(monkeypatch):
    """Register the engine, and return the clock of leases, which is `late` seconds ahead."""
    clock = SimpleNamespace(late=0.0, monotonic=time.monotonic, time=lambda now=time.time: now() + clock.late)
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(engines, "KINDS", (*engines.KINDS, Elsewhere))
    registry._load.cache_clear()
    yield clock
    monkeypatch.undo()
    registry._load.cache_clear()


@dataclass
class Run:
    """A run that is handed over, and the commands about it."""

    recipe: Path
    url: str

    def __call__(self, *words):
        return run_command("run", str(self.recipe), "--out", self.url, *words, "--", "--runner=elsewhere")

    def status(self, *words):
        return run_command("status", self.url, *words)

    def cancel(self):
        return run_command("cancel", self.url)

    store = property(lambda self: RunStore(self.url))
    job = property(lambda self: Service.jobs[self.url.rpartition("/")[2]])

    def finish(self):
        self.job.begins.set()
        self.job.thread.join()


@pytest.fixture(params=["memory"])
def run(request, pool, clock, tmp_path):
    """A run in memory, in a folder, or in a bucket."""
    name = uuid.uuid4().hex
    place = request.getfixturevalue("bucket") if request.param == "s3" else "memory:/"
    url = str(tmp_path / name) if request.param == "local" else f"{place}/{name}"
    yield Run(pool / "texts.yaml", url)
    for job in Service.jobs.values():
        job.begins.set()
        job.thread.join()
    if request.param == "memory":
        fsspec.filesystem("memory").rm(RunStore(url).root, recursive=True)


def hand_over(run, *words):
    done = run("--detach", *words)
    assert done.status == 0, done.err
    assert f"curate cancel {run.url}" in done.out


@pytest.mark.parametrize("run", ["memory", "local"], indirect=True)
def test_it_waits_works_and_publishes_by_itself(run, clock):
    hand_over(run)
    clock.late += 80_000
    waiting = run.status()
    name = run.url.rpartition("/")[2]
    assert waiting.status == 3 and f"waiting for curate run (job {name} on elsewhere, since" in waiting.out
    assert "(PENDING)" in waiting.out and f"http://elsewhere/{name}" in waiting.out and "measure  0/1" in waiting.out
    for words in ((), ("--detach",), ("--detach", "--take-over")):
        second = run(*words)
        assert second.status == 1 and f"curate run (job {name} on elsewhere, since" in second.err
    run.finish()
    done = run.status("--watch")
    assert done.status == 0 and "of 200 rows are kept" in done.out
    [lease] = read_leases(run.store).values()
    assert not lease.is_waiting and lease.is_detached and find_lease(run.store) is None, "nobody was left to end it"
    assert "nothing differs" in run_command("verify", run.url).out
    assert "is finished" in run.cancel().out
    assert "nothing to do" in run().out and not run.store.files("tmp")


def test_a_cancel(run):
    hand_over(run)
    run.job.refuses = True
    done = run.cancel()
    assert done.status == 1 and "no route to the service" in done.err and "see http://elsewhere/" in done.err
    assert run.status().status == 3 and find_lease(run.store)
    run.job.refuses = False
    assert run.cancel().status == 0 and find_lease(run.store) is None
    assert run.status().status == 1
    hand_over(run)
    assert run.status().status == 3


def test_a_job_that_fails_says_why(run):
    """Nobody waited for the job when it failed."""
    run.recipe = run.recipe.with_name("tars.yaml")
    hand_over(run, "--set", "max_failed=0.01")
    run.finish()
    now = run.status()
    assert now.status == 1 and "has ended (FAILED)" in now.out and "3 of 60 samples" in now.out
    assert run().status == 1
    assert run("--take-over", "--detach").status == 0
    run.finish()
    assert run.status().status == 0


def test_a_submitter_that_dies_before_it_could_say_which_job_it_was(run, monkeypatch):
    """The job has a name before it starts, and curate finds it by this name."""
    hand_over(run)
    lease = find_lease(run.store)
    died = {"is_detached": False, "lasts": 900.0, "began": "1"}
    run.store.write_json("tmp/lease/000001", lease.model_copy(update=died).model_dump())
    assert run.status().status == 3 and run("--take-over").status == 1
    job = Service.jobs.pop(run.url.rpartition("/")[2])
    assert "has ended (UNKNOWN)" in run.status().out
    job.now = PipelineState.DONE
    Service.jobs["another"] = job
    assert run("--detach").status == 1
    assert run("--detach", "--take-over").status == 0
    assert list(read_leases(run.store)) == [2]


@pytest.mark.parametrize("run", ["memory", "local", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)
def test_a_lease_that_nobody_renews(run, clock):
    hand_over(run)
    clock.late += 86_401
    assert run.status().status == 1 and "last active 24 h 0 min ago" in run.status().out
    refused = run("--detach")
    assert refused.status == 1 and "--take-over" in refused.err
    old = run.job
    assert run("--detach", "--take-over").status == 0
    assert run.job is not old
    old.begins.set()
    old.thread.join()
    assert old.now == PipelineState.FAILED, "it learns that another has the folder"
    assert run.status().status == 3
    run.finish()
    assert run.status().status == 0
