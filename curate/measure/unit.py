"""Tables `samples`, `scores`, `embeddings` and `members` of a unit, from one reading of its inputs.

In: the unit's tars or row groups. Out: one row per sample found, the unreadable ones included, in the order of the
inputs; files that could not be read, and the rows and state of each part, go into the note of `samples`.
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.errors import RunError
from curate.numeric.vectors import embedding_matrix, no_embeddings
from curate.pool.formats.parquet import measure_parquet
from curate.pool.formats.webdataset import measure_tar
from curate.pool.image import ImageOptions
from curate.pool.listing import check_state, file_state
from curate.pool.part import Measured
from curate.pool.plan import Part, Unit
from curate.run.context import RunContext
from curate.signals.language import detect_languages
from curate.signals.signal import Embeddings, Signal
from curate.store.store import RunStore

ATTEMPTS = 3


@dataclass
class _Standing:
    """Where columns of a unit stand under the same keys: in this run, or in the one to reuse.

    Attributes:
        columns: of each signal, "language" and "the pool" in `scores`.
        embeddings: by each model, and by what the pool brings.
        faults: of what the pool was to bring and could not: path and detail.
    """

    columns: dict[str, RunStore]
    embeddings: dict[str, RunStore]
    faults: dict[str, list[tuple[str, str]]]


def measure_unit(context: RunContext, unit: Unit) -> list[str]:
    """Write the unit's tables, unless they are current; columns that are current are not measured again.

    Returns:
        The unit's gaps: input files that could not be read now and may be another time, each with what was in the way.
        Tables with gaps have no key, so a later run measures the unit again.
    """
    tables = [name for name in context.tables if name in ("samples", "scores", "embeddings", "members")]
    whole = {name for name in reversed(tables) if context.is_current(name, unit, context.key_of(name)(unit))}
    if whole == set(tables):
        return []
    standing = _find_standing(context, unit)
    looking = _looking(context, standing)
    known = _read_columns(context, unit, standing)
    if {"samples", "members"} & set(tables) <= whole and not looking and "the pool" in known:
        samples, parts, lasting = context.read("samples", unit), [], True
    else:
        parts = [_measure_part(context, unit, part, looking) for part in unit.parts]
        samples = _samples(context, unit, parts)
        # A file that could not be opened may be there next time: without a key the unit is measured again.
        lasting = not any(_is_gap(part) for part in parts)
        if "samples" in whole and not lasting:
            raise RunError(
                f"{next(p.failure[1] for p in parts if p.failure and _is_gap(p))}: this file could be read "
                "when its samples were measured, and cannot now; run again when it can"
            )
        known["the pool"] = _brought(context, parts)
    made: dict[str, pa.Table] = {}
    base = samples.select(["unit", "row", "uid"])
    if context.recipe.measure.language and not ("samples" in whole and "language" in known):
        readable = pc.if_else(pc.equal(samples["status"], schema.OK), samples["caption"], pa.scalar(None, pa.string()))
        language, score = detect_languages(readable.combine_chunks())
        samples = samples.set_column(schema.SAMPLES.get_field_index("language"), "language", language)
        known["language"] = [score]
    if context.has_members and parts:
        made["members"] = _members(base, parts)
    embeddings = _read_embeddings(context, unit, standing, _wanted(context, known)) | _embeddings(looking, parts)
    faults, passing = _faults(context, unit, standing, looking, parts)
    if context.has_embeddings:
        columns = [side for one in context.recipe.measure.kept for side in embeddings[one.name]]
        made["embeddings"] = pa.table([*base.columns, *columns], schema=context.embedding_schema)
    if context.has_scores:
        made["scores"] = _scores(context, base, known, _gauged(context, samples, known, looking, parts, embeddings))
    note = {"signals": context.signal_keys(unit), "faults": faults}
    for name, table in made.items():
        if name not in whole:
            keeps = lasting and not (passing and name in ("scores", "embeddings"))
            key = context.key_of(name)(unit) if keeps else ""
            context.write(name, unit, table, key, note if keeps and name != "members" else {"faults": faults})
    if "samples" not in whole:
        failures = [[part.path, *m.failure] for part, m in zip(unit.parts, parts, strict=True) if m.failure]
        about = {"failures": failures, "rows": [part.rows for part in parts], "states": [part.state for part in parts]}
        key = context.measure_key(unit) if lasting else ""
        context.write("samples", unit, samples, key, about)  # the last one: it stands for all
    gaps = [f"{part.path}: {m.failure}" for part, m in zip(unit.parts, parts, strict=False) if _is_gap(m)]
    return gaps + ([f"{unit.name}: {faults}"] if passing else [])


def _is_gap(part: Measured) -> bool:
    """Whether a file could not be read, and may be another time."""
    return part.failure is not None and part.failure[0] == "unreadable"


def needed_signals(context: RunContext, unit: Unit) -> list[Signal]:
    """The signals that measuring the unit would compute now."""
    if context.would_be_current(unit, "samples", "scores", "embeddings"):
        return []
    standing = _find_standing(context, unit)
    return [*_looking(context, standing), *(s for s in context.signals if s.compute and s.name not in standing.columns)]


def _find_standing(context: RunContext, unit: Unit) -> _Standing:
    """What tables `scores` and `embeddings` of this run, or of the one to reuse, hold; read from their footers."""
    found = _Standing({}, {}, {})
    keys = context.signal_keys(unit)
    dimensions = {signal.name for signal in context.signals if signal.dimension is not None}
    prefixes = {one.name: one.prefix for one in context.recipe.measure.embedders}
    for folder in (context.store, context.reuse):
        for table in ("scores", "embeddings"):
            file = context.table(table, unit)
            if folder is None or not folder.exists(file):
                continue
            note = json.loads(folder.footer(file)[1] or "{}")
            for name in (name for name, key in keys.items() if note.get("signals", {}).get(name) == key):
                if table == "scores":
                    found.columns.setdefault(name, folder)
                elif name in dimensions and f"{prefixes[name]}image" in folder.names(file):
                    found.embeddings.setdefault(name, folder)
                if name in dimensions:
                    found.faults.setdefault(name, [tuple(fault) for fault in note.get("faults", {}).get(name, [])])
    if not context.recipe.measure.language:
        found.columns.pop("language", None)
    return found


def _read_columns(context: RunContext, unit: Unit, standing: _Standing) -> dict[str, list[pa.ChunkedArray | pa.Array]]:
    """The columns of `scores` that stand, by signal."""
    names = {signal.name: [field.name for field in signal.columns] for signal in context.signals}
    names |= {"the pool": context.pool.scores.names, "language": ["language_score"]}
    file = context.table("scores", unit)
    known: dict[str, list[pa.ChunkedArray | pa.Array]] = {} if context.pool.scores else {"the pool": []}
    for name, folder in standing.columns.items():
        known[name] = folder.read_parquet(file, names[name]).columns if names[name] else []
    return known


def _read_embeddings(
    context: RunContext, unit: Unit, standing: _Standing, wanted: Collection[str]
) -> dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """The embeddings that stand, image and text, of those that are wanted."""
    prefixes = {one.name: one.prefix for one in context.recipe.measure.embedders}
    known = {}
    for name in (name for name in standing.embeddings if name in wanted):
        columns = [f"{prefixes[name]}{side}" for side in ("image", "text")]
        image, text = standing.embeddings[name].read_parquet(context.table("embeddings", unit), columns).columns
        known[name] = image, text
    return known


def _wanted(context: RunContext, known: Collection[str]) -> set[str]:
    """Whose embeddings are kept, or needed by a signal whose columns are not known."""
    needed = {signal.of for signal in context.signals if signal.compute and signal.of and signal.name not in known}
    return needed | {one.name for one in context.recipe.measure.kept}


def _looking(context: RunContext, standing: _Standing) -> list[Signal]:
    """The signals that must see the inputs: whose columns are not known, or whose embeddings are wanted and not there."""
    lacking = _wanted(context, standing.columns) - standing.embeddings.keys()
    seeing = (signal for signal in context.signals if signal.start or signal.bring)
    return [s for s in seeing if s.name in lacking or (s.name not in standing.columns and s.columns)]


def _faults(
    context: RunContext, unit: Unit, standing: _Standing, looking: Sequence[Signal], parts: list[Measured]
) -> tuple[dict[str, list[tuple[str, str]]], bool]:
    """What is wrong with the embeddings that are brought, by name; and whether some of it may pass."""
    faults: dict[str, list[tuple[str, str]]] = {}
    passing = False
    for signal in (signal for signal in context.signals if signal.bring):
        if signal not in looking:
            faults[signal.name] = standing.faults.get(signal.name, [])
            continue
        found = [
            (part.path, *m.faults[signal.name])
            for part, m in zip(unit.parts, parts, strict=True)
            if signal.name in m.faults
        ]
        faults[signal.name] = [(path, detail) for path, detail, _ in found]
        passing = passing or any(may_pass for _, _, may_pass in found)
    return faults, passing


def _measure_part(context: RunContext, unit: Unit, part: Part, signals: Sequence[Signal]) -> Measured:
    if part.fault:
        return Measured(failure=part.fault)
    source = context.source(unit)
    image = context.recipe.measure.image
    options = ImageOptions(image.decode, image.phash, image.jpeg_side, image.max_pixels)
    for attempt in range(ATTEMPTS):
        try:
            state = file_state(part.path, source.storage)
            if source.format == "webdataset":
                measured = measure_tar(part, source, options, signals)
            else:
                measured = measure_parquet(part, source, options, signals, context.pool)
            check_state(part.path, source.storage, state)
            return replace(measured, state=state)
        except OSError as error:
            detail = " ".join(str(error).split())[:300]
            if isinstance(error, (FileNotFoundError, PermissionError)):
                break
            time.sleep(attempt)
    return Measured(failure=("unreadable", detail))


def _samples(context: RunContext, unit: Unit, parts: list[Measured]) -> pa.Table:
    tables = []
    first = 0
    for part, measured in zip(unit.parts, parts, strict=True):
        rows = measured.rows
        if not rows:
            continue
        columns: dict[str, Any] = {
            **measured.columns,
            "unit": pa.repeat(pa.scalar(unit.index, pa.int32()), rows),
            "row": pa.array(np.arange(first, first + rows, dtype=np.int32)),
            "uid": _uids(measured.columns),
            "source": pa.repeat(unit.source, rows),
            "shard": pa.repeat(part.path, rows),
        }
        columns.pop("own_uid", None)
        for name in schema.SAMPLES.names:
            columns.setdefault(name, pa.nulls(rows, schema.SAMPLES.field(name).type))
        tables.append(pa.table({name: columns[name] for name in schema.SAMPLES.names}).cast(schema.SAMPLES))
        first += rows
    return pa.concat_tables(tables).combine_chunks() if tables else schema.SAMPLES.empty_table()


def _uids(columns: dict[str, pa.Array]) -> pa.Array:
    """The uid of each readable row."""
    readable = pc.equal(columns["status"], schema.OK)
    caption = pc.if_else(readable, columns["caption"], pa.scalar(None, pa.string()))
    return ids.make_uids(columns.get("own_uid"), columns.get("url"), columns.get("sha256"), caption)


def _embeddings(looking: Sequence[Signal], parts: list[Measured]) -> dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Image and text embeddings by each model that was measured now."""
    found = {}
    for place, signal in enumerate(looking):
        if signal.dimension is not None:
            kind = pa.list_(pa.float16(), signal.dimension)
            pairs = [part.gauged[place].embeddings if part.gauged else None for part in parts]
            zeros = [(no_embeddings(signal.dimension, part.rows),) * 2 for part in parts]
            made = [pair or none for pair, none in zip(pairs, zeros, strict=True)]
            image, text = (pa.chunked_array([pair[side] for pair in made], kind) for side in range(2))
            found[signal.name] = (image, text)
    return found


