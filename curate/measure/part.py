"""One part of a unit measured: captions checked, images decoded, signals run, and one status for each row.

In: batches of columns and image bytes from the source's format. Out: columns of `samples`, `scores` and `members`, and what
each signal observed. The status of a row is the first fault: of the input, of the caption, of the image or the URL.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.measure.images import image_columns, measure_images
from curate.measure.settings import MeasureSettings
from curate.numeric.arrays import Mask
from curate.numeric.vectors import no_embeddings
from curate.pool.faults import EmbeddingFault, InputFault
from curate.pool.formats.input_format import Batch, InputPart
from curate.pool.formats.registry import find_format
from curate.pool.image import ImageOptions
from curate.pool.listing import check_state, file_state
from curate.pool.text import check_captions
from curate.recipe.source import Source
from curate.signals.signal import Signal, SignalOutput
from curate.wording import one_line

ATTEMPTS = 3
UNREADABLE = "unreadable"  # the reason of files that may be readable another time

Faults = tuple[pa.Array, pa.Array]


@dataclass(frozen=True)
class MeasuredPart:
    """What one part of a unit gives.

    Attributes:
        samples: the columns of `samples` but unit, row, source and shard.
        scores: the score columns that the pool supplies.
        members: suffix, offset, size of `members`; None where the format has none.
        outputs: of each observing signal, in their order; empty where nothing was read.
        faults: of signals whose embeddings the pool was to supply and cannot: what is wrong, and whether it is transient.
        failure: reason and detail, where the file could not be read, or only in part.
        state: what the file was when it was read, see `curate.pool.listing.file_state`; None where it was not.
    """

    samples: pa.Table
    scores: pa.Table
    members: pa.Table | None = None
    outputs: tuple[SignalOutput, ...] = ()
    faults: dict[str, tuple[str, bool]] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    state: str | None = None

    @property
    def rows(self) -> int:
        """How many samples were found."""
        return len(self.samples)

    @property
    def is_gap(self) -> bool:
        """Whether the file could not be read, and may be another time."""
        return self.failure is not None and self.failure[0] == UNREADABLE


_NAMES = [name for name in schema.SAMPLES.names if name not in ("unit", "row", "source", "shard")]
_SAMPLES = pa.schema([schema.SAMPLES.field(name) for name in _NAMES])
_MEMBERS = pa.schema(list(schema.MEMBERS)[len(schema.ALIGNED) :])


def measure_part(settings: MeasureSettings, source: Source, part: InputPart, signals: Sequence[Signal]) -> MeasuredPart:
    """Measure a part; a file that cannot be read is tried again.

    Args:
        settings: of the run.
        source: that the part belongs to.
        part: which.
        signals: that observe its images, or whose embeddings it supplies.

    Raises:
        RunError: the file changed while it was read.
    """
    nothing = MeasuredPart(_SAMPLES.empty_table(), settings.pool.scores.empty_table())
    if part.fault:
        return replace(nothing, failure=part.fault)
    for attempt in range(ATTEMPTS):
        try:
            state = file_state(part.path, source.storage)
            measured = _measure_batches(settings, source, part, signals)
            check_state(part.path, source.storage, state)
            return replace(measured, state=state)
        except OSError as error:
            detail = one_line(error, 300)
            if isinstance(error, (FileNotFoundError, PermissionError)):
                break
            time.sleep(attempt)
    return replace(nothing, failure=(UNREADABLE, detail))


def _measure_batches(
    settings: MeasureSettings, source: Source, part: InputPart, signals: Sequence[Signal]
) -> MeasuredPart:
    pool, failure = settings.pool, None
    measured: list[MeasuredPart] = []
    try:
        for batch in find_format(source).read(source, part, pool.scores, pool.output):
            measured.append(_measure_batch(settings, batch, signals))
    except InputFault as fault:
        failure = fault.reason, fault.detail
    if not measured:
        return MeasuredPart(_SAMPLES.empty_table(), pool.scores.empty_table(), failure=failure)
    joined = measured[0]
    if measured[1:]:
        members = [one.members for one in measured if one.members is not None]
        joined = MeasuredPart(
            samples=pa.concat_tables([one.samples for one in measured]),
            scores=pa.concat_tables([one.scores for one in measured]),
            members=pa.concat_tables(members) if members else None,
            outputs=tuple(_join_outputs(outputs) for outputs in zip(*(one.outputs for one in measured), strict=True)),
            faults={name: fault for one in reversed(measured) for name, fault in one.faults.items()},
        )
    return replace(joined, failure=failure)


def _join_outputs(outputs: Sequence[SignalOutput]) -> SignalOutput:
    columns = tuple(pa.concat_arrays(arrays) for arrays in zip(*(one.columns for one in outputs), strict=True))
    pairs = [one.embeddings for one in outputs if one.embeddings is not None]
    image, text = (pa.concat_arrays([pair[side] for pair in pairs]) if pairs else None for side in range(2))
    return SignalOutput(columns, (image, text) if pairs else None)


def _measure_batch(settings: MeasureSettings, batch: Batch, signals: Sequence[Signal]) -> MeasuredPart:
    captions = check_captions(batch.columns["caption"])
    rows = len(captions.status)
    faults = batch.faults or (pa.repeat(schema.OK, rows), pa.nulls(rows, pa.string()))
    faults = _first_fault(faults, (captions.status, captions.error))
    columns = batch.columns | {name: getattr(captions, name) for name in ("caption", "words", "characters")}
    observed: list[SignalOutput] = []
    if batch.images is not None:
        image = settings.measure.image
        options = ImageOptions(image.decode, image.phash, image.jpeg_side, image.max_pixels)
        facts, observed = measure_images(batch.images(_is_ok(faults)), captions.caption, options, signals)
        columns |= image_columns(facts)
        status = pa.array(["no_image" if fact is None else fact.status for fact in facts], pa.string())
        faults = _first_fault(faults, (status, pa.array([fact and fact.error for fact in facts], pa.string())))
    elif "url" in columns:
        is_missing = pc.fill_null(pc.equal(columns["url"], ""), True)
        faults = _first_fault(faults, (pc.if_else(is_missing, "no_url", schema.OK), pa.nulls(rows, pa.string())))
    is_ok = _is_ok(faults)
    caption = pc.if_else(pa.array(is_ok), columns["caption"], pa.scalar(None, pa.string()))
    uids = ids.make_uids(columns.get("uid"), columns.get("url"), columns.get("sha256"), caption)
    columns |= {"uid": uids, "status": faults[0], "error": faults[1]}
    outputs, missing = _with_supplied(batch, signals, observed, is_ok)
    return MeasuredPart(
        samples=pa.table([_column(columns.get(f.name), f, rows) for f in _SAMPLES], schema=_SAMPLES),
        scores=pa.table([_score(batch, f, rows) for f in settings.pool.scores], schema=settings.pool.scores),
        members=None if batch.members is None else pa.table(list(batch.members), schema=_MEMBERS),
        outputs=tuple(outputs),
        faults=missing,
    )


def _with_supplied(
    batch: Batch, signals: Sequence[Signal], observed: Sequence[SignalOutput], is_ok: Mask
) -> tuple[list[SignalOutput], dict[str, tuple[str, bool]]]:
    """Return the output of each signal, in order, with the embeddings that the pool supplies, and the faults of these."""
    images = iter(observed)
    outputs: list[SignalOutput] = []
    faults: dict[str, tuple[str, bool]] = {}
    for signal in signals:
        if not signal.supplied:
            outputs.append(next(images))
            continue
        assert batch.embeddings is not None and signal.dimension is not None
        try:
            pair = batch.embeddings(signal.supplied, signal.dimension, is_ok)
        except EmbeddingFault as error:
            faults[signal.name] = str(error)[:300], error.transient
            pair = (no_embeddings(signal.dimension, len(is_ok)),) * 2
        outputs.append(SignalOutput((), pair))
    return outputs, faults


def _is_ok(faults: Faults) -> Mask:
    return np.asarray(pc.equal(faults[0], schema.OK).to_numpy(zero_copy_only=False))


def _first_fault(old: Faults, new: Faults) -> Faults:
    """Return status and errors, the new ones where a row was ok before and is not now."""
    is_new = pc.and_(pc.equal(old[0], schema.OK), pc.not_equal(new[0], schema.OK))
    status, errors = (pc.if_else(is_new, n, o) for o, n in zip(old, new, strict=True))
    return status, errors


def _column(column: pa.Array | None, field: pa.Field, rows: int) -> pa.Array:
    return pa.nulls(rows, field.type) if column is None else column.cast(field.type)


def _score(batch: Batch, field: pa.Field, rows: int) -> pa.Array:
    """Return a score column in the pool's type; NaN is null, since it has no place in an order."""
    if field.name not in batch.scores:
        return pa.nulls(rows, field.type)
    array = batch.scores[field.name].combine_chunks()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array.cast(field.type, safe=False)
