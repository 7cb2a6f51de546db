"""Prepares a run, checks what can be checked before it, runs the pipeline on a Beam runner, and reports how it ended."""

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

from curate import ids
from curate.captions.engines import find_faults, identify_engines
from curate.captions.settings import CaptionSettings, check_captions
from curate.decide.decontamination import evaluation_key
from curate.decide.other_counts import counts_key, read_counts
from curate.decide.rules import named_columns
from curate.decide.settings import DecideSettings
from curate.errors import RecipeError, RunError, UnknownColumn
from curate.forget.lists import read_lists
from curate.measure.current import needed_signals
from curate.measure.settings import MeasureSettings
from curate.metadata.sources import read_metadata
from curate.metadata.unit import MatchSettings, load_matcher
from curate.output.columns import find_emitted
from curate.pool.formats.registry import find_format
from curate.pool.plan import PackedUnits, Plan, Unit, make_plan
from curate.pool.retry import find_mendable
from curate.process import in_threads
from curate.recipe.recipe import Recipe
from curate.run.columns import check_columns
from curate.run.context import RunContext
from curate.run.inputs import naming_all_missing, place_inputs
from curate.signals.registry import find_signals, identify_models
from curate.signals.signal import Signal
from curate.store.chunks import find_chunks
from curate.store.error_notes import ERROR_NOTES, read_error_note
from curate.store.facts import read_unit_keys
from curate.store.forgotten import REQUESTED, Record
from curate.store.layout import ANSWER_PARTS, FAILURES_FILE, INPUTS, RUN_FILE, STAGES_FILE, SUCCESS_FILE
from curate.store.lock import clear_tmp
from curate.store.retries import Retries
from curate.store.store import RunStore
from pipelines.claim import Prepared, is_finished
from pipelines.curate import build
from pipelines.engine_checks import check_engine
from pipelines.options import parse_options
from pipelines.spark.options import SparkOptions
from pipelines.workers import check_workers

_BETWEEN = 5000  # milliseconds between two looks at which stages have ended


def prepare(
    recipe: Recipe,
    out: str,
    reuse: str | None = None,
    content: bool = False,
    options: Sequence[str] = (),
    unit_size: int | None = None,
    retry: bool = False,
    on: str | None = None,
) -> Prepared:
    """Plan a run into `out`, and check everything that can be checked before it; write nothing.

    Args:
        recipe: the checked recipe.
        out: the run folder, new, or that of the same recipe.
        reuse: an older run, whose tables are adopted where their keys are equal.
        content: fingerprint inputs by their content instead of size and etag or mtime.
        options: of Beam, as words.
        unit_size: see `make_plan`.
        retry: where the run is finished, try again what may come on another attempt.
        on: a file of Beam's options, which come before `options`.

    Raises:
        RecipeError: inputs, metadata, rules, folders or options are wrong, or the runner misses something here.
    """
    folder = RunStore(out if "://" in out else os.path.abspath(out))
    old = None
    if reuse:
        old = RunStore(reuse)
        if not old.exists(RUN_FILE):
            raise RecipeError(f"--reuse {reuse}: is not a run (no {RUN_FILE}); accepted: the --out of an earlier run")
    retries = Retries.read(old if old and not folder.exists(RUN_FILE) else folder)
    beam_options = parse_options(options, on)
    check_engine(beam_options.runner, beam_options.options)
    sent, inputs = (recipe, {}) if beam_options.is_here else place_inputs(recipe, folder, INPUTS)

    def make(retries: Retries) -> Plan:
        plan = make_plan(recipe, content, unit_size, named_columns(recipe), retries)
        return _with_chunks(_with_reuse(plan, old) if old else plan, folder)

    with naming_all_missing(recipe):
        plan = make(retries)
        models = identify_models(recipe.measure, plan.pool.embeddings, beam_options.is_local_runner)
        signals = find_signals(recipe.measure, models)
        measured = {column.name.lower() for signal in signals for column in signal.columns}
        plan = replace(plan, pool=plan.pool.without_named(measured))  # such names mean the signals'
        metadata, metadata_key = None, ""
        if recipe.match:
            metadata = read_metadata(recipe.match.metadata)[0]
            if not len(metadata):
                raise RecipeError(f"match.metadata: {recipe.match.metadata} has no entries")
            metadata_key = ids.table_digest(metadata)
        record = _gather_record(recipe, folder, old)
        context = RunContext(
            recipe=recipe,
            pool=plan.pool,
            store=folder,
            reuse=old,
            metadata_key=metadata_key,
            models=models,
            engine_ids=identify_engines(recipe.captions) if recipe.captions else {},
            evaluation_key=evaluation_key(recipe.dedup.against) if recipe.dedup.against else "",
            counts_key=counts_key(read_counts(recipe, metadata_key)),
            blocklist_key=record.key,
            retries_key=retries.key,
            is_local_runner=beam_options.is_local_runner,
        )
        _check(context, signals)
    prepared = Prepared(context, plan, metadata, record, retries, is_finished(context, out), beam_options, sent, inputs)
    if retry and prepared.finished:
        rows = find_mendable(plan.units, recipe.input, folder.read_parquet(FAILURES_FILE))
        if len(rows):
            retries = retries.with_round(rows)
            plan = make(retries)
            plan = replace(plan, pool=plan.pool.without_named(measured))
            context = replace(context, pool=plan.pool, retries_key=retries.key)
            return replace(prepared, context=context, plan=plan, retries=retries, finished=False)
    return prepared


