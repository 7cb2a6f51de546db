"""Claims a run folder for one recipe and one pool. Then only reruns of the same recipe can continue in it.

In: a prepared run. Out: the folder is locked, run.json and the workers' files are written, and leftovers are removed.
"""

import logging
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate import __version__
from curate.ask.opened import connected
from curate.base.errors import RecipeError, RunError, describe, is_disk_full
from curate.base.registry import Registry, version
from curate.base.wording import pluralize
from curate.decide.decontamination import write_evaluation
from curate.decide.settings import DecideSettings
from curate.download.retry_record import Retries
from curate.emit.columns import find_emitted
from curate.emit.output_format import find_output
from curate.expressions.check import STATISTICS
from curate.match.metadata import ImportReport
from curate.match.unit import keep_entries
from curate.measure.settings import MeasureSettings
from curate.pool.formats.run import read_input_runs
from curate.pool.plan import Plan
from curate.pool.registry import find_format
from curate.publish.describe import finish_description, update_description
from curate.publish.forget.forget import lost_items
from curate.recipe.captions import CAPTION_KINDS, ENGINES
from curate.recipe.clouds import check_bucket
from curate.recipe.deciding import SELECTIONS
from curate.recipe.gates import GATES
from curate.recipe.measure import SIGNALS
from curate.recipe.output import OUTPUTS
from curate.recipe.recipe import Recipe
from curate.recipe.relate import RELATIONS
from curate.recipe.source import FORMATS
from curate.run.context import RunContext
from curate.run.inputs import copy_inputs
from curate.store.facts import MetadataFacts, RunClaim, read_facts, write_facts
from curate.store.forgotten import Record
from curate.store.layout import DESCRIBING_FILE, DRIVER_LOG, INPUTS, METADATA_FILE, NEW_FILE, STEPS_LOG, SUCCESS_FILE
from curate.store.lease import MayEnd
from curate.store.lock import FolderLock, Keeper, clear_tmp, locked
from curate.store.store import RunStore
from pipelines import identity
from pipelines.engines.base import PipelineEngine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run after planning and checking."""

    context: RunContext
    plan: Plan
    metadata: pa.Table | None  # None without `match`
    imported: ImportReport | None  # for the metadata
    record: Record
    retries: Retries  # the rows of the pool that are retried
    finished: bool  # `_SUCCESS` exists, and there is nothing to forget
    engine: PipelineEngine
    sent: Recipe  # for workers; on other machines, its small files are in the run folder
    inputs: dict[str, str]  # these small files: name in the run folder → local path


@contextmanager
def claimed(prepared: Prepared, may_end: MayEnd | None = None, keeper: Keeper | None = None) -> Iterator[FolderLock]:
    """Claim the folder and lock it during the block, or for a job. Raises RecipeError and RunError."""
    store = prepared.context.store
    with ExitStack() as held:
        try:
            folder_lock = held.enter_context(locked(store, "run", may_end, prepared.engine.outlasts_driver, keeper))
            # it is from the previous command: do not take its error for this command's
            if not folder_lock.holder.log:
                store.delete_file(DRIVER_LOG)
            claim_folder(prepared)
        except OSError as error:
            check_bucket(store.fs, store.root)
            raise RecipeError(f"--out {store.url}: cannot be written: {describe(error)}") from None
        yield folder_lock


def claim_folder(prepared: Prepared) -> None:
    """Write run.json and the workers' files, which binds the folder to the recipe. The caller holds the lock.

    Raises RunError if the folder was changed since the run was prepared, or a file cannot be read now.
    """
    context, record, metadata = prepared.context, prepared.record, prepared.metadata
    store = context.store
    if len(Record.read_checked(store).items - record.items):
        raise RunError(f"{store.url}: samples were removed here while the run was being prepared; run again")
    is_new = not store.is_local and not identity.is_run(store)
    if identity.is_finished(context, prepared.plan.units, store.url):
        raise RunError(f"{store.url}: another command has already finished this run; there is nothing left to do")
    if lost := lost_items(store, record):
        request = f"a request to forget {pluralize(lost, 'item')}"
        _log.error(f"{store.url}: {request} was interrupted before it was recorded; make the request again")
    identity.log_damage(store)
    clear_tmp(store, keep=STEPS_LOG)
    # If it exists here, a published run was damaged. The steps check what is still valid.
    store.delete_file(SUCCESS_FILE)
    store.write_bytes(NEW_FILE, b"\n") if is_new else store.delete_file(NEW_FILE)
    if len(record):
        record.write(store)
    prepared.retries.write(store)
    is_shared = not store.is_local and store.fs.protocol != "memory"  # only this process sees memory
    if (context.place.is_cluster or is_shared) and not store.is_guarded():
        cause = "the store has no conditional PUT, or the disk has no hard links"
        risk = "a second attempt at a unit, or a second command, may overwrite files of the first"
        _log.warning(f"{store.url}: {cause}, so {risk}; turn off speculative tasks, and run one command at a time")
    write_facts(store, _claim(prepared))
    store.delete(INPUTS)
    if metadata is not None:
        store.write_parquet(METADATA_FILE, metadata)
        keep_entries(context.metadata_key, metadata)
    try:
        copy_inputs(prepared.inputs, store)
        for source in context.sources:
            of_source = (unit for unit in prepared.plan.units if unit.source == source.name)
            find_format(source).share(source, [part for unit in of_source for part in unit.parts], store)
        if context.recipe.dedup.against:
            write_evaluation(store, context.recipe, MeasureSettings.of(context).signals)
    except OSError as error:
        if store.root in str(error) or is_disk_full(error):
            raise
        raise RunError(f"cannot read an input: {describe(error)}; run again when it is readable") from error


def _claim(prepared: Prepared) -> RunClaim:
    context, record, metadata = prepared.context, prepared.record, prepared.metadata
    return RunClaim(
        curate=__version__,
        name=context.recipe.name,
        seed=context.recipe.seed,
        sources=[source.name for source in context.recipe.input],
        recipe=identity.plain_recipe(context.recipe),
        identity=identity.find_identity(context),
        keys=identity.run_keys(context, prepared.plan.units),
        unit_keys=[unit.key for unit in prepared.plan.units],
        models=context.models,
        engine_ids=context.engine_ids,
        metadata=None if metadata is None else MetadataFacts(entries=len(metadata), digest=context.metadata_key),
        python=platform.python_version(),
        packages={name: version(name) for name in identity.PACKAGES} | _plugins(context),
        started=time.time(),
        forgotten=record.facts if len(record) else None,
        retries=prepared.retries.facts if len(prepared.retries) else None,
        emitted=list(find_emitted(context).parquet),
        input_runs=read_input_runs(context.recipe.input) or None,
    )


def _plugins(context: RunContext) -> dict[str, str]:
    """Return the versions of other packages that the recipe uses, by name."""
    recipe, captions = context.recipe, context.recipe.captions
    derived = DecideSettings.of(context).derived.values()
    used: list[tuple[Registry[Any], Iterable[str]]] = [
        (SIGNALS, (request.kind for request in recipe.measure.requested)),
        (FORMATS, (source.format for source in recipe.input)),
        (RELATIONS, (key for key, _, _ in recipe.relate.requested)),
        (STATISTICS, (call.function for column in derived for call in column.statistics)),
        (SELECTIONS, (recipe.selection or ())[:1]),
        (OUTPUTS, [find_output(recipe.output.format, context.pool.has_images).key]),
    ]
    if captions:
        used += [
            (ENGINES, (captions.engines[task.section.engine].kind for task in captions.requested)),
            (CAPTION_KINDS, (task.section.key for task in captions.requested)),
            (GATES, (key for key in GATES.kinds() if key not in captions.gates.off)),
        ]
    packages = [registry.package(key) for registry, keys in used for key in keys]
    # `package` is "NAME VERSION", None for curate's own kinds, and just "NAME" if the package states no version.
    named = (package for package in [*packages, *recipe.dedup.packages] if package and " " in package)
    return dict(package.split(" ") for package in named)


def update_metadata(prepared: Prepared) -> list[str]:
    """Update a finished run's name and license from the recipe, and remove its report. Return the changed keys."""
    store, plain = prepared.context.store, identity.plain_recipe(prepared.context.recipe)
    if all(read_facts(store).recipe[key] == plain[key] for key in identity.DESCRIPTIVE_KEYS):
        return []
    with locked(store, "run"):
        facts = read_facts(store)
        changed = {key: plain[key] for key in identity.DESCRIPTIVE_KEYS if facts.recipe[key] != plain[key]}
        with connected(store.url) as run:
            rows = run.rows("SELECT source, rule, rows FROM drops UNION ALL SELECT source, NULL, kept FROM sources")
            drops = Counter({(row["source"], row["rule"]): row["rows"] for row in rows})
        update_description(store, facts.changed(name=plain["name"], recipe=facts.recipe | changed), drops)
    return list(changed)


def finish_updating(store: RunStore) -> None:
    """Complete an `update_metadata` that was killed, so that a rerun decides nothing again. Raises like `locked`."""
    if store.exists(DESCRIBING_FILE):
        with locked(store, "run"):
            finish_description(store)
