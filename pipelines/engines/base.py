"""The interface of an engine: what it needs, where its workers run, and the job of a run.

To add an engine, write a file with a subclass of `PipelineEngine`, a line in `registry`, and a YAML file of its options
in infra/, which `curate init --on` then copies. A package adds one through an entry point of the group
`curate.engines`, named after the engine's key:

    from curate.plugins import PipelineEngine

    class Flink(PipelineEngine):
        key = "flink"  # the value of `runner`, in the file of --on and after `--`
        runner = "FlinkRunner"
        defaults = ("--parallelism=64",)

An engine's own options are a subclass of Beam's PipelineOptions in the same file.
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

Report = Callable[[str], None]  # prints a line for the user


class PipelineEngine:
    """An engine with the options of a run. Only `submit` changes the run folder.

    Attributes:
        key: its name for users.
        runner: the Beam runner that it uses: a name that Beam knows, or the dotted path of a class.
        defaults: default options, as words; the user's options override them.
        may_know_more: whether somebody else, such as a job server, may know options that Beam does not.
    """

    key: ClassVar[str]
    runner: ClassVar[str]
    defaults: ClassVar[tuple[str, ...]] = ()
    may_know_more: bool = False
    # CPU seconds per run, process and task, including Java; and wall seconds before the first step and between steps.
    # bench_costs measured them on Spark. Other engines use them, too, until somebody measures those.
    overhead: ClassVar[tuple[float, float, float] | None] = (11.0, 1.5, 0.015)
    seconds: ClassVar[tuple[float, float]] = (20.0, 0.3)

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        self.options = options  # `beam.Pipeline` copies them
        self.name = type(runner).__name__  # in messages

    @classmethod
    def takes(cls, runner: PipelineRunner) -> bool:
        """Return whether this engine handles a runner that a user chose by Beam's name."""
        return cls.runner in ancestors(runner)

    @classmethod
    def find_runner(cls, options: PipelineOptions, out: str | None) -> PipelineRunner:
        """Check the options that Beam's runner needs, and return it. Raises RecipeError and Beam's errors."""
        trial = beam.Pipeline(options=options)
        os.rmdir(trial.local_tempdir)
        return trial.runner

    @property
    def place(self) -> WorkerLocation:
        return WorkerLocation.CLUSTER

    @property
    def outlasts_driver(self) -> bool:
        """Whether a job continues without this process; otherwise --detach starts a driver process."""
        return False

    def name_job(self, store: RunStore) -> Mapping[str, str] | None:
        """Return the handle of the job that `submit` will create, if known before: this process may die."""
        return None

    @classmethod
    def attach(cls, handle: Mapping[str, str]) -> Job:
        """Return a job by its handle, in any process. Its state is UNKNOWN if the engine does not know it."""
        raise NotImplementedError

    @property
    def workers(self) -> Workers:
        """Cores, processes and memory, according to the options."""
        missing = f"the options of {self.key} do not tell curate how many cores there are"
        return Workers(self.key, None, 1, missing=missing, overhead=self.overhead, seconds=self.seconds)

    def set_up(self) -> None:
        """Set up this process after this engine is chosen."""

    def check(self) -> None:
        """Raise RecipeError if a package, a program or a setting is missing. Called before planning."""

    def check_folder(self, folder: RunStore) -> None:
        """Raise RecipeError if workers cannot see the run folder."""

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Check that workers can execute the run, and `report` the engine. Raises RecipeError and RunError."""

    def hints(self, context: RunContext, rows: int, n_buckets: int) -> Mapping[str, Mapping[str, Any]]:
        """Return Beam's resource hints by prefix of the steps' names: `min_ram` in bytes, `accelerator`."""
        return {}

    def submit(self, add_steps: Callable[[beam.Pipeline], object], store: RunStore) -> Job:
        """Build the pipeline with `add_steps` and submit it, for the run in `store`.

        If the steps run in this process, they have ended when this returns. Raises the error that ends the job.
        """
        root = beam.Pipeline(options=self.options)
        add_steps(root)
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            result = root.run()
        finally:  # Beam's job server would end at an interrupt, before its job is canceled
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt)
        return self.follow(result)

    def follow(self, result: PipelineResult) -> Job:
        """Return the job for the result of Beam's runner."""
        return Job(self.name, result)


def ancestors(runner: PipelineRunner) -> set[str]:
    """Return the names of a runner's class and its base classes."""
    return {ancestor.__name__ for ancestor in type(runner).__mro__}
