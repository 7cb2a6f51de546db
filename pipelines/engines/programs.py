"""Programs that engines need on this machine: Java, what Beam finds or downloads, and workers that are to start.

Errors say how to get them. Whether workers do start is asked before anything is written: Beam itself waits for one as
long as its job server does, Prism five minutes, after which the error names none.
"""

import logging
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apache_beam as beam
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineState

from curate.base.errors import RecipeError, RunError
from curate.base.process import stopped_if_interrupted
from curate.base.wording import one_line
from curate.store.store import RunStore
from pipelines.engines.base import PipelineEngine

_SECONDS = 120  # that a worker has: on a busy machine its imports alone take half a minute
_STARTED = ("PROCESS", "EXTERNAL")  # environments of workers that are programs of this machine, or a service
_LOGGERS = ("PrismRunner", "PrismJobServer")  # by which Beam hands on what Prism and its workers say


def check_java(launcher: str, needed: str, least: int = 0) -> None:
    """Raise RecipeError where there is no Java, or one before version `least`."""
    install = "install one (a JRE is enough), and set JAVA_HOME or PATH to find it"
    try:
        done = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RecipeError(f"{needed}, but none is found: {one_line(error, 200)}; {install}") from None
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # 1.8.0_392 is 8
    if version and int(version[1]) < least:
        raise RecipeError(f"{needed}, but {launcher} is Java {version[1]}; {install}")


@contextmanager
def fetching(needed: str, accepted: str) -> Iterator[None]:
    """Let Beam find or download a program in the block. Raises RecipeError where it is not there."""
    try:
        yield
    except Exception as error:  # of Beam's downloads: of many kinds
        raise RecipeError(f"{needed}, which is missing: {one_line(error, 500)}; accepted: {accepted}") from None


def check_that_a_worker_starts(engine: PipelineEngine, store: RunStore) -> None:
    """Run a pipeline of one element, where workers are programs of their own.

    Raises RunError where no worker takes it within `_SECONDS`, with what was said meanwhile.
    """
    settings = engine.options.view_as(PortableOptions)
    if settings.environment_type not in _STARTED:
        return
    with _listening() as heard:
        try:
            job = engine.submit(lambda root: root | beam.Create([0]), store)
            ends = time.monotonic() + _SECONDS
            with stopped_if_interrupted(job.cancel):
                while not PipelineState.is_terminal(state := job.state) and time.monotonic() < ends:
                    if any("process failed" in line for line in heard):
                        break
                    time.sleep(0.1)
        except Exception as error:  # of the job server, of many kinds
            raise RunError(f"{engine.name}: {one_line(error, 500)}") from None
        if state == PipelineState.DONE:
            return
        with suppress(Exception):
            job.stop()
    output = f"; output: {one_line(' · '.join(heard), 500)}" if heard else ""
    config = f"environment_type {settings.environment_type}, environment_config {settings.environment_config}{output}"
    accepted = "a command that starts Beam's boot in an environment with curate, or LOOPBACK"
    raise RunError(f"{engine.name}: no worker started within {_SECONDS} s with {config}; accepted: {accepted}")


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Have what Prism and its workers say of failures, in the block, in a list, and nowhere else."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear, loggers = Ear(), [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(ear)
        logger.propagate = False
    try:
        yield heard
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(ear)
            logger.propagate = propagate