def _gauged(
    context: RunContext,
    samples: pa.Table,
    known: Collection[str],
    looking: Sequence[Signal],
    parts: list[Measured],
    embeddings: dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]],
) -> dict[str, list[pa.ChunkedArray | pa.Array]]:
    """The columns of the signals that were measured now: by looking at images, from captions or from embeddings."""
    columns: dict[str, list[pa.ChunkedArray | pa.Array]] = {}
    for place, signal in enumerate(looking):
        for i, field in enumerate(signal.columns):
            arrays = [p.gauged[place].columns[i] if p.gauged else pa.nulls(p.rows, field.type) for p in parts]
            columns.setdefault(signal.name, []).append(pa.chunked_array(arrays, field.type))
    readable = pc.if_else(pc.equal(samples["status"], schema.OK), samples["caption"], pa.scalar(None, pa.string()))
    for signal in context.signals:
        if signal.read and signal.name not in known:
            columns[signal.name] = list(signal.read(readable.combine_chunks()))
        if signal.compute and signal.of and signal.name not in known:
            given = _as_arrays(*embeddings[signal.of], samples["caption"])
            values = signal.compute(given)
            columns[signal.name] = [_spread(v, given.rows, len(samples)) for v in values]
    return columns


def _as_arrays(images: pa.ChunkedArray, texts: pa.ChunkedArray, captions: pa.ChunkedArray) -> Embeddings:
    """The embeddings of the rows that have some; where a row lacks a side, that is zero."""
    sides = [embedding_matrix(column).astype(np.float32) for column in (images, texts)]
    rows = np.flatnonzero(sides[0].any(axis=1) | sides[1].any(axis=1))
    return Embeddings(rows, sides[0][rows], sides[1][rows], captions.take(pa.array(rows)).combine_chunks())


