"""Writes table `related` of each unit: the columns of all relations of the recipe.

Its footer names the models of the run (`models/NAME.npy`) that it was made with; lost or damaged ones are made again.
"""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from curate.base import ids, schema
from curate.base.numeric.arrays import drop_nonfinite
from curate.base.stages import VERSIONS
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Unit
from curate.recipe.measure import column_prefix
from curate.recipe.relate import RELATIONS
from curate.relate.relation import Asking, Model, Reading
from curate.run.context import RunContext, StepSettings
from curate.run.units import Answer, Fold, Units
from curate.store.store import RunStore
from curate.store.tables import OpenTables
from curate.store.timings import time_step
from curate.store.validity import valid_digest


@dataclass(frozen=True)
class RelateSettings(StepSettings):
    """The settings for relating."""

    store: RunStore
    relations: tuple[Reading, ...]
    key: str  # of `related` if all files could be read; empty without relations
    reuse: RunStore | None = None  # the run whose tables and models are adopted

    @classmethod
    def of(cls, context: RunContext) -> "RelateSettings":
        """Return the settings for a run, with a `Reading` for each relation of the recipe.

        `context.share` is the measured part of the pool: less than 1 in a plan on a sample.
        """
        store, seed, share = context.store, context.recipe.seed, context.share
        relations = [
            Reading(store, RELATIONS.find(key), name, column_prefix(section.of), seed, share, section)
            for key, name, section in context.recipe.relate.requested
        ]
        return cls(store, tuple(relations), related_key(context), context.reuse)

    def key_without(self, unread: Sequence[str]) -> str:
        """Return the key of `related` if these files, in any order, could not be read."""
        return ids.digest([self.key, sorted(unread)]) if unread else self.key


def related_key(context: RunContext) -> str:
    """Return the key of all `related` tables of a run, which depend on the whole pool; empty without relations."""
    if not (requested := context.recipe.relate.requested):
        return ""
    measured = MeasureSettings.of(context)
    keys = {signal.name: signal.key for signal in measured.signals}
    relations = [
        [key, RELATIONS.find(key).version, RELATIONS.package(key), name, section.model_dump(), keys[section.of]]
        for key, name, section in requested
    ]
    blocklist = [context.blocklist_key] if context.blocklist_key else []
    return ids.digest([VERSIONS["relate"], context.pool.key, context.recipe.seed, relations, *blocklist])


def relate(units: Units, context: RunContext, unread: Answer[list[str]]) -> None:
    """Write `related` of each unit; `unread` are the files of all units that could not be read."""
    settings = RelateSettings.of(context)
    made_by = units.ask("Relate: models", _read_models, settings, unread, combine=Fold[frozenset[str]](operator.or_))
    stale = units.get("Relate: stale", _is_stale, settings, made_by)
    asking = [Asking(units, stale, reading) for reading in settings.relations]
    begun = [replace(each, begun=each.reading.kind.begin(each, each.reading.section)) for each in asking]
    models = {each.reading.name: each.reading.kind.fit(each, each.reading.section) for each in begun}
    together = units.get("Relate: together", lambda **models: models, **models)
    units.then("Relate", relate_unit, settings, unread, together)


def _read_models(
    tables: OpenTables, unit: Unit, settings: RelateSettings, unread: Sequence[str]
) -> Iterator[frozenset[str]]:
    """Yield the digests of the models that a unit's table was made with, as JSON; empty if it is not current."""
    is_current = tables.is_done("related", settings.key_without(unread))
    yield frozenset([json.dumps(tables.note("related").get("models", {}), sort_keys=True) if is_current else ""])


def _is_stale(settings: RelateSettings, made_by: frozenset[str] | None) -> bool:
    """Return whether a table is not current, or a model is missing here and in the reused run; adopt models."""
    if made_by is None or len(made_by) > 1 or "" in made_by:
        return True
    return not all(_adopt(settings, file, sha256) for file, sha256 in json.loads(*made_by).items())


def _adopt(settings: RelateSettings, file: str, sha256: str) -> bool:
    """Return whether a model is valid in this run or in the reused one, from which it is adopted."""
    for store in (settings.store, settings.reuse):
        if store and store.exists(file) and (digest := valid_digest(store, file)) and digest.sha256 == sha256:
            if store is settings.reuse:
                settings.store.adopt(store, file, file, digest)
            return True
    return False


def relate_unit(
    tables: OpenTables,
    unit: Unit,
    settings: RelateSettings,
    unread: Sequence[str],
    models: Mapping[str, Model | None] | None,
) -> Unit:
    """Write the unit's `related` unless it is current. If no row has embeddings, there is no model, and it is null."""
    with time_step(settings.store, "relate", unit.name) as timer:
        timer.rows, key = tables.rows(), settings.key_without(unread)
        if tables.is_done("related", key):
            timer.idle = True
            return unit
        table = tables.read("samples", [field.name for field in schema.ALIGNED])
        nonfinite: dict[str, dict[str, int]] = {}
        for reading in settings.relations:
            rows, model = reading.read(tables), (models or {}).get(reading.name)
            fields = reading.kind.columns(reading.name, reading.section)
            if model is None:
                values: Sequence[pa.Array] = [pa.nulls(len(rows.rows), field.type) for field in fields]
            else:
                values = reading.kind.apply(model.load(), reading.section, rows)
            index = np.full(len(table), -1)
            index[rows.rows] = np.arange(len(rows.rows))
            at = pa.array(index, mask=index < 0)
            for field, column in zip(fields, values, strict=True):
                finite, count = drop_nonfinite(column.cast(field.type).take(at))
                table = table.append_column(field, finite)
                if count:
                    nonfinite.setdefault(reading.name, {})[field.name] = count
        made_by = {model.file: model.sha256 for model in (models or {}).values() if model and model.is_kept}
        note = {"models": made_by} if made_by else {}
        tables.write("related", table, key, note | ({"nonfinite": nonfinite} if nonfinite else {}) or None)
    return unit
