"""Table `related` of each unit: what relates its rows to the whole pool, by all relations of the recipe."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.base import ids, schema
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Unit
from curate.recipe.measure import column_prefix
from curate.recipe.relate import RELATIONS
from curate.relate.relation import Asking, Model, Reading, Relation
from curate.run.context import VERSIONS, RunContext, StepSettings
from curate.run.units import Answer, Fold, Units
from curate.store.layout import MODELS
from curate.store.store import RunStore
from curate.store.tables import OpenTables
from curate.store.timings import time_step


@dataclass(frozen=True)
class RelateSettings(StepSettings):
    """What relating reads."""

    store: RunStore
    relations: tuple[tuple[Reading, object], ...]  # each with its section
    key: str  # of `related`, where all files could be read; empty without relations
    reuse: RunStore | None = None  # the run whose tables are adopted, and with them its models

    @classmethod
    def of(cls, context: RunContext) -> "RelateSettings":
        """Return those of a run."""
        recipe = context.recipe

        def reading(key: str, name: str, of: str) -> Reading:
            kind: Relation = RELATIONS.find(key)
            return Reading(context.store, kind, name, column_prefix(of), recipe.seed)

        requested = recipe.relate.requested
        relations = tuple((reading(key, name, section.of), section) for key, name, section in requested)
        return cls(context.store, relations, related_key(context), context.reuse)

    def key_without(self, unread: Sequence[str]) -> str:
        """Return the key of `related` without the rows of these files, in any order, which could not be read."""
        return ids.digest([self.key, sorted(unread)]) if unread else self.key


def related_key(context: RunContext) -> str:
    """Return the key of all `related` of a run, which depend on the whole pool; empty without relations."""
    if not (requested := context.recipe.relate.requested):
        return ""
    measured = MeasureSettings.of(context)
    keys = {signal.name: signal.key for signal in measured.signals}
    relations = [
        [key, RELATIONS.find(key).version, RELATIONS.package(key), name, section.model_dump(), keys[section.of]]
        for key, name, section in requested
    ]
    blocklist = [context.blocklist_key] if context.blocklist_key else []
    return ids.digest([VERSIONS["related"], context.pool.key, context.recipe.seed, relations, *blocklist])


def relate(units: Units, context: RunContext, unread: Answer[list[str]]) -> None:
    """Write `related` of each unit; `unread` are the files of all units that could not be read."""
    settings = RelateSettings.of(context)
    has_models = all(_is_whole(settings, reading) for reading, _ in settings.relations if reading.kind.has_model)
    stale = units.ask("Relate: stale", _count_stale, settings, unread, has_models, combine=Fold[int]())
    models = {
        reading.name: reading.kind.fit(Asking(units, stale, reading), section)
        for reading, section in settings.relations
    }
    together = units.get("Relate: models", lambda **models: models, **models)
    units.then("Relate", relate_unit, settings, unread, together)


def _is_whole(settings: RelateSettings, reading: Reading) -> bool:
    """Return whether the model of an earlier attempt, or else of the run to reuse, is there and not cut short."""
    file = f"{MODELS}/{reading.name}.npy"
    store = next((store for store in (settings.store, settings.reuse) if store and store.exists(file)), None)
    try:
        return store is not None and bool(np.load(io.BytesIO(store.read_bytes(file)), allow_pickle=False).size)
    except (ValueError, EOFError):
        return False


def _count_stale(
    tables: OpenTables, unit: Unit, settings: RelateSettings, unread: Sequence[str], has_models: bool
) -> Iterator[int]:
    yield int(not (has_models and tables.is_current("related", settings.key_without(unread))))


def relate_unit(
    tables: OpenTables,
    unit: Unit,
    settings: RelateSettings,
    unread: Sequence[str],
    models: Mapping[str, Model | None] | None,
) -> Unit:
    """Write the unit's `related`, unless it is current; a relation without a model, for want of rows, gives nulls."""
    with time_step(settings.store, "relate", unit.name) as timer:
        timer.rows, key = tables.rows(), settings.key_without(unread)
        if tables.is_current("related", key):
            timer.idle = True
            if unit.index == 0:
                _adopt_models(settings)
            return unit
        table = tables.read("samples", [field.name for field in schema.ALIGNED])
        for reading, section in settings.relations:
            rows, model = reading.read(tables), (models or {}).get(reading.name)
            fields = reading.kind.columns(reading.name, section)
            if model is None:
                values: Sequence[pa.Array] = [pa.nulls(len(rows.rows), field.type) for field in fields]
            else:
                values = reading.kind.apply(model.load(), section, rows)
            places = np.full(len(table), -1)
            places[rows.rows] = np.arange(len(rows.rows))
            at = pa.array(places, mask=places < 0)
            for field, column in zip(fields, values, strict=True):
                table = table.append_column(field, column.cast(field.type).take(at))
        tables.write("related", table, key)
    return unit


def _adopt_models(settings: RelateSettings) -> None:
    """Put the models of the run whose tables were adopted into this one."""
    for reading, _ in settings.relations:
        file = f"{MODELS}/{reading.name}.npy"
        if (
            reading.kind.has_model
            and settings.reuse
            and not settings.store.exists(file)
            and settings.reuse.exists(file)
        ):
            settings.store.write_bytes(file, settings.reuse.read_bytes(file))
