"""The interface that every engine implements: what it needs, where steps work on it, and the job of a run.

An engine is a file with a subclass of `PipelineEngine`, a line in `registry`, and a YAML of its options in infra/,
which `curate init --on` then has. A package brings one by an entry point of the group `curate.engines`, named as the
engine's key:

    from curate.plugins import PipelineEngine

    class Flink(PipelineEngine):
        key = "flink"  # as `runner` has it, in a file of --on and after `--`
        runner = "FlinkRunner"
        defaults = ("--parallelism=64",)

Options of its own are a subclass of Beam's PipelineOptions in the same file.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from curate.ask.costs.model import Workers
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import WorkerLocation
from curate.store.store import RunStore
from pipelines.engines.job import Job

Report = Callable[[str], None]  # is given a line for the user


class PipelineEngine:
    """An engine with the options of a run. All methods but `submit` leave the run's folder as it is.

    Attributes:
        key: its name for users.
        runner: the runner of Beam's that it works by: a name of Beam's, or the dotted path of a class.
        defaults: options that a user's override, as words.
        may_know_more: whether options that Beam does not know are left to somebody whom the runner asks.
    """

    key: ClassVar[str]
    runner: ClassVar[str]
    defaults: ClassVar[tuple[str, ...]] = ()
    may_know_more: bool = False
    # CPU seconds of a run, a process and a task, Java's included, and seconds of wall before the first step and between
    # two: of Spark, by bench_costs, which stand for other engines until somebody measures these.
    overhead: ClassVar[tuple[float, float, float] | None] = (11.0, 1.5, 0.015)
    seconds: ClassVar[tuple[float, float]] = (20.0, 0.3)

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        self.options = options  # for `beam.Pipeline`, which copies them
        self.name = type(runner).__name__  # in messages

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        """Return whether this is the engine of a runner that a user names in Beam's way."""
        return cls.runner in ancestors(runner)

    @classmethod
    def find_runner(cls, options: PipelineOptions, out: str | None) -> PipelineRunner:
        """Return Beam's runner, once the options that it needs are checked. Raises what Beam does, and RecipeError."""
        trial = beam.Pipeline(options=options)
        os.rmdir(trial.local_tempdir)
        return trial.runner

    @property
    def place(self) -> WorkerLocation:
        return WorkerLocation.CLUSTER

    @property
    def outlasts_driver(self) -> bool:
        """Whether a job goes on by itself, and --detach leaves it; else a driver process outlives the shell."""
        return False

    def name_job(self, store: RunStore) -> Mapping[str, str] | None:
        """Return the handle of the job that `submit` is about to make, if it has one before: this process may die."""
        return None

    @classmethod
    def attach(cls, handle: Mapping[str, str]) -> Job:
        """Return a job by its handle, in any process; its state is UNKNOWN where the engine knows no such job."""
        raise NotImplementedError

    @property
    def workers(self) -> Workers:
        """What is at work, by the options."""
        missing = f"the options of {self.key} do not say to curate how many cores there are"
        return Workers(self.key, None, 1, missing=missing, overhead=self.overhead, seconds=self.seconds)

    def set_up(self) -> None:
        """Set up this process, once this engine is chosen."""

    def check(self) -> None:
        """Raise RecipeError where a package, a program or a setting is missing; before anything is planned."""

    def check_folder(self, folder: RunStore) -> None:
        """Raise RecipeError where no worker could see the run's folder."""

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Ask workers if they can do the run; tell `report` which engine it is. Raises RecipeError and RunError."""

    def hints(self, context: RunContext, rows: int, n_buckets: int) -> Mapping[str, Mapping[str, Any]]:
        """Return Beam's resource hints of steps, by how their names begin: `min_ram` in bytes, `accelerator`."""
        return {}

    def submit(self, add_steps: Callable[[beam.Pipeline], object], store: RunStore) -> Job:
        """Hand over the pipeline that `add_steps` makes, of the run in `store`.

        Where steps work in this process, they have ended when this returns. Raises what ends or refuses the job.
        """
        root = beam.Pipeline(options=self.options)
        add_steps(root)
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            result = root.run()
        finally:  # a job server of Beam's would end by an interrupt, before its job is cancelled
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt)
        return self.follow(result)

    def follow(self, result: PipelineResult) -> Job:
        """Return the job of what Beam's runner gave."""
        return Job(self.name, result)


def ancestors(runner: PipelineRunner) -> set[str]:
    """Return the names of a runner's class and its bases."""
    return {ancestor.__name__ for ancestor in type(runner).__mro__}
