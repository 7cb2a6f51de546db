"""Runs the pipeline of a prepared run on its engine: checks what the run needs, waits, and reports how it ended."""

import csv
import gc
import io
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import apache_beam as beam
from apache_beam.runners.worker import sdk_worker

from curate.ask.status import describe_attempts
from curate.base.errors import CurateError, RecipeError, RunError
from curate.base.meter import START
from curate.base.process import in_threads, stopped_if_interrupted
from curate.captions.engines import find_faults
from curate.measure.current import needed_signals
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Unit
from curate.run.columns import table_names
from curate.run.in_process import InProcessUnits
from curate.run.units import WorkerLocation
from curate.store.attempts import read_attempts
from curate.store.error_notes import join_errors, note_end, read_error_note
from curate.store.layout import ANSWER_PARTS, ATTEMPTS, CAPTION_ATTEMPTS, STAGES_FILE, SUCCESS_FILE
from curate.store.lock import FolderLock, clear_tmp
from curate.store.store import RunStore
from curate.store.timings import log_used
from pipelines.claim import Prepared
from pipelines.curate import build
from pipelines.engines.job import EngineUnresponsiveError, Job, Submission
from pipelines.spark.context import StageCost
from pipelines.steps.units import BeamUnits

_log = logging.getLogger(__name__)


def preflight(prepared: Prepared, report: Callable[[str], None] = lambda line: None) -> None:
    """Load this process's models, probe endpoints, and check workers, before anything is written.

    Caption engines with cached answers are not probed, because there may be nothing to request. `report` prints the
    engine, unless it is local.

    Raises:
        RecipeError: a model, a package, an endpoint or its key is missing, or workers cannot see the folder.
        RunError: a model cannot be loaded, or an endpoint does not answer.
    """
    context, engine = prepared.context, prepared.engine
    engine.check_folder(context.store)
    is_here = context.place is WorkerLocation.THIS_PROCESS
    begun = ("tables/answers", ANSWER_PARTS, f"{ATTEMPTS}/{CAPTION_ATTEMPTS}")
    has_answers = context.reuse is not None and bool(context.reuse.files("tables/answers"))
    if context.recipe.captions and not (has_answers or any(map(context.store.files, begun))):
        for error in find_faults(context.recipe.captions, context.engine_ids, is_here):
            raise error
    if is_here:
        _load_models(prepared)
    engine.check_workers(context, prepared.plan.units, report)


def _load_models(prepared: Prepared) -> None:
    context = prepared.context
    settings = MeasureSettings.of(context)
    waiting = {signal.name: signal.load for signal in settings.signals if signal.load}
    units = prepared.plan.units if waiting else ()
    for needed in in_threads(lambda unit: needed_signals(settings, unit, context.unit_tables(unit)), units):
        for signal in needed:
            if load := waiting.pop(signal.name, None):
                load()
        if not waiting:
            break


