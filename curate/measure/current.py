"""Finds columns of `scores` and `embeddings` that were computed with the same key, in this run or the reused one.

A table's footer note lists the key of each signal's columns, so adding or removing one signal does not affect others.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.errors import DamagedError
from curate.base.process import in_threads
from curate.measure.images import Columns, EmbeddingColumns, by_name
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading, find_format
from curate.recipe.measure import column_prefix
from curate.recipe.source import Source
from curate.signals.signal import Embedder, EmbeddingSignal, ImageSignal, PrecomputedSignal, Signal, TextSignal
from curate.store.tables import UnitTables, as_made


@dataclass
class CurrentColumns:
    """The locations of a unit's current columns."""

    scores: dict[str, UnitTables] = field(default_factory=dict)  # by signal, and by group of pool columns
    embeddings: dict[str, UnitTables] = field(default_factory=dict)  # by model, including embeddings from the pool
    # Embeddings that the pool failed to supply: path and detail.
    faults: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)  # of signals: see `curate.measure.unit`
    nonfinite: dict[str, int] = field(default_factory=dict)  # number of values that were not finite, by column

    def read_scores(self, settings: MeasureSettings, source: str) -> dict[str, Columns]:
        names = {signal.name: [field.name for field in signal.columns] for signal in settings.signals}
        groups = {group.name: list(group.columns) for group in settings.pool.groups[source]}
        names |= groups
        columns: dict[str, Columns] = {name: {} for name, named in groups.items() if not named}
        for name, tables in self.scores.items():
            columns[name] = by_name(tables.read("scores", names[name])) if names[name] else {}
        return columns

    def read_embeddings(self, needed: Collection[str]) -> dict[str, EmbeddingColumns]:
        embeddings = {}
        for name in self.embeddings.keys() & needed:
            columns = [f"{column_prefix(name)}{side}" for side in EmbeddingColumns._fields]
            table = self.embeddings[name].read("embeddings", columns)
            embeddings[name] = EmbeddingColumns(*(table[column] for column in columns))
        return embeddings


def find_current(settings: MeasureSettings, unit: Unit, tables: UnitTables, checked: bool = True) -> CurrentColumns:
    """Find current columns by the footers of `scores` and `embeddings`, in this run and the reused one.

    With `checked`, only valid files count.
    """
    current = CurrentColumns()
    before = unit.before
    # If rows are left out, columns with all rows do not fit
    as_it_was = [] if any(part.left_out for part in unit.parts) or before == unit else [before]
    keys = [pair for each in (unit, *as_it_was) for pair in settings.signal_keys(each).items()]
    embedders = {signal.name for signal in settings.signals if isinstance(signal, Embedder)}
    for location in tables.locations:
        for table in ("scores", "embeddings"):
            if not (location.is_valid(table) if checked else location.exists(table)):
                continue
            try:
                note = location.note(table)
            except DamagedError:  # it has no current columns
                continue
            columns = location.column_names(table) if table == "embeddings" else []
            for name in (name for name, key in keys if note.get("signals", {}).get(name) == key):
                locations = current.scores if table == "scores" else current.embeddings
                has_columns = table == "scores" or (name in embedders and f"{column_prefix(name)}image" in columns)
                if has_columns and locations.setdefault(name, location) is location:
                    current.nonfinite |= note.get("nonfinite", {}).get(name, {})
                    if name in note.get("errors", {}):
                        current.errors[name] = note["errors"][name]
                if name in embedders:
                    current.faults.setdefault(name, [tuple(error) for error in note.get("faults", {}).get(name, [])])
    return current


def needed_embeddings(settings: MeasureSettings, scores: Collection[str]) -> set[str]:
    """Return the models whose embeddings are kept, or needed by a signal whose columns are not in `scores`."""
    missing = (signal for signal in settings.signals if signal.name not in scores)
    needed = {signal.of for signal in missing if isinstance(signal, EmbeddingSignal)}
    return needed | {model.name for model in settings.measure.kept}


