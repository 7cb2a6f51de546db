"""One part of a unit measured: captions checked, images decoded, signals run, and one status for each row.

In: batches of columns and image bytes from the source's format. Out: columns of `samples`, `scores` and `members`, and
what each signal observed. The status of a row is the first fault: of the input, of the caption, of the image or the
URL.

Four functions do it, over one `PartWork`: `measure_part` tries again what cannot be read, `_read` goes through the
batches, `_measure_batch` makes a batch's columns, and `_measure_steps` measures its images in steps of `STEP_ROWS`
rows: batches of models do not cross steps, and between two of them may be a checkpoint.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import RunError, SignalError
from curate.base.numeric.arrays import Mask, whole
from curate.base.wording import one_line
from curate.measure.images import FACTS, image_schema, measure_images
from curate.measure.outputs import output_columns, output_schema
from curate.measure.settings import MeasureSettings
from curate.pool.decode.columns import score_column
from curate.pool.decode.field_types import FieldCounts
from curate.pool.decode.text import check_captions
from curate.pool.files.faults import EmbeddingFault, InputFault, retry
from curate.pool.files.listing import check_state, file_state
from curate.pool.formats.input_format import Batch, InputPart
from curate.pool.registry import find_format
from curate.recipe.source import Source
from curate.signals.signal import ImageSignal, PrecomputedSignal, Signal, SignalOutput
from curate.store.checkpoints import Checkpoints

# Two batches of a model on a GPU; at 18 images a second and with two units under way, a minute of both. Texts are
# encoded at the end of a step, sorted by length: on a GPU they have some third more padding than in steps twice as
# long, on a CPU a twentieth.
STEP_ROWS = 512
_UNREADABLE = "unreadable"  # the reason of files that may be readable another time
_SAMPLES = pa.schema([field for field in schema.SAMPLES if field.name not in ("unit", "row", "source", "shard")])
_MEMBERS = pa.schema(list(schema.MEMBERS)[len(schema.ALIGNED) :])

Faults = tuple[pa.Array, pa.Array]  # status and error of each row
Missing = dict[
    str, tuple[str, bool]
]  # of signals whose embeddings the pool cannot supply: what is wrong, whether it is transient


@dataclass(frozen=True)
class MeasuredPart:
    """What one part of a unit gives, or a batch of it, or all parts together."""

    samples: pa.Table  # the columns of `samples` but unit, row, source and shard
    scores: pa.Table  # the score columns that the pool supplies
    outputs: pa.Table  # what signals observed, see `curate.measure.outputs`
    members: pa.Table | None = None  # the columns of `members` that are its own; None where the format has none
    faults: Missing = field(default_factory=dict)
    fields: FieldCounts = field(default_factory=Counter)  # how many values the fields have that its samples bring
    failure: tuple[str, str] | None = None  # reason and detail, where the file could not be read, or only in part
    state: str | None = None  # what the file was when it was read, see `file_state`; None where it was not

    @property
    def rows(self) -> int:
        """How many samples were found."""
        return len(self.samples)

    @property
    def may_be_read_later(self) -> bool:
        """Whether the file could not be read, and may be another time."""
        return self.failure is not None and may_be_read_later(self.failure[0])


@dataclass(frozen=True)
class PartWork:
    """A part, and what is needed to measure it.

    Attributes:
        signals: those that observe its images, or whose embeddings it supplies.
        checkpoints: those of the unit.
        state: what the file is now, see `file_state`.
    """

    settings: MeasureSettings
    source: Source
    part: InputPart
    signals: tuple[Signal, ...]
    checkpoints: Checkpoints
    state: str

    @cached_property
    def columns(self) -> pa.Schema:
        """The columns of `scores` that it supplies."""
        return self.settings.read_columns(self.source.name)

    @cached_property
    def observing(self) -> list[ImageSignal]:
        """The signals that observe its images."""
        return [signal for signal in self.signals if isinstance(signal, ImageSignal)]

    def check(self) -> None:
        """Raise RunError where the file is another one now."""
        check_state(self.part.path, self.source.storage, self.state)


def may_be_read_later(reason: str) -> bool:
    """Return whether a file that could not be read for this reason may be readable another time."""
    return reason == _UNREADABLE


def join_measured(parts: Sequence[MeasuredPart]) -> MeasuredPart:
    """Return parts, or the batches of one, put together in order."""
    members = [part.members for part in parts if part.members is not None]
    return MeasuredPart(
        samples=pa.concat_tables([part.samples for part in parts]),
        scores=pa.concat_tables([part.scores for part in parts]),
        outputs=pa.concat_tables([part.outputs for part in parts]),
        members=pa.concat_tables(members) if members else None,
        faults={name: fault for part in reversed(parts) for name, fault in part.faults.items()},
        fields=sum((part.fields for part in parts), Counter()),
    )


def measure_part(
    settings: MeasureSettings, source: Source, part: InputPart, signals: Sequence[Signal], checkpoints: Checkpoints
) -> MeasuredPart:
    """Measure a part of a source; a file that cannot be read is tried again. Raises RunError where it changed
    meanwhile.

    The other arguments are what `PartWork` says.
    """

    def read() -> MeasuredPart:
        state = file_state(part.path, source.storage)
        return _read(PartWork(settings, source, part, tuple(signals), checkpoints, state))

    try:
        return replace(_nothing(settings, source, signals), failure=part.fault) if part.fault else retry(read)
    except OSError as error:
        return replace(_nothing(settings, source, signals), failure=(_UNREADABLE, one_line(error, 300)))


def _nothing(settings: MeasureSettings, source: Source, signals: Sequence[Signal]) -> MeasuredPart:
    """Return what a part without rows gives."""
    schemas = (_SAMPLES, settings.read_columns(source.name), output_schema(signals))
    return MeasuredPart(*(columns.empty_table() for columns in schemas))


def _read(work: PartWork) -> MeasuredPart:
    """Return what the batches of a part give together; where it is damaged, those before the damage, and what it is."""
    measured, failure = [], None
    batches = find_format(work.source).read(work.source, work.part, work.columns, work.settings.pool.output)
    try:
        for number, batch in enumerate(batches):
            measured.append(_measure_batch(work, number, batch))
    except InputFault as fault:
        failure = fault.reason, fault.detail
    work.check()
    joined = join_measured(measured or [_nothing(work.settings, work.source, work.signals)])
    return replace(joined, failure=failure, state=work.state)


def _measure_batch(work: PartWork, number: int, batch: Batch) -> MeasuredPart:
    captions = check_captions(batch.columns["caption"])
    rows = len(captions.status)
    faults = captions.status, captions.error
    if batch.faults:
        faults = _first_fault(batch.faults, faults)
    columns = batch.columns | {name: getattr(captions, name) for name in ("caption", "words", "characters")}
    observed: dict[str, pa.Array] = {}
    if batch.images is not None:
        table = _measure_steps(work, number, batch, _is_ok(faults), captions.caption)
        observed = {name: whole(table[name]) for name in table.column_names}
        columns |= {name: observed[name] for name in FACTS}
        faults = _first_fault(faults, (observed["status"], observed["error"]))
        if (stated := columns.get("original_sha256")) is not None:
            is_same = pc.fill_null(pc.equal(stated, columns["sha256"]), False)
            columns["original_sha256"] = pc.if_else(is_same, pa.scalar(None, pa.string()), stated)
    elif "url" in columns:
        is_missing = pc.fill_null(pc.equal(columns["url"], ""), True)
        if pc.any(is_missing).as_py():
            faults = _first_fault(faults, (pc.if_else(is_missing, "no_url", schema.OK), pa.nulls(rows, pa.string())))
    is_ok = _is_ok(faults)
    caption = pc.if_else(pa.array(is_ok), columns["caption"], pa.scalar(None, pa.string()))
    uids = ids.make_uids(columns.get("uid"), columns.get("url"), columns.get("sha256"), caption)
    columns |= {"uid": uids, "status": faults[0], "error": faults[1]}
    supplied, missing = _supplied_embeddings(work, batch, is_ok)
    return MeasuredPart(
        samples=pa.table([columns.get(name, pa.nulls(rows)) for name in _SAMPLES.names], schema=_SAMPLES),
        scores=_scores(batch, work.columns, rows),
        outputs=_select(observed | supplied, output_schema(work.signals)),
        members=None if batch.members is None else pa.table(list(batch.members), schema=_MEMBERS),
        faults=missing,
        fields=batch.fields,
    )


def _measure_steps(work: PartWork, number: int, batch: Batch, is_ok: Mask, captions: pa.Array) -> pa.Table:
    """Return what the images of a batch give, those of usable rows; steps that are in place are not measured again."""
    part, signals = work.part, work.observing
    of = [part.path, part.groups, work.state, number, [[signal.name, signal.key] for signal in signals]]
    steps = partial(_image_steps, work, batch, is_ok, captions)
    try:
        return work.checkpoints.complete(of, image_schema(signals), steps, work.check)
    except SignalError as error:
        image = batch.columns["key"][error.row] if "key" in batch.columns else f"of row {error.row}"
        raise RunError(f"{error}, image {image} of {part.path}") from error


def _image_steps(work: PartWork, batch: Batch, is_ok: Mask, captions: pa.Array, first: int) -> Iterator[pa.Table]:
    """Yield what the images of a batch give, step by step from row `first` on; see `image_schema`."""
    assert batch.images is not None
    images = batch.images(is_ok & (np.arange(len(is_ok)) >= first))
    next(islice(images, first, first), None)
    for start in range(first, len(is_ok), STEP_ROWS):
        some, texts = islice(images, STEP_ROWS), captions.slice(start, STEP_ROWS)
        try:
            yield measure_images(some, texts, work.settings.measure.image, work.observing)
        except SignalError as error:
            raise SignalError(str(error), start + error.row) from error


def _supplied_embeddings(work: PartWork, batch: Batch, is_ok: Mask) -> tuple[dict[str, pa.Array], Missing]:
    """Return the embeddings that the pool supplies, by name, and the faults of those that it cannot."""
    columns: dict[str, pa.Array] = {}
    faults: Missing = {}
    for signal in work.signals:
        if isinstance(signal, PrecomputedSignal):
            assert batch.embeddings is not None
            output = SignalOutput(())
            try:
                output = SignalOutput((), batch.embeddings(signal.supplied, signal.dimension, is_ok))
            except EmbeddingFault as error:
                faults[signal.name] = str(error)[:300], error.transient
            columns |= output_columns(signal, output, len(is_ok))
    return columns, faults


def _select(columns: dict[str, pa.Array], names: pa.Schema) -> pa.Table:
    return pa.table({name: columns[name] for name in names.names}, schema=names)


def _is_ok(faults: Faults) -> Mask:
    return np.asarray(pc.equal(faults[0], schema.OK).to_numpy(zero_copy_only=False))


def _first_fault(old: Faults, new: Faults) -> Faults:
    """Return status and errors, the new ones where a row was ok before and is not now."""
    is_new = pc.and_(pc.equal(old[0], schema.OK), pc.not_equal(new[0], schema.OK))
    return pc.if_else(is_new, new[0], old[0]), pc.if_else(is_new, new[1], old[1])


def _scores(batch: Batch, columns: pa.Schema, rows: int) -> pa.Table:
    """Return the columns that a batch supplies, null where it has none of that name."""
    values = {
        field.name: score_column(whole(batch.scores[field.name]), field.type)
        if field.name in batch.scores
        else pa.nulls(rows, field.type)
        for field in columns
    }
    return pa.table(values, schema=columns)


def read_supplied(settings: MeasureSettings, source: Source, part: InputPart) -> pa.Table:
    """Return the columns of `scores` that a part supplies, of all rows that it has, without looking at an image.

    Raises OSError.
    """
    columns = settings.read_columns(source.name)

    def read() -> pa.Table:
        tables = [columns.empty_table()]
        state = file_state(part.path, source.storage)
        with suppress(InputFault):  # as when it was measured: the rows that came before
            for batch in find_format(source).read(source, part, columns, settings.pool.output):
                tables.append(_scores(batch, columns, len(batch.columns["caption"])))
        check_state(part.path, source.storage, state)
        return pa.concat_tables(tables)

    return columns.empty_table() if part.fault else retry(read)