def _spread(values: pa.Array, rows: np.ndarray[Any, Any], n: int) -> pa.Array:
    """The values in their rows, null elsewhere."""
    places = np.zeros(n, np.int64)
    places[rows] = np.arange(len(rows))
    missing = np.ones(n, bool)
    missing[rows] = False
    return values.take(pa.array(places, mask=missing))


def _scores(
    context: RunContext,
    base: pa.Table,
    known: dict[str, list[pa.ChunkedArray | pa.Array]],
    gauged: dict[str, list[pa.ChunkedArray | pa.Array]],
) -> pa.Table:
    columns = [*known.get("language", [])]
    for signal in context.signals:
        columns += known[signal.name] if signal.name in known else gauged.get(signal.name, [])
    return pa.table([*base.columns, *columns, *known["the pool"]], names=context.score_schema.names).cast(
        context.score_schema
    )


def _brought(context: RunContext, parts: list[Measured]) -> list[pa.ChunkedArray | pa.Array]:
    """The score columns that the pool brings."""
    return [
        pa.chunked_array([part.scores.get(f.name, pa.nulls(part.rows, f.type)) for part in parts], f.type)
        for f in context.pool.scores
    ]


def _members(base: pa.Table, parts: list[Measured]) -> pa.Table:
    names = ("suffix", "offset", "size")
    table = base
    for i, name in enumerate(names):
        kind = schema.MEMBERS.field(name).type
        arrays = [part.members[i] if part.members else pa.nulls(part.rows, kind) for part in parts]
        table = table.append_column(name, pa.chunked_array(arrays, kind))
    if table.num_rows != base.num_rows:
        raise RunError("members and samples of a unit differ in length")
    return table.cast(schema.MEMBERS)
