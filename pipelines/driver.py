"""Runs the pipeline of a prepared run on a Beam runner: loads and probes what it needs, waits, and says how it ended."""

import csv
import gc
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineState
from apache_beam.runners.worker import sdk_worker

from curate.base.errors import RecipeError, RunError
from curate.base.process import in_threads
from curate.captions.engines import find_faults
from curate.match.unit import MatchSettings, load_matcher
from curate.measure.current import needed_signals
from curate.measure.settings import MeasureSettings
from curate.store.error_notes import ERROR_NOTES, read_error_note
from curate.store.layout import ANSWER_PARTS, STAGES_FILE, SUCCESS_FILE
from curate.store.lock import clear_tmp
from curate.store.store import RunStore
from pipelines.claim import Prepared
from pipelines.curate import build
from pipelines.engine_checks import check_folder
from pipelines.spark.options import SparkOptions
from pipelines.steps.units import BeamUnits
from pipelines.workers import check_workers

_BETWEEN = 5000  # milliseconds between two looks at which stages have ended


def preflight(prepared: Prepared, report: Callable[[str], None] = lambda line: None) -> None:
    """Load the models that this process will use, and probe endpoints, so that faults are reported before anything is written.

    Engines are not probed where there are cached answers: there may be nothing to request. Spark's executors are asked too.
    `report` is given a line that says which engine it is, unless that is the local one.

    Raises:
        RecipeError: a model, a package, an endpoint or its key is missing, exemplars are of no use, or workers cannot see the folder.
        RunError: a model cannot be loaded, or an endpoint does not answer.
    """
    context = prepared.context
    check_folder(prepared.beam.runner, context.store)
    answered = any(folder and folder.files("tables/answers") for folder in (context.store, context.reuse))
    if context.recipe.captions and not (answered or context.store.files(ANSWER_PARTS)):
        for fault in find_faults(context.recipe.captions, context.engine_ids, prepared.beam.in_this_process):
            raise fault
    if prepared.beam.in_this_process:
        _load_models(prepared)
    if prepared.beam.runner == "spark":
        from pipelines.executors import check_executors  # and all of the runner, which others do without

        report("checking Spark's executors; the first one takes 10 to 30 s to start")
        check_executors(prepared, report)
    elif not prepared.beam.is_local_runner:
        report(_describe_engine(prepared))
    check_workers(prepared.beam.runner, prepared.beam.options)


def _describe_engine(prepared: Prepared) -> str:
    """Return the name of a runner of Beam's, and where its job server is, if one is named."""
    server = prepared.beam.options.view_as(PortableOptions).job_endpoint
    return f"{prepared.beam.runner}{f' at {server}' if server else ''}"


def _load_models(prepared: Prepared) -> None:
    """Load the models that measuring needs into this process."""
    context = prepared.context
    settings = MeasureSettings.of(context)
    waiting = {s.name: s.load for s in settings.signals if s.load}
    if not waiting:
        return
    for needed in in_threads(
        lambda unit: needed_signals(settings, unit, context.unit_tables(unit)), prepared.plan.units
    ):
        for signal in needed:
            if load := waiting.pop(signal.name, None):
                load()
        if not waiting:
            break


def run(prepared: Prepared) -> None:
    """Run the pipeline; return once `_SUCCESS` is written.

    Raises:
        RecipeError: a job server does not know an option.
        RunError: the run failed; a rerun continues from its finished files.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    context = prepared.context
    n_buckets = max(4, min(1024, (context.pool.rows or 10_000 * len(prepared.plan.units)) // 250_000))
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if not os.environ.get("CURATE_DEBUG"):  # it prints the tracebacks of errors that it raises again anyway
        sdk_worker.print = lambda *texts, **options: None
    _load_ahead(prepared)
    if prepared.beam.runner == "spark":
        spark = prepared.beam.options.view_as(SparkOptions)
        spark.spark_exchange = spark.find_exchange() or f"{context.store.url}/tmp"
    root = beam.Pipeline(options=prepared.beam.options)
    try:
        context_sent = replace(context, recipe=prepared.sent)
        build(BeamUnits(root, prepared.plan.units, context_sent), context_sent, prepared.plan.units, n_buckets)
        gc.freeze()  # else each search for cycles goes through all that was imported: 0.15 s, and no thread runs meanwhile
        result = root.run()
        if prepared.beam.runner == "spark":
            _follow(result, context.store)
        else:
            result.wait_until_finish()
    except RecipeError:  # of a job server, about its options
        raise
    except Exception as error:
        if message := read_error_note(context.store, error):
            raise RunError(message) from None
        if _last_words(error).startswith("KeyboardInterrupt"):  # one worker in this process: text like all else
            raise KeyboardInterrupt from None
        if os.environ.get("CURATE_DEBUG"):
            raise
        raise RunError(f"{_last_words(error)}\nFinished work is kept: run again to continue.") from None
    finally:
        gc.unfreeze()
        context.store.delete(ERROR_NOTES)
    if not context.store.exists(SUCCESS_FILE):
        raise RunError(f"the runner ended without an error, but {context.store.url} has no {SUCCESS_FILE}")
    clear_tmp(context.store)


def _follow(result: Any, store: RunStore) -> None:
    """Wait for a pipeline on Spark, and meanwhile write what the stages took that have ended."""
    written = 0
    try:
        while not PipelineState.is_terminal(result.wait_until_finish(_BETWEEN)):
            if len(result.costs) > written:
                written = _write_costs(store, result.costs)
    finally:
        _write_costs(store, result.costs)


def _write_costs(store: RunStore, costs: Sequence[Any]) -> int:
    """Say what each stage on Spark took, see `pipelines.spark.execution.Cost`; return how many they are."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("stage", "tasks", "seconds", "seconds_in_bundles", "bytes_shuffled", "bytes_given"))
    for cost in costs:
        row = (cost.name, cost.tasks, f"{cost.seconds:.3f}", f"{cost.in_bundles:.3f}", cost.shuffled, cost.given)
        table.writerow(row)
    store.write_bytes(STAGES_FILE, text.getvalue().encode())
    return len(costs)


def _load_ahead(prepared: Prepared) -> None:
    """Build the matcher of a new run while Beam builds its steps: all units wait for it, and neither needs the other's core."""
    context = prepared.context
    is_new = context.reuse is None and not context.store.names("tables/matches")
    if context.recipe.match and prepared.beam.in_this_process and is_new:
        settings = MatchSettings.of(context)

        def load() -> None:
            with suppress(Exception):  # the first unit reports it
                load_matcher(settings)

        threading.Thread(target=load, name="matcher").start()


def _last_words(error: BaseException) -> str:
    """Return the error itself, out of the traceback that Beam makes of it."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"[A-Za-z]", line)]
    found = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (found or lines or [type(error).__name__])[-1][:1000]
