"""The registry of engines, for `runner: KEY` in the file of --on or after `--`. `base` says how to add one.

It also asks and stops the holder of a run folder from any process: a job through its engine, or a process directly.
"""

import os
import signal
import time
from contextlib import suppress

from apache_beam.runners.runner import PipelineState

from curate.base.errors import RunError
from curate.base.registry import Registry
from curate.base.wording import one_line
from curate.store.lease import Holder
from pipelines.engines.base import PipelineEngine
from pipelines.engines.dataflow import Dataflow
from pipelines.engines.job import Job
from pipelines.engines.local import Local, Prism
from pipelines.engines.spark import Spark

KINDS: tuple[type[PipelineEngine], ...] = (Local, Spark, Prism, Dataflow)
ENGINES: Registry[type[PipelineEngine]] = Registry("engine", f"{__name__}:KINDS", "curate.engines")


def ask(holder: Holder) -> tuple[bool | None, str]:
    """Return whether a holder has ended (None: unknown), and the state of its job as text."""
    if not holder.handle:
        return holder.has_exited or (None if holder.is_detached or not holder.is_here else False), ""
    try:
        job = _attach(holder)
        state = job.state
        problem = job.fault if state == PipelineState.FAILED else None
    except Exception as error:  # from any library
        return None, f"{holder.engine} does not answer: {one_line(error, 200)}"
    has_ended = PipelineState.is_terminal(state) if state != PipelineState.UNKNOWN else holder.has_exited or None
    return has_ended, f"{state}: {one_line(problem, 300)}" if problem else state


def is_dead(holder: Holder) -> bool:
    """Return whether a holder is certainly dead: its lease is stale, or its job or process has ended."""
    return holder.is_stale or bool(ask(holder)[0])


def stop(holder: Holder, seconds: float) -> None:
    """Stop the job or the process. Raises TimeoutError if it does not end in time, and the engine's errors."""
    number, ends = holder.process, time.monotonic() + seconds
    if holder.handle:
        _attach(holder).stop(seconds)
        return
    if not holder.is_here:
        raise RunError(f"its driver is on another host; run `kill {number}` on {holder.host}")
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)  # it then cancels its jobs
    while not holder.has_exited:
        if time.monotonic() > ends:
            raise TimeoutError(f"process {number} does not end; to kill it, run `kill -9 {number}`")
        time.sleep(0.1)


def _attach(holder: Holder) -> Job:
    return ENGINES.find(holder.engine).attach(holder.handle or {})
