"""The runner and its result: a pipeline is taken through Spark by a thread, which `wait_until_finish` waits for."""

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
_HELD = 64 << 20  # bytes of all stages that the driver holds


class SparkRunner(PipelineRunner):
    """Runs batch pipelines on Spark, in the active SparkContext or a new one by `SparkOptions`, stopped at the end."""

    def default_environment(self, options: PipelineOptions) -> environments.Environment:
        """Return that of the executors' Python."""
        return environments.EmbeddedPythonEnvironment.default()

    def run_portable_pipeline(self, pipeline: beam_runner_api_pb2.Pipeline, options: PipelineOptions) -> "SparkResult":
        """Begin to run the pipeline.

        Raises:
            NotImplementedError: it needs state, timers, bundle finalization, streaming, or another environment.
            ValueError: an option is wrong, or has to be named.
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
                remedy = "set --spark_exchange to a folder or URL that all of them see"
                raise ValueError(f"the workers of {spark.master} run on other machines: {remedy}")
            exchange = Exchange(folder, _HELD)
            execution = Execution(spark, steps, exchange, options.get_all_options(drop_default=True))
            failing.pop_all()

        def clean() -> None:
            exchange.clear()
            if is_ours:
                with suppress(Exception):  # the context may have stopped
                    spark.setLogLevel("OFF")  # what is cut off now is no news
                spark.stop()

        return SparkResult(execution, clean)


class SparkResult(PipelineResult):
    """A pipeline that runs, or has run; its `state` is RUNNING, DONE, FAILED or CANCELLED."""

    _state: str

    def __init__(self, execution: Any, clean: Any) -> None:
        super().__init__(PipelineState.RUNNING)
        self._execution, self._clean = execution, clean
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="beam-spark", daemon=True).start()

    def wait_until_finish(self, duration: int | None = None) -> str:
        """Return the state at the end, or after so many milliseconds. Raises what ended it; an interrupt cancels it."""
        try:
            self._ended.wait(None if duration is None else duration / 1000)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self._ended.is_set() and self._error is not None:
            raise self._error
        return self._state

    def cancel(self) -> str:
        """Cancel the pipeline, and return the state once its jobs have stopped."""
        if not self._ended.is_set():
            self._execution.cancel()
            self._ended.wait()
        return self._state

    @property
    def costs(self) -> Sequence[StageCost]:
        """Return what each stage took that has ended."""
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
        except BaseException as error:  # raised again where it is waited for
            self._error, state = error, PipelineState.FAILED
        try:
            self._clean()
        except Exception as error:  # of any store's library: what was made is there
            _LOGGER.warning("not cleaned up: %s", error)
        finally:
            self._state = state
            self._ended.set()
