"""Writes the tables `samples`, `scores`, `embeddings` and `members` of a unit in one pass over its inputs.

In: the unit's parts. Out: one row per sample, including unreadable ones, in the order of the inputs. The footer note of
`samples` lists files that could not be read, and the rows and state of each part. Values of signals that are not finite
become null; the notes of `scores` and `embeddings` count them by signal and column.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.base import schema
from curate.base.errors import RunError, TransientError
from curate.base.isolate import DIED
from curate.base.numeric.arrays import drop_nonfinite, whole
from curate.base.numeric.text_hash import compile_kernels
from curate.base.numeric.vectors import drop_nonfinite_rows, embedding_matrix
from curate.base.wording import one_line
from curate.measure.current import (
    CurrentColumns,
    carry_over,
    find_current,
    needed_embeddings,
    observing_signals,
    shard_column,
)
from curate.measure.images import Columns, EmbeddingColumns, by_name
from curate.measure.isolate import IsolatedMeasuring, isolating
from curate.measure.part import OK, STEP_ROWS, UNREADABLE, MeasuredPart, join_measured, measure_part, read_supplied
from curate.measure.settings import MeasureSettings
from curate.pool.join import KEYS, open_join
from curate.pool.plan import Unit
from curate.pool.registry import find_format
from curate.recipe.measure import column_prefix
from curate.recipe.secrets import check_variables
from curate.run.columns import embedding_schema
from curate.run.context import RunContext
from curate.run.units import Answer, Units
from curate.signals import signal as signals
from curate.signals.signal import Column
from curate.store.attempts import attempt
from curate.store.checkpoints import MEASURED, Checkpoints
from curate.store.layout import unit_stem
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import time_step

_WITH_FAULTS = ("scores", "embeddings")  # tables with gaps if supplied embeddings have errors
_UNREAD = "curate could read this file before, but cannot now; run again when the file is readable"


def measure_unit(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> list[str]:
    """Write the unit's tables unless they are current; current columns are not computed again.

    Returns the input files that could not be read now but may be readable later, each with the error. If there are such
    files, the unit's tables have no key, so a later run measures the unit again. If another attempt at the unit was
    first, its tables stay. Raises TransientError if an input of current tables cannot be read, or if another attempt
    wrote tables with other rows.
    """
    source = settings.source(unit)
    check_variables(source.name, source.storage)
    find_format(source).fetch(source, unit.parts)
    carry_over(settings, unit, tables)
    keys = {name: settings.key(name, unit) for name in settings.tables}
    # `samples` is written last: if it is missing, other tables come from a killed attempt
    is_new = tables.reuse is None and not tables.exists("samples")
    current_tables = {name for name in reversed(settings.tables) if not is_new and tables.is_done(name, keys[name])}
    if current_tables != keys.keys():
        with attempt(tables.store, unit_stem(tables.unit)) as killed, isolating(killed, settings) as isolated:
            if isolated:  # measure everything, even adopted tables, because rows may get another status
                for name in settings.tables:
                    tables.store.delete_file(tables.file(name))
                    tables.drop_read(name)
                current_tables = set()
            is_alone = isolated or (is_new and not killed)
            current = CurrentColumns() if is_alone else find_current(settings, unit, tables)
            _UnitWork(settings, unit, tables, current_tables, current, isolated).write_tables(keys)
    return _unread(settings, unit, tables)


def _unread(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> list[str]:
    """Return the files of a measured unit that could not be read but may be readable later, by its tables."""
    failures = [] if tables.key("samples") else tables.note("samples").get("failures", [])
    unread = [f"{path}: {(reason, detail)}" for path, reason, detail in failures if reason == UNREADABLE]
    is_supplied = any(isinstance(signal, signals.PrecomputedSignal) for signal in settings.signals)
    for name in _WITH_FAULTS if is_supplied else ():
        if name in settings.tables and not tables.key(name):
            errors = tables.note(name).get("faults", {})
            if any(errors.values()):
                tuples = {model: [tuple(error) for error in model_faults] for model, model_faults in errors.items()}
                return [*unread, f"{unit.name}: {tuples}"]
    return unread


@dataclass
class _UnitWork:
    settings: MeasureSettings
    unit: Unit
    tables: UnitTables
    current_tables: Collection[str]
    current: CurrentColumns
    isolated: IsolatedMeasuring | None

    def __post_init__(self) -> None:
        """Read the unit's inputs, unless the rows are current and no signal needs them.

        Raises TransientError if `samples` is current, and a file that it was made from cannot be read.
        """
        settings, unit, tables = self.settings, self.unit, self.tables
        self.has_samples = "samples" in self.current_tables
        self.checkpoints = Checkpoints(tables.store, MEASURED, tables.unit, settings.key("samples", unit))
        self.signals = observing_signals(settings, self.current)
        self.scores = self.current.read_scores(settings, unit.source)  # of signals and groups, as far as known
        # The result of reading all inputs; None if `samples` is current, and no signal needs the inputs.
        self.parts: list[MeasuredPart] = []
        self.joined: MeasuredPart | None = None
        self.nonfinite: dict[str, dict[str, dict[str, int]]] = {name: {} for name in _WITH_FAULTS}
        source = settings.source(unit)
        groups = [group for group in settings.pool.groups[unit.source] if group.join is None]
        if self.signals or not {"samples", "members"} & {*settings.tables} <= {*self.current_tables}:
            rest = self.signals, self.checkpoints, self.isolated
            self.parts = [measure_part(settings, source, part, *rest) for part in unit.parts]
            self.joined = join_measured(self.parts)
            self.samples = self._new_samples(self.joined.samples)
            if self.has_samples and self.unread:
                raise TransientError(f"{self.unread[0]}: {_UNREAD}")
            supplied = self.joined.scores
        else:
            self.samples = tables.read("samples")
            if all(group.name in self.scores for group in groups):
                return
            try:
                supplied = pa.concat_tables([read_supplied(settings, source, part) for part in unit.parts])
            except OSError as error:
                raise TransientError(f"{one_line(error, 300)}: {_UNREAD}") from None
            if len(supplied) != len(self.samples):
                before = f"{len(self.samples)} rows when they were measured"
                raise RunError(f"unit {unit.name}: its inputs had {before}, now {len(supplied)}")
        self.scores |= {group.name: by_name(supplied.select(list(group.columns))) for group in groups}

    @property
    def unread(self) -> list[str]:
        """The errors of files that could not be read but may be readable later."""
        return [part.failure[1] for part in self.parts if part.failure and part.failure[0] == UNREADABLE]

    def write_tables(self, keys: dict[str, str]) -> None:
        """Write the tables that are not current, by their keys, `samples` last."""
        if not self.has_samples:
            for name, by_signal in (("scores", self.current.scores), ("embeddings", self.current.embeddings)):
                for tables in {id(tables): tables for tables in by_signal.values()}.values():
                    self._check_rows(tables, [name])
        if self.isolated:
            texts = [signal for signal in self.settings.signals if isinstance(signal, signals.TextSignal)]
            deadly = self.isolated.find_deadly(self._captions(), texts) if texts else {}
            for name, values in (("status", dict.fromkeys(deadly, DIED)), ("error", deadly)):
                column = [values.get(row, value) for row, value in enumerate(self.samples[name].to_pylist())]
                self._set_column(name, pa.array(column, pa.string()))
        self._fill_samples()
        self._join()
        problems, are_transient = self._embedding_faults()
        signal_keys = self.settings.signal_keys(self.unit)
        errors = self._signal_errors()
        readable = np.count_nonzero(pc.equal(self.samples["status"], OK))
        broken = {name for name, error in errors.items() if error["rows"] == readable}  # the next start retries
        note = {"signals": {name: key for name, key in signal_keys.items() if name not in broken}, "faults": problems}
        others = set(self.current_tables)  # tables of other attempts
        for name, table in self._aligned_tables(signal_keys).items():
            if name not in self.current_tables:
                is_final = not self.unread and not (are_transient and name in _WITH_FAULTS)
                about = dict(note if is_final and name != "members" else {"faults": problems})
                if name == "scores" and errors:
                    about["errors"], is_final = errors, is_final and not broken
                if counts := self.nonfinite.get(name):
                    about["nonfinite"] = counts
                if not self.tables.write(name, table, keys[name], about, is_final):
                    others.add(name)
        if not self.has_samples:  # written last: it marks the unit as measured
            self._check_rows(self.tables, others)
            self.tables.write("samples", self.samples, keys["samples"], self._about(), not self.unread)
        self.checkpoints.delete()

    def _check_rows(self, tables: UnitTables, names: Collection[str]) -> None:
        for name in names:
            if not tables.read(name, ["uid"])["uid"].equals(self.samples["uid"]):
                file = tables.store.path(tables.file(name))
                raise TransientError(f"{file} was written when a different set of input files could be read; run again")

    def _new_samples(self, samples: pa.Table) -> pa.Table:
        source, rows = self.settings.source(self.unit), len(samples)
        columns = by_name(samples) | {
            "unit": pa.repeat(pa.scalar(self.unit.index, pa.int32()), rows),
            "row": pa.array(np.arange(rows, dtype=np.int32)),
            "source": pa.repeat(self.unit.source, rows),
            "shard": shard_column(source, self.unit.parts, [len(part.samples) for part in self.parts], samples),
        }
        return pa.table([columns[name] for name in schema.SAMPLES.names], schema=schema.SAMPLES).combine_chunks()

    def _fill_samples(self) -> None:
        for signal in self.settings.signals:
            is_known = self.has_samples and signal.name in self.scores
            if isinstance(signal, signals.TextSignal) and signal.sample_columns and not is_known:
                values = self._of_captions(signal)
                for name in signal.sample_columns:
                    self._set_column(name, values.pop(name))
                self.scores[signal.name] = values

    def _set_column(self, name: str, values: Column) -> None:
        index = schema.SAMPLES.get_field_index(name)
        self.samples = self.samples.set_column(index, schema.SAMPLES.field(name), values)

    def _captions(self) -> pa.Array:
        is_ok = pc.equal(self.samples["status"], OK)
        return whole(pc.if_else(is_ok, self.samples["caption"], pa.scalar(None, pa.string())))

    def _of_captions(self, signal: signals.TextSignal) -> Columns:
        fields = [*map(schema.SAMPLES.field, signal.sample_columns), *signal.columns]
        return signal.by_name(signal.compute(self._captions()), len(self.samples), fields)

    def _join(self) -> None:
        for group in self.settings.pool.groups[self.unit.source]:
            if group.join is not None and group.name not in self.scores:
                join = self.settings.source(self.unit).join[group.join]
                if join.on in KEYS:
                    keys = whole(self.samples[join.on])
                else:  # a column from the inputs
                    column: Any = next(columns[join.on] for columns in self.scores.values() if join.on in columns)
                    keys = (whole(column) if isinstance(column, pa.ChunkedArray) else column).cast(pa.string())
                columns = open_join(join, group.digest).look_up(keys)
                kinds = pa.schema([self.settings.pool.scores.field(name) for name in group.columns])
                self.scores[group.name] = by_name(columns.select(list(group.columns)).cast(kinds))

    def _embedding_faults(self) -> tuple[dict[str, list[tuple[str, str]]], bool]:
        """Return the errors of supplied embeddings (path, detail) by name, and whether any is transient."""
        supplied = [signal for signal in self.settings.signals if isinstance(signal, signals.PrecomputedSignal)]
        errors = {signal.name: self.current.faults.get(signal.name, []) for signal in supplied}
        for name in (signal.name for signal in supplied if signal in self.signals):
            pairs = zip(self.unit.parts, self.parts, strict=True)
            errors[name] = [(part.path, read.faults[name][0]) for part, read in pairs if name in read.faults]
        return errors, any(is_transient for part in self.parts for _, is_transient in part.faults.values())

    def _signal_errors(self) -> dict[str, dict[str, Any]]:
        """Return the failed images and first error of each signal that failed. Only signals of packages may fail."""
        errors = dict(self.current.errors)
        if self.joined is None:
            return errors
        for signal in self.signals:
            if isinstance(signal, signals.ImageSignal) and signal.package and signal.name not in self.scores:
                texts = self.joined.outputs[f"{signal.name} errors"].drop_null()
                if len(texts):
                    errors[signal.name] = {"signal": signal.label, "rows": len(texts), "first": texts[0].as_py()}
        return errors

    def _aligned_tables(self, keys: dict[str, str]) -> dict[str, pa.Table]:
        """Return the unit's tables except `samples`; `members` only if it read the inputs. `keys` are of signals."""
        settings, base = self.settings, self.samples.select(["unit", "row", "uid"])
        embeddings = self.current.read_embeddings(needed_embeddings(settings, self.scores))
        scores = dict(self.scores)
        made: dict[str, pa.Table] = {}
        if self.joined:
            outputs = self.joined.outputs
            for signal in self.signals:
                names = [field.name for field in signal.columns]
                observed = outputs.select([f"{signal.name}.{name}" for name in names]).rename_columns(names)
                scores.setdefault(signal.name, by_name(observed))
                if isinstance(signal, signals.Embedder):
                    observed = outputs.select([f"{signal.name} {side}" for side in EmbeddingColumns._fields])
                    embeddings[signal.name] = EmbeddingColumns(*observed.columns)
            if "members" in settings.tables:
                members = by_name(base) | (by_name(self.joined.members) if self.joined.members else {})
                columns = [members.get(field.name, pa.nulls(len(base), field.type)) for field in schema.MEMBERS]
                made["members"] = pa.table(columns, schema=schema.MEMBERS)
        for name, encoded in embeddings.items():
            sides = {f"embeddings.{column_prefix(name)}{side}": column for side, column in encoded._asdict().items()}
            embeddings[name] = EmbeddingColumns(*self._finite("embeddings", name, sides, drop_nonfinite_rows).values())
        if "embeddings" in settings.tables:
            kept = [side for model in settings.measure.kept for side in embeddings[model.name]]
            fields = embedding_schema(settings.measure, settings.models)
            made["embeddings"] = pa.table([*base.columns, *kept], schema=fields)
        if "scores" in settings.tables:
            for signal in (signal for signal in settings.signals if signal.name not in self.scores):
                if isinstance(signal, signals.TextSignal):
                    scores[signal.name] = self._of_captions(signal)
                if isinstance(signal, signals.EmbeddingSignal):
                    scores[signal.name] = self._of_embeddings(signal, embeddings[signal.of], keys[signal.name])
            names = [signal.name for signal in settings.signals if signal.name in scores]  # some have only embeddings
            scores |= {name: self._finite("scores", name, scores[name], drop_nonfinite) for name in names}
            values = by_name(base)
            for of_one in scores.values():
                values |= of_one
            table = {f.name: values.get(f.name, pa.nulls(len(base), f.type)) for f in settings.score_schema}
            made["scores"] = pa.table(table).cast(settings.score_schema)
        return made

    def _finite(self, table: str, signal: str, columns: Columns, drop: Callable[..., tuple[Column, int]]) -> Columns:
        """Return a signal's columns with values that are not finite set to null, and count them."""
        finite = {}
        for name, column in columns.items():
            finite[name], count = drop(column)
            if count := count or self.current.nonfinite.get(name, 0):  # for reused columns it was counted before
                self.nonfinite[table].setdefault(signal, {})[name] = count
        return finite

    def _of_embeddings(self, signal: signals.EmbeddingSignal, embeddings: EmbeddingColumns, key: str) -> Columns:
        """Return the columns of a signal on embeddings by name, computed in steps; null in rows without embeddings."""
        captions, fields = self.samples["caption"], pa.schema(signal.columns)

        def steps(first: int) -> Iterator[pa.Table]:
            for step in (slice(start, start + STEP_ROWS) for start in range(first, len(captions), STEP_ROWS)):
                images, texts = (embedding_matrix(column[step]).astype(np.float32) for column in embeddings)
                rows = np.flatnonzero(images.any(axis=1) | texts.any(axis=1))
                step_captions = captions[step].take(rows).combine_chunks()
                values = signal.compute(signals.Embeddings(rows, images[rows], texts[rows], step_captions))
                positions = np.full(len(images), -1)
                positions[rows] = np.arange(len(rows))
                table = pa.table([*signal.by_name(values, len(rows)).values()], schema=fields)
                yield table.take(pa.array(positions, mask=positions < 0))

        return by_name(self.checkpoints.complete([signal.name, key, *map(_digest_of, embeddings)], fields, steps))

    def _about(self) -> dict[str, Any]:
        pairs = zip(self.unit.parts, self.parts, strict=True)
        return {
            "failures": [[part.path, *measured.failure] for part, measured in pairs if measured.failure],
            "rows": [len(part.samples) for part in self.parts],
            "states": [part.state for part in self.parts],
            "fields": [[*field, n] for field, n in sorted(self.joined.fields.items())] if self.joined else [],
            **({"links": dict(sorted(self.joined.links.items()))} if self.joined and self.joined.links else {}),
        }


def _digest_of(embeddings: Column) -> str:
    """Return an identity for embeddings, because a model may give slightly different ones for the same input."""
    state = xxhash.xxh3_128()
    for start in range(0, len(embeddings), STEP_ROWS):
        state.update(embedding_matrix(embeddings[start : start + STEP_ROWS]).tobytes())
    return state.hexdigest()


def measure(units: Units, context: RunContext) -> Answer:
    """Write `samples`, `scores`, `embeddings` and `members` of each unit; return the files that could not be read.

    Such files are few, and decisions depend on which ones they are.
    """
    return units.ask("Measure", partial(_measure, context))


def _measure(context: RunContext, tables: OpenTables, unit: Unit) -> Iterator[str]:
    compile_kernels()  # takes seconds that belong to no unit
    with time_step(context.store, "measure", unit.name) as timer:
        yield from measure_unit(MeasureSettings.of(context), unit, tables)
        timer.rows, timer.idle = tables.rows(), not tables.written
        if tables.written:
            is_ok = pc.equal(tables.read("samples", ["status"])["status"], OK)
            timer.failed = timer.rows - int(is_ok.to_numpy().sum())
