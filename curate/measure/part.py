"""Measures a part of a unit: checks captions, decodes images, runs signals, and sets a status for each row.

In: batches of columns and image bytes from the source's format. Out: columns of `samples`, `scores` and `members`, and
the outputs of signals. The status of a row is its first error: of the input, the caption, the image or the URL. Images
are measured in steps of `STEP_ROWS` rows. Batches of models do not cross steps, and there may be a checkpoint after
each step.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import Mask, whole
from curate.base.wording import one_line
from curate.measure.images import FACTS, image_schema, measure_images, output_columns, output_schema
from curate.measure.isolate import IsolatedMeasuring
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import Batch, InputPart
from curate.pool.registry import find_format
from curate.read.columns import score_column
from curate.read.errors import EmbeddingError, InputError, retry
from curate.read.field_types import FieldCounts
from curate.read.image import DAMAGED
from curate.read.listing import check_state
from curate.read.text import check_captions
from curate.recipe.source import Source
from curate.signals.signal import ImageSignal, PrecomputedSignal, Signal, SignalOutput
from curate.store.checkpoints import Checkpoints

# Two batches of a model on a GPU; one minute at 18 images per second with two units in progress. Texts are encoded at
# the end of a step, sorted by length: on a GPU they have about a third more padding than in steps twice as long, on a
# CPU 5% more.
STEP_ROWS = 512
UNREADABLE = "unreadable"  # the reason for files that may be readable later
OK = pa.scalar(schema.OK)
_SAMPLES = pa.schema([field for field in schema.SAMPLES if field.name not in ("unit", "row", "source", "shard")])
_MEMBERS = pa.schema(list(schema.MEMBERS)[len(schema.ALIGNED) :])

Faults = tuple[pa.Array, pa.Array]  # status and error of each row
# For signals whose embeddings the pool cannot supply: the error, and whether it is transient.
Missing = dict[str, tuple[str, bool]]


@dataclass(frozen=True)
class MeasuredPart:
    """The result of a part of a unit, of a batch, or of all parts together."""

    samples: pa.Table  # the columns of `samples` except unit, row, source and shard
    scores: pa.Table  # score columns from the pool
    outputs: pa.Table  # outputs of signals, see `curate.measure.images`
    members: pa.Table | None = None  # columns of `members`; None if the format has none
    faults: Missing = field(default_factory=dict)
    fields: FieldCounts = field(default_factory=Counter)  # number of values by field of the samples' json
    links: Counter[str] = field(default_factory=Counter)  # see `Batch.links`
    failure: tuple[str, str] | None = None  # reason and detail, if the file could not be read completely
    state: str | None = None  # state of the file when it was read, see `InputFormat.state`; None if not read


def join_measured(parts: Sequence[MeasuredPart]) -> MeasuredPart:
    """Concatenate parts, or the batches of a part, in order."""
    members = [part.members for part in parts if part.members is not None]
    return MeasuredPart(
        samples=pa.concat_tables([part.samples for part in parts]),
        scores=pa.concat_tables([part.scores for part in parts]),
        outputs=pa.concat_tables([part.outputs for part in parts]),
        members=pa.concat_tables(members) if members else None,
        faults={name: error for part in reversed(parts) for name, error in part.faults.items()},
        fields=sum((part.fields for part in parts), Counter()),
        links=sum((part.links for part in parts), Counter()),
    )


def measure_part(
    settings: MeasureSettings,
    source: Source,
    part: InputPart,
    signals: Sequence[Signal],
    checkpoints: Checkpoints,
    isolated: IsolatedMeasuring | None,
) -> MeasuredPart:
    """Measure a part of a source; a file that cannot be read is retried.

    `signals` observe its images, or get embeddings from it; `checkpoints` belong to the unit; `isolated` measures
    images if the unit killed its workers. Raises RunError if the file changed during the run.
    """
    columns = settings.read_columns(source.name)
    nothing = MeasuredPart(_SAMPLES.empty_table(), columns.empty_table(), output_schema(signals).empty_table())
    if problem := part.fault or (isolated and isolated.find_fault(source, part)):
        return replace(nothing, failure=problem)

    def read() -> MeasuredPart:
        kind = find_format(source)
        state = kind.state(part.path, source.storage)
        work = _PartWork(settings, source, part, signals, checkpoints, isolated, state)
        measured, failure = [], None
        try:
            for number, batch in enumerate(kind.read(source, part, columns, settings.pool.output)):
                measured.append(work.measure_batch(number, batch))
        except InputError as problem:
            failure = problem.reason, problem.detail
        work.check()
        return replace(join_measured(measured or [nothing]), failure=failure, state=work.state)

    try:
        return retry(read, part.path)
    except OSError as error:
        return replace(nothing, failure=(UNREADABLE, one_line(error, 300)))


@dataclass(frozen=True)
class _PartWork:
    settings: MeasureSettings
    source: Source
    part: InputPart
    signals: Sequence[Signal]
    checkpoints: Checkpoints
    isolated: IsolatedMeasuring | None
    state: str  # current state of the file, see `InputFormat.state`

    def check(self) -> None:
        check_state(self.part.path, self.source.storage, self.state, read=find_format(self.source).state)

    def measure_batch(self, number: int, batch: Batch) -> MeasuredPart:
        captions = check_captions(batch.columns["caption"])
        rows = len(captions.status)
        limit = rows if number else self.part.limit or rows  # of the first batch
        errors = captions.status, captions.error
        if batch.faults:
            errors = _first_fault(batch.faults, errors)
        columns: dict[str, pa.Array] = dict(batch.columns)
        columns |= {"caption": captions.caption, "words": captions.words, "characters": captions.characters}
        observed: dict[str, pa.Array] = {}
        if batch.images is not None:
            table = self._measure_images(number, batch, _is_ok(errors) & (np.arange(rows) < limit), captions.caption)
            observed = {name: whole(table[name]) for name in table.column_names}
            columns |= {name: observed[name] for name in FACTS}
            status = observed["status"]
            if batch.damaged:
                status = pc.if_else(pc.is_in(status, pa.array(DAMAGED)), pa.scalar(batch.damaged), status)
            errors = _first_fault(errors, (status, observed["error"]))
            if (stated := columns.get("original_sha256")) is not None:
                is_same = pc.equal(stated, columns["sha256"]).fill_null(False)
                columns["original_sha256"] = pc.if_else(is_same, pa.scalar(None, pa.string()), stated)
        elif "url" in columns:
            status = pc.if_else(pc.equal(columns["url"], pa.scalar("")).fill_null(True), pa.scalar("no_url"), OK)
            errors = _first_fault(errors, (status, pa.nulls(rows, pa.string())))
        is_ok = _is_ok(errors)
        caption = columns["caption"]
        if not is_ok.all():
            caption = pc.if_else(pa.array(is_ok), caption, pa.scalar(None, pa.string()))
        uids = ids.make_uids(columns.get("uid"), columns.get("url"), columns.get("sha256"), caption)
        columns |= {"uid": uids, "status": errors[0], "error": errors[1]}
        supplied, missing = self._supplied_embeddings(batch, is_ok)
        samples = pa.table([columns.get(name, pa.nulls(rows)) for name in _SAMPLES.names], schema=_SAMPLES)
        scores = _scores(batch, self.settings.read_columns(self.source.name))[:limit]
        outputs = pa.table(observed | supplied, schema=output_schema(self.signals))[:limit]
        members = None if batch.members is None else pa.table(list(batch.members), schema=_MEMBERS)[:limit]
        return MeasuredPart(samples[:limit], scores, outputs, members, missing, batch.fields, batch.links)

    def _measure_images(self, number: int, batch: Batch, is_ok: Mask, captions: pa.Array) -> pa.Table:
        signals = [signal for signal in self.signals if isinstance(signal, ImageSignal)]
        keys = batch.columns.get("key", [f"of row {row}" for row in range(len(is_ok))])

        def steps(first: int) -> Iterator[pa.Table]:
            assert batch.images is not None
            images = batch.images(is_ok & (np.arange(len(is_ok)) >= first))
            next(islice(images, first, first), None)
            for start in range(first, len(is_ok), STEP_ROWS):
                step, texts = islice(images, STEP_ROWS), captions.slice(start, STEP_ROWS)
                labels = [f"image {key} of {self.part.path}" for key in keys[start : start + STEP_ROWS]]
                if self.isolated:
                    yield self.isolated.measure([*step], texts, signals, labels)
                else:
                    yield measure_images(step, texts, self.settings.measure.image, signals, labels)

        keyed = [[signal.name, signal.key] for signal in signals]
        name = [self.part.path, self.part.groups, self.state, number, keyed]
        return self.checkpoints.complete(name, image_schema(signals), steps, self.check)

    def _supplied_embeddings(self, batch: Batch, is_ok: Mask) -> tuple[dict[str, pa.Array], Missing]:
        columns: dict[str, Any] = {}
        errors: Missing = {}
        for signal in self.signals:
            if isinstance(signal, PrecomputedSignal):
                assert batch.embeddings is not None
                output = SignalOutput(())
                try:
                    output = SignalOutput((), batch.embeddings(signal.supplied, signal.dimension, is_ok))
                except EmbeddingError as error:
                    errors[signal.name] = str(error)[:300], error.transient
                columns |= output_columns(signal, output, len(is_ok))
        return columns, errors


def _is_ok(faults: Faults) -> Mask:
    return np.asarray(pc.equal(faults[0], OK).to_numpy(zero_copy_only=False))


def _first_fault(old: Faults, new: Faults) -> Faults:
    is_new = pc.and_(pc.equal(old[0], OK), pc.not_equal(new[0], OK))
    return pc.if_else(is_new, new[0], old[0]), pc.if_else(is_new, new[1], old[1])


def _scores(batch: Batch, columns: pa.Schema) -> pa.Table:
    nulls = partial(pa.nulls, len(batch.columns["caption"]))
    values = ((batch.scores.get(column.name), column.type) for column in columns)
    arrays = [nulls(kind) if column is None else score_column(whole(column), kind) for column, kind in values]
    return pa.table(arrays, schema=columns)


def read_supplied(settings: MeasureSettings, source: Source, part: InputPart) -> pa.Table:
    """Return the columns of `scores` that a part supplies, for all its rows, without reading images.

    Raises OSError.
    """
    columns = settings.read_columns(source.name)

    def read() -> pa.Table:
        tables, kind = [columns.empty_table()], find_format(source)
        state = kind.state(part.path, source.storage)
        with suppress(InputError):  # as when it was measured: keep the rows before the error
            for batch in kind.read(source, part, columns, settings.pool.output):
                tables.append(_scores(batch, columns))
        check_state(part.path, source.storage, state, read=kind.state)
        return pa.concat_tables(tables)

    return columns.empty_table() if part.fault else retry(read, part.path)
