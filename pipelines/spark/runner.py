"""The runner and its result: a thread runs the pipeline on Spark, and `wait_until_finish` waits for it."""

import logging
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState
from apache_beam.transforms import environments

from pipelines.spark.context import SparkOptions, StageCost, is_here, open_context

_LOGGER = logging.getLogger(__name__)
_HELD = 64 << 20  # bytes of stages' outputs that the driver holds


class SparkRunner(PipelineRunner):
    """Runs batch pipelines on Spark, in the active SparkContext, or in a new one that it stops at the end."""

    def default_environment(self, options: PipelineOptions) -> environments.Environment:
        """Return the environment of the executors' Python."""
        return environments.EmbeddedPythonEnvironment.default()

    def run_portable_pipeline(self, pipeline: beam_runner_api_pb2.Pipeline, options: PipelineOptions) -> "SparkResult":
        """Start the pipeline.

        Raises:
            NotImplementedError: it needs state, timers, bundle finalization, streaming, or another environment.
            ValueError: an option is wrong or missing.
            ImportError: PySpark is not installed.
        """
        from pipelines.spark.exchange import Exchange
        from pipelines.spark.execution import Execution
        from pipelines.spark.translation import translate

        steps = translate(pipeline)
        settings = options.view_as(SparkOptions)
        spark, is_ours = open_context(settings)
        with ExitStack() as failing:
            if is_ours:
                failing.callback(spark.stop)
            folder = settings.find_exchange() or (tempfile.gettempdir() if is_here(spark.master) else None)
            if folder is None:
                remedy = "set --spark_exchange to a folder or URL that all of them can access"
                raise ValueError(f"the workers of {spark.master} run on other machines: {remedy}")
            exchange = Exchange(folder, _HELD)
            execution = Execution(spark, steps, exchange, options.get_all_options(drop_default=True))
            failing.pop_all()

        def clean() -> None:
            exchange.clear()
            if is_ours:
                with suppress(Exception):  # the context may have stopped
                    spark.setLogLevel("OFF")  # errors of canceled tasks are expected
                spark.stop()

        return SparkResult(execution, clean)


class SparkResult(PipelineResult):
    """A running or ended pipeline; its `state` is RUNNING, DONE, FAILED or CANCELLED."""

    _state: str

    def __init__(self, execution: Any, clean: Any) -> None:
        super().__init__(PipelineState.RUNNING)
        self._execution, self._clean = execution, clean
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="beam-spark", daemon=True).start()

    def wait_until_finish(self, duration: int | None = None) -> str:
        """Wait for the end, or `duration` ms; return the state. Raises its error; an interrupt cancels the pipeline."""
        try:
            self._ended.wait(None if duration is None else duration / 1000)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._ended.is_set() and self._error is not None:
            raise self._error
        return self._state

    def cancel(self) -> str:
        """Cancel the pipeline, wait until its jobs have stopped, and return the state."""
        if not self._ended.is_set():
            self._execution.cancel()
            self._ended.wait()
        return self._state

    @property
    def costs(self) -> Sequence[StageCost]:
        """Return the costs of ended stages."""
        return tuple(self._execution.costs)

    def metrics(self) -> Any:
        from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiMetrics

        return FnApiMetrics(dict(self._execution.counters))

    def _run(self) -> None:
        from pipelines.spark.execution import Cancelled

        try:
            self._execution.run()
            state = PipelineState.DONE
        except Cancelled:
            state = PipelineState.CANCELLED
        except BaseException as error:  # `wait_until_finish` raises it
            self._error, state = error, PipelineState.FAILED
        try:
            self._clean()
        except Exception as error:  # from any store's library: the outputs exist
            _LOGGER.warning("could not clean up: %s", error)
        finally:
            self._state = state
            self._ended.set()
