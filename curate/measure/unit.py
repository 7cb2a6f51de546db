"""Tables `samples`, `scores`, `embeddings` and `members` of a unit, from one reading of its inputs.

In: the unit's tars or row groups. Out: one row per sample found, the unreadable ones included, in the order of the
inputs; files that could not be read, and the rows and state of each part, go into the note of `samples`.
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.errors import RunError
from curate.job import Job
from curate.measure.clip import embedding_column
from curate.measure.gauge import Embeddings, Signal
from curate.measure.image import ImageOptions
from curate.measure.language import detect_languages
from curate.measure.measured import Measured
from curate.measure.parquet import measure_parquet
from curate.measure.tar import measure_tar
from curate.plan import Part, Unit
from curate.shards.listing import check_state, file_state

ATTEMPTS = 3


def measure_unit(job: Job, unit: Unit) -> Unit:
    """Writes the unit's tables, unless they stand; what stands of them, column by column, is not measured again."""
    tables = [name for name in job.tables if name in ("samples", "scores", "embeddings", "members")]
    standing = {name for name in reversed(tables) if job.stands(name, unit, job.key_of(name)(unit))}
    if standing == set(tables):
        return unit
    known = _known_scores(job, unit)
    looking = _looking(job, known, "embeddings" in standing)
    if {"samples", "members"} & set(tables) <= standing and not looking and "the pool" in known:
        samples, parts, lasting = job.read("samples", unit), [], True
    else:
        parts = [_measure_part(job, unit, part, looking) for part in unit.parts]
        samples = _samples(job, unit, parts)
        # A file that could not be opened may be there next time: without a key the unit is measured again.
        lasting = not any(part.failure and part.failure[0] == "unreadable" for part in parts)
        known["the pool"] = _brought(job, parts)
    made: dict[str, pa.Table] = {}
    base = samples.select(["unit", "row", "uid"])
    if job.recipe.measure.language and not ("samples" in standing and "language" in known):
        readable = pc.if_else(pc.equal(samples["status"], schema.OK), samples["caption"], pa.scalar(None, pa.string()))
        language, score = detect_languages(readable.combine_chunks())
        samples = samples.set_column(schema.SAMPLES.get_field_index("language"), "language", language)
        known["language"] = [score]
    if job.has_members and parts:
        made["members"] = _members(base, parts)
    embeddings = _embeddings(job, unit, looking, parts)
    if job.has_embeddings:
        made["embeddings"] = _embedding_table(job, base, embeddings)
    if job.has_scores:
        made["scores"] = _scores(job, base, known, _gauged(job, samples, known, looking, parts, embeddings))
    for name, table in made.items():
        if name not in standing:
            keys = {"signals": job.signal_keys(unit)} if name == "scores" and lasting else None
            job.write(name, unit, table, job.key_of(name)(unit) if lasting else "", keys)
    if "samples" not in standing:
        failures = [[part.path, *m.failure] for part, m in zip(unit.parts, parts, strict=True) if m.failure]
        note = {"failures": failures, "rows": [part.rows for part in parts], "states": [part.state for part in parts]}
        key = job.measure_key(unit) if lasting else ""
        job.write("samples", unit, samples, key, note)  # the last one: it stands for all
    return unit


def _known_scores(job: Job, unit: Unit) -> dict[str, list[pa.ChunkedArray | pa.Array]]:
    """The columns of each signal that stand in a table `scores` of this run or of the one to reuse, by their keys."""
    columns = {signal.name: [field.name for field in signal.columns] for signal in job.signals}
    columns |= {"the pool": job.pool.scores.names, "language": ["language_score"]}
    known: dict[str, list[pa.ChunkedArray | pa.Array]] = {} if job.pool.scores else {"the pool": []}
    name = job.table("scores", unit)
    for folder in (job.folder, job.reuse):
        if folder is None or not folder.exists(name):
            continue
        note = folder.footer(name)[1]
        keys = json.loads(note)["signals"] if note else {}
        for signal, key in job.signal_keys(unit).items():
            if (
                signal not in known
                and keys.get(signal) == key
                and (signal != "language" or job.recipe.measure.language)
            ):
                known[signal] = folder.read_parquet(name, columns[signal]).columns if columns[signal] else []
    return known


def _looking(job: Job, known: Collection[str], stored: bool) -> list[Signal]:
    """The signals that must see the inputs: whose columns are not known, or whose embeddings are needed and not there."""
    kept = {one.name for one in job.recipe.measure.kept}
    needed = {signal.of for signal in job.signals if signal.compute and signal.name not in known}
    lacking = {name for name in kept | needed if not (stored and name in kept)}
    seeing = (signal for signal in job.signals if signal.start or signal.bring)
    return [s for s in seeing if s.name in lacking or (s.name not in known and s.columns)]