def observing_signals(settings: MeasureSettings, current: CurrentColumns) -> list[Signal]:
    """Return the signals that need the inputs, because their columns or embeddings are not current."""
    missing = needed_embeddings(settings, current.scores) - current.embeddings.keys()
    seeing = (signal for signal in settings.signals if isinstance(signal, ImageSignal | PrecomputedSignal))
    return [s for s in seeing if s.name in missing or (s.name not in current.scores and s.columns)]


def needed_signals(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> list[Signal]:
    """Return the signals that measuring the unit would compute."""
    names = [name for name in ("samples", "scores", "embeddings") if name in settings.tables]
    as_before = (unit, unit.before)
    if all(any(tables.find(name, settings.key(name, each), True) for each in as_before) for name in names):
        return []
    current = find_current(settings, unit, tables, checked=False)
    computed = (signal for signal in settings.signals if isinstance(signal, TextSignal | EmbeddingSignal))
    missing = (signal for signal in computed if signal.name not in current.scores)
    return [*observing_signals(settings, current), *missing]


def count_needed(settings: MeasureSettings, units: Sequence[Unit], find: Callable[[Unit], UnitTables]) -> Counter[str]:
    """Return for each signal the number of units for which it would be computed; `find` returns a unit's tables."""
    needed = in_threads(lambda unit: needed_signals(settings, unit, find(unit)), units)
    return Counter(signal.name for of_unit in needed for signal in of_unit)


def shard_column(source: Source, parts: Sequence[InputPart], rows: Sequence[int], samples: pa.Table) -> pa.ChunkedArray:
    """Return column `shard` of `samples`. `rows` are the numbers of rows in the parts; `samples` has other columns."""
    kind, starts = find_format(source), np.cumsum([0, *rows])
    of_parts = (samples.slice(first, count) for first, count in zip(starts, rows, strict=False))
    shards = (kind.shards(source, part, of_part) for part, of_part in zip(parts, of_parts, strict=True))
    return pa.chunked_array(list(shards), pa.string())


def carry_over(settings: MeasureSettings, unit: Unit, tables: UnitTables) -> None:
    """Write tables that are not current, from earlier tables; `samples` last.

    This is for units whose files were moved, or whose parts leave out rows to retry. If a table is missing, the unit is
    measured again.
    """
    before = unit.before
    rows = None if before == unit else tables.find("samples", settings.key("samples", before))
    if rows is None:
        return
    source = settings.source(unit)
    downloading = find_downloading(source)
    keys = [key for part in unit.parts for key in (downloading.left_out_keys(source, part) if downloading else ())]
    stay = pc.invert(pc.is_in(rows.read("samples", ["key"])["key"], pa.array(keys, pa.string())))
    paths = {old.path: part.path for old, part in zip(before.parts, unit.parts, strict=True)}
    for name in sorted(settings.tables, key=lambda name: name == "samples"):
        location = tables.find(name, settings.key(name, before))
        if location is None or tables.is_done(name, key := settings.key(name, unit)):
            continue
        table, note = as_made(location.read(name)).filter(stay), location.note(name)
        for column, numbers in (("unit", np.full(len(table), unit.index)), ("row", np.arange(len(table)))):
            numbered = schema.SAMPLES.field(column)
            table = table.set_column(table.schema.get_field_index(column), numbered, pa.array(numbers, numbered.type))
        if "signals" in note:
            note["signals"] = settings.signal_keys(unit)
        if "failures" in note:
            note["failures"] = [[paths.get(path, path), *reason] for path, *reason in note["failures"]]
        for errors in note.get("faults", {}).values():
            errors[:] = [[paths.get(path, path), detail] for path, detail in errors]
        if "rows" in note:  # of each part
            ends = np.cumsum([0, *note["rows"]])
            note["rows"] = np.diff(np.cumsum([0, *np.asarray(stay)])[ends]).tolist()
            shards = shard_column(source, unit.parts, note["rows"], table)
            table = table.set_column(table.schema.get_field_index("shard"), schema.SAMPLES.field("shard"), shards)
        tables.write(name, table.combine_chunks(), key, note)
