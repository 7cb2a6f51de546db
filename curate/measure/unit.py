"""Tables `samples`, `scores`, `embeddings` and `members` of a unit, from one reading of its inputs.

In: the unit's parts. Out: one row per sample found, the unreadable ones included, in the order of the inputs. Files
that could not be read, and the rows and state of each part, are in the footer note of `samples`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.base import schema
from curate.base.errors import RunError, TransientError
from curate.base.numeric.arrays import whole
from curate.base.numeric.vectors import embedding_matrix
from curate.base.wording import one_line
from curate.measure.current import CurrentColumns, find_current_columns, needed_embeddings, observing_signals
from curate.measure.left_out import leave_out
from curate.measure.outputs import Column, EmbeddingColumns, by_name, embeddings_of, errors_of, scores_of
from curate.measure.part import STEP_ROWS, MeasuredPart, join_measured, may_be_read_later, measure_part, read_supplied
from curate.measure.settings import MeasureSettings
from curate.pool.join import open_join
from curate.pool.plan import Unit
from curate.pool.registry import find_format
from curate.recipe.source import Source
from curate.signals.signal import (
    Embedder,
    Embeddings,
    EmbeddingSignal,
    ImageSignal,
    PrecomputedSignal,
    Signal,
    TextSignal,
)
from curate.store.checkpoints import Checkpoints
from curate.store.tables import UnitTables

_WITH_FAULTS = ("scores", "embeddings")  # the tables that faults of supplied embeddings leave gaps in
_UNREAD = "this file could be read when its samples were measured, and cannot now; run again when it can"


@dataclass
class _Reading:
    """What a unit's tables are made of."""

    source: str  # the unit's
    samples: pa.Table  # table `samples`
    # What was read now; none where `samples` is current, and nothing else must see the inputs
    parts: list[MeasuredPart]
    joined: MeasuredPart | None  # all of them
    signals: list[Signal]  # that observed them
    scores: dict[
        str, dict[str, Column]
    ]  # columns of `scores` by signal and group, as far as they are known, and by name

    @property
    def is_partial(self) -> bool:
        """Whether a file could not be read that may be readable another time."""
        return any(part.may_be_read_later for part in self.parts)


