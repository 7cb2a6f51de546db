"""Asks a portable engine, before anything is written, whether the workers that it is to start do start.

Beam itself waits for one as long as its job server does: Prism five minutes, after which the error names none.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.runners.runner import PipelineState

from curate.base.errors import RunError
from curate.base.wording import one_line

_SECONDS = 30  # that a worker has
_ENGINES = ("PrismRunner", "PortableRunner", "FlinkRunner", "SparkRunner")
_STARTED = (
    "PROCESS",
    "EXTERNAL",
)  # environments of workers that are programs of this machine, or a service that is there
_LOGGERS = ("PrismRunner", "PrismJobServer")  # by which Beam hands on what Prism and its workers say


def check_workers(runner: str, options: PipelineOptions) -> None:
    """Run a pipeline of one element, where workers are programs of their own.

    Raises RunError where no worker takes it within `_SECONDS`, with what was said meanwhile.
    """
    settings = options.view_as(PortableOptions)
    if runner not in _ENGINES or settings.environment_type not in _STARTED:
        return
    root = beam.Pipeline(options=options)
    _ = root | beam.Create([0]) | beam.Map(_same)
    with _listening() as said:
        try:
            result = root.run()
            is_done = _wait(result, said)
        except Exception as error:  # of the job server, of many kinds
            raise RunError(f"{runner}: {one_line(error, 500)}") from None
        if is_done:
            return
        with suppress(Exception):
            result.cancel()
    heard = f"; output: {one_line(' · '.join(said), 500)}" if said else ""
    raise RunError(
        f"{runner}: no worker started within {_SECONDS} s with environment_type {settings.environment_type}, environment_config "
        f"{settings.environment_config}{heard}; accepted: a command that starts Beam's boot in an environment with curate, or LOOPBACK"
    )


def _same(element: int) -> int:
    return element


def _wait(result: Any, said: list[str]) -> bool:
    """Return True once the pipeline has ended well; False where it failed, a worker did, or time is over."""
    ends = time.monotonic() + _SECONDS
    while time.monotonic() < ends:
        state = result.state
        if state == PipelineState.DONE:
            return True
        if PipelineState.is_terminal(state) or any("process failed" in line for line in said):
            return False
        time.sleep(0.1)
    return False


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Have what Prism and its workers say of failures, in the block, in a list, and nowhere else."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear, loggers = Ear(), [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(ear)
        logger.propagate = False
    try:
        yield said
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(ear)
            logger.propagate = propagate