def _check(context: RunContext, signals: Sequence[Signal]) -> None:
    """Check the recipe's columns, rules, passes and captions, and what is emitted. Raises RecipeError."""
    recipe = context.recipe
    check_columns(recipe, context.pool, signals)
    try:
        DecideSettings.of(context)  # checks rules and passes
        if recipe.captions:
            check_captions(CaptionSettings.of(context))
        find_emitted(context)
    except UnknownColumn as error:
        found = ((source.name, find_format(source).missing_column(source, error.column)) for source in recipe.input)
        hints = "".join(f"; input {name!r}: {hint}" for name, hint in found if hint)
        raise RecipeError(f"{error}{hints}") from None


def _with_chunks(plan: Plan, folder: RunStore) -> Plan:
    """Return the plan whose units say which chunk holds them in the run's own folder, where that was published before."""
    chunks = find_chunks(folder)
    if not chunks:
        return plan
    return replace(plan, units=PackedUnits(replace(unit, chunk=chunks.get(unit.index)) for unit in plan.units))


def _with_reuse(plan: Plan, old: RunStore) -> Plan:
    """Return the plan whose units say which unit of an older run has the same inputs, whatever its number there."""
    numbers = {key: number for number, key in enumerate(read_unit_keys(old))}
    chunks = find_chunks(old)

    def with_reuse(unit: Unit) -> Unit:
        number = numbers.get(unit.key)
        return replace(unit, reuse_index=number, reuse_chunk=None if number is None else chunks.get(number))

    return replace(plan, units=PackedUnits(map(with_reuse, plan.units)))


def _gather_record(recipe: Recipe, folder: RunStore, old: RunStore | None) -> Record:
    """Return the record of what is forgotten in the folder, in the run to reuse, and by the recipe's blocklist."""
    record = Record.read_checked(folder)
    if old:
        record = record.inherit(Record.read_checked(old))
    if recipe.blocklist:
        paths = (recipe.blocklist,) if isinstance(recipe.blocklist, str) else recipe.blocklist
        record = record.append(read_lists(paths), REQUESTED)
    return record


def preflight(prepared: Prepared, report: Callable[[str], None] = lambda line: None) -> None:
    """Load the models that this process will use, and probe endpoints, so that faults are reported before anything is written.

    Engines are not probed where there are cached answers: there may be nothing to request. Spark's executors are asked too.
    `report` is given a line that says which engine it is, unless that is the local one.

    Raises:
        RecipeError: a model, a package, an endpoint or its key is missing, or exemplars are of no use.
        RunError: a model cannot be loaded, or an endpoint does not answer.
    """
    context = prepared.context
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
        build(root, replace(context, recipe=prepared.sent), prepared.plan.units, n_buckets)
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