def measure_unit(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> list[str]:
    """Write the unit's tables, unless they are current; columns that are current are not computed again.

    Returns the input files that could not be read this time and may be another, each with the error. Tables of a unit
    that has some have no key, so a later run measures the unit again. Where another attempt at the unit was first, its
    tables stay, and what is returned is what they say.

    Raises:
        TransientError: what tables that are current were made of cannot be read; or another attempt wrote tables with
            other rows.
    """
    source = settings.source(unit)
    find_format(source).fetch(source, unit.parts)
    leave_out(settings, unit, tables)
    keys = {name: settings.key(name, unit) for name in settings.tables}
    current_tables = {name for name in reversed(settings.tables) if tables.is_current(name, keys[name])}
    if current_tables == set(settings.tables):
        return _unread(settings, unit, tables)
    current = find_current_columns(settings, unit, tables)
    checkpoints = Checkpoints(tables.store, "measured", tables.unit, settings.key("samples", unit))
    reading = _read(settings, unit, tables, current, current_tables, checkpoints)
    if "samples" not in current_tables:
        for name, places in (("scores", current.scores), ("embeddings", current.embeddings)):
            for place in {id(place): place for place in places.values()}.values():
                _check_rows(unit, place, [name], reading.samples)
    _fill_samples(settings, reading, "samples" in current_tables)
    _join(settings, unit, reading)
    faults, are_transient = _embedding_faults(settings, unit, current, reading)
    signal_keys = settings.signal_keys(unit)
    errors = _signal_errors(current, reading)
    readable = pc.sum(pc.equal(reading.samples["status"], schema.OK)).as_py()
    broken = {name for name, error in errors.items() if error["rows"] == readable}  # another start tries again
    note = {"signals": {name: key for name, key in signal_keys.items() if name not in broken}, "faults": faults}
    others = set(current_tables)  # the tables of other attempts
    for name, table in _aligned_tables(settings, signal_keys, current, reading, checkpoints).items():
        if name not in current_tables:
            is_final = not reading.is_partial and not (are_transient and name in _WITH_FAULTS)
            about = dict(note if is_final and name != "members" else {"faults": faults})
            if name == "scores" and errors:
                about["errors"], is_final = errors, is_final and not broken
            if not tables.write(name, table, keys[name], about, is_final):
                others.add(name)
    if "samples" not in current_tables:  # the last one: with it the unit is measured
        _check_rows(unit, tables, others, reading.samples)
        tables.write("samples", reading.samples, keys["samples"], _about(unit, reading), not reading.is_partial)
    checkpoints.delete()
    return _unread(settings, unit, tables)


def _check_rows(unit: Unit, tables: UnitTables, names: Collection[str], samples: pa.Table) -> None:
    """Raise TransientError where tables of these names are of other rows than `samples`."""
    for name in names:
        if not tables.read(name, ["uid"])["uid"].equals(samples["uid"]):
            path = tables.store.path(tables.file(name))
            raise TransientError(
                f"unit {unit.name}: {path} was made when other files of the unit could be read; run again"
            )


def _unread(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> list[str]:
    """Return what could not be read of a measured unit, and may be another time, by its tables."""
    unread = []
    if not tables.key("samples"):
        failures = tables.note("samples").get("failures", [])
        unread = [f"{path}: {(reason, detail)}" for path, reason, detail in failures if may_be_read_later(reason)]
    if any(isinstance(signal, PrecomputedSignal) for signal in settings.signals):
        for name in _WITH_FAULTS:
            faults = {} if name not in settings.tables or tables.key(name) else tables.note(name).get("faults", {})
            if any(faults.values()):
                pairs = {of: [tuple(fault) for fault in some] for of, some in faults.items()}
                return [*unread, f"{unit.name}: {pairs}"]
    return unread


def _read(
    settings: MeasureSettings,
    unit: Unit,
    tables: UnitTables,
    current: CurrentColumns,
    current_tables: set[str],
    checkpoints: Checkpoints,
) -> _Reading:
    """Read the unit's inputs, unless the rows are current and no signal must see them.

    Raises TransientError where `samples` is current, and a file that it was made from cannot be read.
    """
    signals = observing_signals(settings, current)
    scores = current.read_scores(settings, unit.source)
    source = settings.source(unit)
    if {"samples", "members"} & set(settings.tables) <= current_tables and not signals:
        reading = _Reading(unit.source, tables.read("samples"), [], None, signals, scores)
        if any(group.join is None and group.name not in scores for group in settings.groups(unit.source)):
            _read_supplied(settings, source, unit, reading)
        return reading
    parts = [measure_part(settings, source, part, signals, checkpoints) for part in unit.parts]
    joined = join_measured(parts)
    reading = _Reading(unit.source, _samples(source, unit, parts, joined), parts, joined, signals, scores)
    if "samples" in current_tables and reading.is_partial:
        raise TransientError(f"{next(p.failure[1] for p in parts if p.failure and p.may_be_read_later)}: {_UNREAD}")
    _take_supplied(settings, unit, reading, joined.scores)
    return reading


def _read_supplied(settings: MeasureSettings, source: Source, unit: Unit, reading: _Reading) -> None:
    """Read the columns of `scores` that the unit's inputs supply, of rows that are current.

    Raises TransientError where they cannot be read.
    """
    try:
        table = pa.concat_tables([read_supplied(settings, source, part) for part in unit.parts])
    except OSError as error:
        raise TransientError(f"{one_line(error, 300)}: {_UNREAD}") from None
    if len(table) != len(reading.samples):
        raise RunError(
            f"unit {unit.name}: its inputs had {len(reading.samples)} rows when they were measured, now {len(table)}"
        )
    _take_supplied(settings, unit, reading, table)


def _take_supplied(settings: MeasureSettings, unit: Unit, reading: _Reading, table: pa.Table) -> None:
    """Take what was read of the inputs as the columns of the groups that are read."""
    for group in settings.groups(unit.source):
        if group.join is None:
            reading.scores[group.name] = by_name(table.select(list(group.columns)))


def _join(settings: MeasureSettings, unit: Unit, reading: _Reading) -> None:
    """Look up the columns of joins that are not current."""
    for group in settings.groups(unit.source):
        if group.join is not None and group.name not in reading.scores:
            join = settings.source(unit).join[group.join]
            columns = open_join(join, group.digest).look_up(whole(reading.samples[join.on]))
            kinds = pa.schema([settings.pool.scores.field(name) for name in group.columns])
            reading.scores[group.name] = by_name(columns.select(list(group.columns)).cast(kinds))


def _samples(source: Source, unit: Unit, parts: Sequence[MeasuredPart], joined: MeasuredPart) -> pa.Table:
    """Return table `samples`, before signals fill some of its columns."""
    names = [find_format(source).shard(source, part) for part in unit.parts]
    shards = [pa.repeat(name, measured.rows) for name, measured in zip(names, parts, strict=True)]
    columns = by_name(joined.samples) | {
        "unit": pa.repeat(pa.scalar(unit.index, pa.int32()), joined.rows),
        "row": pa.array(np.arange(joined.rows, dtype=np.int32)),
        "source": pa.repeat(unit.source, joined.rows),
        "shard": pa.chunked_array(shards, pa.string()),
    }
    return pa.table([columns[name] for name in schema.SAMPLES.names], schema=schema.SAMPLES).combine_chunks()


def _fill_samples(settings: MeasureSettings, reading: _Reading, is_current: bool) -> None:
    """Compute the signals that fill columns of `samples`, unless that and their columns of `scores` are current."""
    for signal in settings.signals:
        is_known = is_current and signal.name in reading.scores
        if not isinstance(signal, TextSignal) or not signal.sample_columns or is_known:
            continue
        values = _of_captions(signal, reading.samples)
        for name in signal.sample_columns:
            place = schema.SAMPLES.get_field_index(name)
            reading.samples = reading.samples.set_column(place, schema.SAMPLES.field(name), values.pop(name))
        reading.scores[signal.name] = values


def _of_captions(signal: TextSignal, samples: pa.Table) -> dict[str, Column]:
    """Return what a signal of captions gives, by name; it sees nulls where a row cannot be read."""
    is_ok = pc.equal(samples["status"], schema.OK)
    captions = pc.if_else(is_ok, samples["caption"], pa.scalar(None, pa.string())).combine_chunks()
    names = [*signal.sample_columns, *(field.name for field in signal.columns)]
    return dict(zip(names, signal.compute(captions), strict=True))


def _aligned_tables(
    settings: MeasureSettings,
    keys: dict[str, str],
    current: CurrentColumns,
    reading: _Reading,
    checkpoints: Checkpoints,
) -> dict[str, pa.Table]:
    """Return the unit's tables but `samples`; `members` only where the inputs were read.

    `keys` are those of signals.
    """
    base = reading.samples.select(["unit", "row", "uid"])
    embeddings = current.read_embeddings(needed_embeddings(settings, reading.scores))
    scores = dict(reading.scores)
    made: dict[str, pa.Table] = {}
    if reading.joined:
        for signal in reading.signals:
            scores.setdefault(signal.name, scores_of(signal, reading.joined.outputs))
            if isinstance(signal, Embedder):
                embeddings[signal.name] = embeddings_of(signal, reading.joined.outputs)
        if "members" in settings.tables:
            made["members"] = _members(base, reading.joined.members)
    if "embeddings" in settings.tables:
        sides = [side for model in settings.measure.kept for side in embeddings[model.name]]
        made["embeddings"] = pa.table([*base.columns, *sides], schema=settings.embedding_schema)
    if "scores" in settings.tables:
        for signal in (signal for signal in settings.signals if signal.name not in reading.scores):
            if isinstance(signal, TextSignal):
                scores[signal.name] = _of_captions(signal, reading.samples)
            if isinstance(signal, EmbeddingSignal):
                steps = _EmbeddingSteps(signal, embeddings[signal.of], reading.samples["caption"])
                scores[signal.name] = by_name(steps.complete(keys[signal.name], checkpoints))
        made["scores"] = _score_table(settings, base, scores, reading.source)
    return made


def _score_table(
    settings: MeasureSettings, base: pa.Table, scores: dict[str, dict[str, Column]], source: str
) -> pa.Table:
    """Return table `scores`; columns that only other sources supply are null."""
    columns = by_name(base)
    for name in (*(signal.name for signal in settings.signals), *(group.name for group in settings.groups(source))):
        columns |= scores.get(name, {})
    table = {f.name: columns.get(f.name, pa.nulls(len(base), f.type)) for f in settings.score_schema}
    return pa.table(table).cast(settings.score_schema)


def _members(base: pa.Table, members: pa.Table | None) -> pa.Table:
    fields = list(schema.MEMBERS)[base.num_columns :]
    columns = [pa.nulls(len(base), field.type) for field in fields] if members is None else members.columns
    if len(columns[0]) != len(base):
        raise RunError("members and samples of a unit differ in length")
    return pa.table([*base.columns, *columns], schema=schema.MEMBERS)


@dataclass(frozen=True)
class _EmbeddingSteps:
    """A signal on embeddings, computed in steps."""

    signal: EmbeddingSignal
    embeddings: EmbeddingColumns
    captions: pa.ChunkedArray

    def complete(self, key: str, checkpoints: Checkpoints) -> pa.Table:
        """Return the signal's columns; null in rows that have no embeddings."""
        of = [self.signal.name, key, *map(_digest_of, self.embeddings)]
        return checkpoints.complete(of, pa.schema(self.signal.columns), self._steps)

    def _steps(self, first: int) -> Iterator[pa.Table]:
        for start in range(first, len(self.captions), STEP_ROWS):
            yield self._compute(slice(start, start + STEP_ROWS))

    def _compute(self, step: slice) -> pa.Table:
        images, texts = (embedding_matrix(column[step]).astype(np.float32) for column in self.embeddings)
        rows = np.flatnonzero(images.any(axis=1) | texts.any(axis=1))
        captions = self.captions[step].take(pa.array(rows)).combine_chunks()
        values = self.signal.compute(Embeddings(rows, images[rows], texts[rows], captions))
        fields = pa.schema(self.signal.columns)
        places = np.full(len(images), -1)
        places[rows] = np.arange(len(rows))
        return pa.table(list(values), names=fields.names).cast(fields).take(pa.array(places, mask=places < 0))


def _digest_of(embeddings: Column) -> str:
    """Return what names embeddings: a model may give slightly other ones when it encodes the same again."""
    state = xxhash.xxh3_128()
    for start in range(0, len(embeddings), STEP_ROWS):
        state.update(embedding_matrix(embeddings[start : start + STEP_ROWS]).tobytes())
    return state.hexdigest()


def _signal_errors(current: CurrentColumns, reading: _Reading) -> dict[str, dict[str, Any]]:
    """Return of signals of other packages, by name, how many images they failed on, and the first error.

    Of those that did.
    """
    errors = dict(current.errors)
    outputs = reading.joined.outputs if reading.joined else None
    for signal in reading.signals if outputs is not None else ():
        if isinstance(signal, ImageSignal) and signal.keeps_errors and signal.name not in reading.scores:
            texts = errors_of(signal, outputs).drop_null()
            if len(texts):
                errors[signal.name] = {"signal": signal.label, "rows": len(texts), "first": texts[0].as_py()}
    return errors


def _embedding_faults(
    settings: MeasureSettings, unit: Unit, current: CurrentColumns, reading: _Reading
) -> tuple[dict[str, list[tuple[str, str]]], bool]:
    """Return what is wrong with supplied embeddings (path, detail), by name; and whether some of it is transient."""
    faults: dict[str, list[tuple[str, str]]] = {}
    are_transient = False
    for signal in (signal for signal in settings.signals if isinstance(signal, PrecomputedSignal)):
        if signal not in reading.signals:
            faults[signal.name] = current.faults.get(signal.name, [])
            continue
        pairs = zip(unit.parts, reading.parts, strict=True)
        of_signal = [(part.path, *m.faults[signal.name]) for part, m in pairs if signal.name in m.faults]
        faults[signal.name] = [(path, detail) for path, detail, _ in of_signal]
        are_transient |= any(is_transient for _, _, is_transient in of_signal)
    return faults, are_transient


def _about(unit: Unit, reading: _Reading) -> dict[str, Any]:
    """Return the footer note of `samples`."""
    pairs = zip(unit.parts, reading.parts, strict=True)
    return {
        "failures": [[part.path, *m.failure] for part, m in pairs if m.failure],
        "rows": [part.rows for part in reading.parts],
        "states": [part.state for part in reading.parts],
        "fields": [[*field, n] for field, n in sorted(reading.joined.fields.items())] if reading.joined else [],
    }