def _measure_part(job: Job, unit: Unit, part: Part, signals: Sequence[Signal]) -> Measured:
    if part.fault:
        return Measured(failure=part.fault)
    source = job.source(unit)
    image = job.recipe.measure.image
    options = ImageOptions(image.decode, image.phash, image.jpeg_side, image.max_pixels)
    for attempt in range(ATTEMPTS):
        try:
            state = file_state(part.path, source.storage)
            if source.format == "webdataset":
                measured = measure_tar(part, source, options, signals)
            else:
                measured = measure_parquet(part, source, options, signals, job.pool)
            check_state(part.path, source.storage, state)
            return replace(measured, state=state)
        except OSError as error:
            detail = " ".join(str(error).split())[:300]
            if isinstance(error, (FileNotFoundError, PermissionError)):
                break
            time.sleep(attempt)
    return Measured(failure=("unreadable", detail))


def _samples(job: Job, unit: Unit, parts: list[Measured]) -> pa.Table:
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


def _embeddings(
    job: Job, unit: Unit, looking: Sequence[Signal], parts: list[Measured]
) -> dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Image and text embeddings by each model that is at hand: measured now, or in the unit's table."""
    found = {}
    for place, signal in enumerate(looking):
        if signal.dimension is not None:
            kind, nothing = pa.list_(pa.float16(), signal.dimension), np.zeros((0, signal.dimension), np.float32)
            pairs = [part.gauged[place].embeddings if part.gauged else None for part in parts]
            zeros = [(embedding_column(nothing, np.zeros(0, np.int64), part.rows),) * 2 for part in parts]
            made = [pair or none for pair, none in zip(pairs, zeros, strict=True)]
            image, text = (pa.chunked_array([pair[side] for pair in made], kind) for side in range(2))
            found[signal.name] = (image, text)
    for one in job.recipe.measure.kept:
        if one.name not in found:
            table = job.read("embeddings", unit, [f"{one.prefix}image", f"{one.prefix}text"])
            found[one.name] = (table.column(0), table.column(1))
    return found


def _embedding_table(
    job: Job, base: pa.Table, embeddings: dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]]
) -> pa.Table:
    columns = [side for one in job.recipe.measure.kept for side in embeddings[one.name]]
    return pa.table([*base.columns, *columns], schema=job.embedding_schema)


def _gauged(
    job: Job,
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
    for signal in job.signals:
        if signal.read and signal.name not in known:
            columns[signal.name] = list(signal.read(readable.combine_chunks()))
        if signal.compute and signal.of and signal.name not in known:
            given = _as_arrays(*embeddings[signal.of], samples["caption"])
            values = signal.compute(given)
            columns[signal.name] = [_spread(v, given.rows, len(samples)) for v in values]
    return columns


def _as_arrays(images: pa.ChunkedArray, texts: pa.ChunkedArray, captions: pa.ChunkedArray) -> Embeddings:
    """The embeddings of the rows that have some: those of others are zero."""
    sides = []
    for column in (images, texts):
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        sides.append(flat.astype(np.float32).reshape(len(column), column.type.list_size))
    rows = np.flatnonzero(sides[0].any(axis=1))
    return Embeddings(rows, sides[0][rows], sides[1][rows], captions.take(pa.array(rows)).combine_chunks())


def _spread(values: pa.Array, rows: np.ndarray[Any, Any], n: int) -> pa.Array:
    """The values in their rows, null elsewhere."""
    places = np.zeros(n, np.int64)
    places[rows] = np.arange(len(rows))
    missing = np.ones(n, bool)
    missing[rows] = False
    return values.take(pa.array(places, mask=missing))


def _scores(
    job: Job,
    base: pa.Table,
    known: dict[str, list[pa.ChunkedArray | pa.Array]],
    gauged: dict[str, list[pa.ChunkedArray | pa.Array]],
) -> pa.Table:
    columns = [*known.get("language", [])]
    for signal in job.signals:
        columns += known[signal.name] if signal.name in known else gauged.get(signal.name, [])
    return pa.table([*base.columns, *columns, *known["the pool"]], names=job.score_schema.names).cast(job.score_schema)


def _brought(job: Job, parts: list[Measured]) -> list[pa.ChunkedArray | pa.Array]:
    """The score columns that the pool brings."""
    return [
        pa.chunked_array([part.scores.get(f.name, pa.nulls(part.rows, f.type)) for part in parts], f.type)
        for f in job.pool.scores
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
