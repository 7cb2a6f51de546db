"""Prepares a run: plans it, and checks everything that can be checked before the run."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from curate.base import ids
from curate.base.errors import RecipeError, UnknownColumn
from curate.captions.engines import identify_engines
from curate.captions.settings import check_captions
from curate.decide.decontamination import evaluation_key
from curate.decide.rules.rules import named_columns
from curate.decide.settings import DecideSettings
from curate.download.retry_record import Retries
from curate.emit.columns import find_emitted
from curate.emit.output_format import find_output
from curate.match.metadata import ImportReport, read_metadata
from curate.match.unit import Entries
from curate.pool.plan import PackedUnits, Plan, Unit, make_plan
from curate.pool.registry import find_downloading, find_format
from curate.pool.retry import find_mendable
from curate.publish.forget.lists import read_list
from curate.recipe.measure import measured_by
from curate.recipe.recipe import Recipe
from curate.recipe.secrets import check_variables, refuse_literals
from curate.recipe.source import Source
from curate.run.columns import check_columns
from curate.run.context import RunContext
from curate.run.inputs import naming_all_missing, place_inputs
from curate.signals.registry import find_signals, identify_models
from curate.store.chunks import find_chunks
from curate.store.facts import read_unit_keys
from curate.store.forgotten import REQUESTED, Record
from curate.store.items import unite
from curate.store.layout import INPUTS, RUN_FILE
from curate.store.store import RunStore
from pipelines.claim import Prepared
from pipelines.engines.choose import choose_engine
from pipelines.identity import is_finished


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
    """Plan a run into `out`, and check everything that can be checked before the run. Writes nothing.

    Args:
        recipe: the checked recipe.
        out: the run folder: new, or with a run of the same recipe.
        reuse: an earlier run, whose tables are adopted if their keys are equal.
        content: detect changed inputs by content instead of size and etag or mtime.
        options: Beam options, as words.
        unit_size: see `make_plan`.
        retry: if the run is finished, retry rows that may succeed.
        on: a file of Beam options, which `options` override.

    Raises:
        RecipeError: inputs, metadata, rules, folders or options are wrong, or the engine lacks something here.
    """
    folder, old = _open(out), _open_reused(reuse) if reuse else None
    retries = Retries.read(old if old and not folder.exists(RUN_FILE) else folder)
    engine = choose_engine(options, on, folder.url)
    engine.check()
    _check_storage(recipe, engine.place.is_cluster)
    sent, inputs = (recipe, {}) if engine.place.is_this_machine else place_inputs(recipe, folder, INPUTS)

    def make(retries: Retries) -> Plan:
        return _locate(make_plan(recipe, content, unit_size, named_columns(recipe), retries), recipe, folder, old)

    with naming_all_missing(recipe):
        plan = make(retries)
        models = identify_models(recipe.measure, plan.pool.embeddings, is_local=not engine.place.is_cluster)
        plan = _without_measured(plan, recipe, models)
        metadata, imported, metadata_key = _read_entries(recipe)
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
            counts_key=recipe.selector.files_key(recipe.selection[1], metadata_key) if recipe.selection else "",
            blocklist_key=record.key,
            retries_key=retries.key,
            place=engine.place,
        )
        _check(context)
    finished = is_finished(context, plan.units, out)
    prepared = Prepared(context, plan, metadata, imported, record, retries, finished, engine, sent, inputs)
    return _with_round(prepared, make) if retry and finished else prepared


def _with_round(prepared: Prepared, make: Callable[[Retries], Plan]) -> Prepared:
    """Return a finished run with a new round of retries, if there are rows that may succeed."""
    context = prepared.context
    rows = find_mendable(context.store, prepared.plan.units, context.recipe.input)
    if not len(rows):
        return prepared
    retries = prepared.retries.with_round(rows)
    plan = _without_measured(make(retries), context.recipe, context.models)
    context = replace(context, pool=plan.pool, retries_key=retries.key)
    return replace(prepared, context=context, plan=plan, retries=retries, finished=False)


def _without_measured(plan: Plan, recipe: Recipe, models: Mapping[str, Any]) -> Plan:
    """Return the plan without pool columns that signals also compute. In expressions, their names mean the signals'."""
    measured = {column.name.lower() for signal in find_signals(recipe.measure, models) for column in signal.columns}
    return replace(plan, pool=plan.pool.without_named(measured))