def run(prepared: Prepared, folder_lock: FolderLock | None = None, detach: bool = False) -> None:
    """Run the pipeline. Return when `_SUCCESS` is written, or with `detach` when the job is submitted.

    On the local engine, a sample may crash this process. Only the command `curate run` then starts a new one.

    Raises:
        RunError: the run failed. A rerun continues from its finished files.
        KeyboardInterrupt: the run was interrupted. A rerun continues.
    """
    context, engine = prepared.context, prepared.engine
    if folder_lock is None and (attempts := read_attempts(context.store)):
        in_flight = f"a process ended while it worked on this: {describe_attempts(attempts, prepared.plan.units)}"
        remedy = "if a sample crashes this process too, use `curate run`, which starts a new one"
        _log.warning(f"{context.store.url}: {in_flight}; {remedy}")
    log_used(context.store, START)
    rows = context.pool.rows or 10_000 * len(prepared.plan.units)
    n_buckets = max(4, min(1024, rows // 250_000))
    hints = engine.hints(context, rows, n_buckets)

    def add_steps(root: beam.Pipeline, spool: str) -> None:
        lease = folder_lock.lease if folder_lock else ""
        sent = replace(context, recipe=prepared.sent, lease=lease, tables=table_names(context))
        units = BeamUnits(root, prepared.plan.units, sent, hints, spool)
        build(units, sent, prepared.plan.units, n_buckets)
        units.finish()
        gc.freeze()  # otherwise each garbage collection scans all imported modules: 0.15 s, while all threads wait

    with _ending(context.store, folder_lock, prepared.plan.units):
        handle = engine.name_job(context.store) if engine.outlasts_driver else None
        if folder_lock and handle:
            folder_lock.record(engine=engine.key, handle=handle)
        with context.store.temporary_folder() as spool:
            find = partial(engine.attach, handle) if handle else None
            submission = Submission(engine.name, find, engine.place.is_cluster)
            with stopped_if_interrupted(submission.cancel):
                job = engine.submit(partial(add_steps, spool=spool), context.store)
                submission.set_job(job)
                if folder_lock and handle:
                    folder_lock.record(handle=job.handle, page=job.logs)
                    folder_lock.is_handed_over = detach
                if detach:
                    return
                try:
                    job.follow(lambda: _write_costs(context.store, job.costs))
                except EngineUnresponsiveError as error:
                    if folder_lock:
                        folder_lock.is_handed_over = engine.outlasts_driver
                    text = f"{error}\nThe job may still be running: run `curate status {context.store.url}`."
                    raise EngineUnresponsiveError(text) from None


def run_in_process(prepared: Prepared) -> None:
    """Run without Beam, unit by unit in this thread, so that errors keep their tracebacks."""
    context, units = prepared.context, prepared.plan.units
    build(InProcessUnits(units, context, is_serial=True), context, units, n_buckets=1)
    clear_tmp(context.store)


def run_job(store: RunStore, begin: Callable[[], Job]) -> None:
    """Start and follow the job of a run that another process prepared. This runs in the driver on a cluster.

    Raises the same errors as `run`.
    """
    with _ending(store):
        job = begin()
        job.wait(lambda: _write_costs(store, job.costs))


@contextmanager
def _ending(store: RunStore, folder_lock: FolderLock | None = None, units: Sequence[Unit] = ()) -> Iterator[None]:
    """Check how the run ended in the block, unless a job continues it. Turn an engine's errors into curate's errors."""
    message = ""
    try:
        with explaining(store, "Finished work is kept: run again to continue.", units):
            yield
    except CurateError as error:
        message = str(error)
        raise
    finally:
        if not (folder_lock and folder_lock.is_handed_over):
            note_end(store, message)
    if folder_lock and folder_lock.is_handed_over:
        return
    if not store.exists(SUCCESS_FILE):
        raise RunError(f"the engine reported no error, but {store.url} has no {SUCCESS_FILE}")
    clear_tmp(store)


@contextmanager
def explaining(store: RunStore, hint: str, units: Sequence[Unit] = ()) -> Iterator[None]:
    """Turn an engine's errors into curate's errors, with the hint and the units that were in flight."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if not os.environ.get("CURATE_DEBUG"):  # Beam prints tracebacks of errors that it also raises
        sdk_worker.print = lambda *texts, **options: None
    try:
        yield
    except (RecipeError, EngineUnresponsiveError):  # from a job server about its options, or from executors
        raise
    except Exception as caught:
        error = join_errors(caught.exceptions) if isinstance(caught, ExceptionGroup) else caught
        if message := read_error_note(store, error, hint):
            raise RunError(message) from None
        if _last_words(error).startswith("KeyboardInterrupt"):  # from a worker in this process, as text
            raise KeyboardInterrupt from None
        if os.environ.get("CURATE_DEBUG"):
            raise
        if attempts := read_attempts(store):
            hint = f"Work in progress: {describe_attempts(attempts, units)}. {hint}"
        raise RunError(f"{_last_words(error)}\n{hint}") from None
    finally:
        gc.unfreeze()


def _write_costs(store: RunStore, costs: Sequence[StageCost]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("stage", *StageCost._fields[1:]))
    for cost in costs:
        table.writerow(f"{value:.3f}" if isinstance(value, float) else value for value in cost)
    store.write_bytes(STAGES_FILE, text.getvalue().encode())


def _last_words(error: BaseException) -> str:
    """Return the error itself from the traceback that Beam gives as its message."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"[A-Za-z]", line)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    last = (errors or lines or [type(error).__name__])[-1]
    if " (error note" in last:  # the note could not be written, as on a full disk
        last = re.sub(r"^curate\.\S+Error: | \(error notes? [0-9a-f ]+\)| \[while running '[^']*'\]", "", last)
    return last[:1000]
