"""Tables `samples`, `scores` and `members` of a unit, from one reading of its inputs.

In: the unit's tars or row groups. Out: one row per sample found, the unreadable ones included, in the order of the
inputs; files that could not be read, and the rows and state of each part, go into the note of `samples`.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.errors import RunError
from curate.job import Job
from curate.measure.image import ImageOptions
from curate.measure.language import detect_languages
from curate.measure.measured import Measured
from curate.measure.parquet import measure_parquet
from curate.measure.tar import measure_tar
from curate.plan import Part, Unit
from curate.shards.listing import check_state, file_state

ATTEMPTS = 3


def measure_unit(job: Job, unit: Unit) -> Unit:
    """Writes the unit's tables, unless they stand."""
    key = job.measure_key(unit)
    tables = ["samples", *(["scores"] if job.has_scores else []), *(["members"] if job.has_members else [])]
    if all(job.stands(table, unit, key) for table in reversed(tables)):
        return unit
    parts = [_measure_part(job, unit, part) for part in unit.parts]
    samples = _samples(job, unit, parts)
    base = samples.select(["unit", "row", "uid"])
    language_score = None
    if job.recipe.measure.language:
        readable = pc.if_else(pc.equal(samples["status"], schema.OK), samples["caption"], pa.scalar(None, pa.string()))
        language, language_score = detect_languages(readable.combine_chunks())
        samples = samples.set_column(schema.SAMPLES.get_field_index("language"), "language", language)
    # A file that could not be opened may be there next time: without a key the unit is measured again.
    lasting = not any(part.failure and part.failure[0] == "unreadable" for part in parts)
    if job.has_members:
        job.write("members", unit, _members(base, parts), key if lasting else "")
    if job.has_scores:
        scores = _scores(job, base, parts, language_score)
        job.write("scores", unit, scores, key if lasting else "")
    failures = [[part.path, *m.failure] for part, m in zip(unit.parts, parts, strict=True) if m.failure]
    note = {"failures": failures, "rows": [part.rows for part in parts], "states": [part.state for part in parts]}
    job.write("samples", unit, samples, key if lasting else "", note)  # the last one: it stands for all
    return unit


def _measure_part(job: Job, unit: Unit, part: Part) -> Measured:
    if part.fault:
        return Measured(failure=part.fault)
    source = job.source(unit)
    image = job.recipe.measure.image
    options = ImageOptions(decode=image.decode, phash=image.phash, max_pixels=image.max_pixels)
    for attempt in range(ATTEMPTS):
        try:
            state = file_state(part.path, source.storage)
            if source.format == "webdataset":
                measured = measure_tar(part, source, options)
            else:
                measured = measure_parquet(part, source, options, job.pool)
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


def _scores(job: Job, base: pa.Table, parts: list[Measured], language_score: pa.Array | None) -> pa.Table:
    table = base
    if language_score is not None:
        table = table.append_column("language_score", language_score)
    for wanted in job.pool.scores:
        arrays = [part.scores.get(wanted.name, pa.nulls(part.rows, wanted.type)) for part in parts]
        table = table.append_column(wanted.name, pa.chunked_array(arrays, wanted.type))
    return table.cast(job.score_schema)


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