def _open(folder: str) -> RunStore:
    """Return the run folder for a path or URL, independent of a worker's current folder."""
    return RunStore(folder if "://" in folder else os.path.abspath(folder))


def _open_reused(reuse: str) -> RunStore:
    old = _open(reuse)
    if not old.exists(RUN_FILE):
        raise RecipeError(f"--reuse {reuse}: is not a run (no {RUN_FILE}); accepted: the --out of an earlier run")
    return old


def _check_storage(recipe: Recipe, is_cluster: bool) -> None:
    """Check that the environment variables of sources are set, and that no secret would be sent to other machines."""
    for source in recipe.input:
        check_variables(source.name, source.storage)
        if is_cluster:
            refuse_literals(source.name, source.storage)


def _read_entries(recipe: Recipe) -> tuple[pa.Table | None, ImportReport | None, str]:
    if recipe.match is None:
        return None, None, ""
    metadata, imported = read_metadata(recipe.match.metadata, mode=recipe.match.mode)
    if not metadata:
        raise RecipeError(f"match.metadata: {recipe.match.metadata} has no entries")
    if recipe.selection:
        recipe.selector.check_entries(recipe.selection[1], Entries.of(metadata))
    return metadata, imported, ids.table_digest(metadata)


def _check(context: RunContext) -> None:
    recipe = context.recipe
    check_columns(recipe, context.pool, find_signals(recipe.measure, context.models))
    try:
        DecideSettings.of(context)  # checks rules and passes
        if recipe.captions:
            check_captions(context)
        find_emitted(context)
        find_output(context.recipe.output.format, context.pool.has_images)
    except UnknownColumn as error:
        missing = ((source.name, find_format(source).missing_column(source, error.column)) for source in recipe.input)
        hints = "".join(f"; input {name!r}: {hint}" for name, hint in missing if hint)
        raise RecipeError(f"{error}{hints}{measured_by(error.column)}") from None


def _locate(plan: Plan, recipe: Recipe, folder: RunStore, old: RunStore | None) -> Plan:
    """Return the plan, with each unit's chunk, and the unit of the reused run that has the same inputs."""
    chunks = find_chunks(folder)
    old_chunks = find_chunks(old) if old else {}
    keys, paths = read_unit_keys(old) if old else ([], {})
    numbers = {key: number for number, key in enumerate(keys)}
    if not chunks and not numbers:
        return plan
    sources = {source.name: source for source in recipe.input}
    moves = {name: [None, *_moves(source.paths, paths.get(name, ()))] for name, source in sources.items()}

    def locate(unit: Unit) -> Unit:
        unit = replace(unit, chunk=chunks.get(unit.index))
        for moved in moves[unit.source]:
            assigned = replace(unit, moved=moved)
            number = numbers.get(assigned.before.key if moved else unit.key)
            if number is not None and _has_shards(sources[unit.source], assigned):
                return replace(assigned, reuse_index=number, reuse_chunk=old_chunks.get(number))
        return unit

    return replace(plan, units=PackedUnits(map(locate, plan.units)))


def _has_shards(source: Source, unit: Unit) -> bool:
    """Return whether a unit whose files moved has the same shards; True if its source is not downloaded."""
    kind = find_downloading(source)
    lists = [[kind.list_key(source, part) for part in each.parts] for each in (unit, unit.before) if kind]
    return not lists or lists[0] == lists[1]


def _moves(now: Sequence[str], was: str | Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of path prefixes of a source, now and in another run, if they differ."""
    for pair in zip(now, [was] if isinstance(was, str) else was, strict=False):
        new, old = (re.split(r"[{*?\[]", path, maxsplit=1)[0] for path in pair)
        folders = new.rpartition("/")[0], old.rpartition("/")[0]
        yield from ((a, b) for a, b in ((new, old), folders) if a and a != b)


def _gather_record(recipe: Recipe, folder: RunStore, old: RunStore | None) -> Record:
    record = Record.read_checked(folder)
    if old:
        record = record.inherit(Record.read_checked(old))
    if recipe.blocklist:
        paths = (recipe.blocklist,) if isinstance(recipe.blocklist, str) else recipe.blocklist
        record = record.append(unite(map(read_list, paths)), REQUESTED)
    return record
