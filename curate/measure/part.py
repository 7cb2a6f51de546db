"""One part of a unit measured: captions checked, images decoded, signals run, and one status for each row.

In: batches of columns and image bytes from the source's format. Out: columns of `samples`, `scores` and `members`, and what
each signal observed. The status of a row is the first fault: of the input, of the caption, of the image or the URL.

Images are measured in threads, each decoded once for all image signals. Of all units in hand together a few observations a
core wait for their signals; each model holds at most a batch of each unit. They are measured in steps of `STEP_ROWS` rows:
batches of models do not cross steps, and between two of them may be a checkpoint.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import RunError, SignalError
from curate.base.numeric.arrays import Mask, whole
from curate.base.numeric.vectors import no_embeddings
from curate.base.process import CORES, Backlog, groups, in_threads
from curate.base.wording import one_line
from curate.measure.settings import MeasureSettings
from curate.pool.decode.columns import score_column
from curate.pool.decode.field_types import FieldCounts
from curate.pool.decode.image import ImageFacts, measure_image
from curate.pool.decode.phash import hash_small
from curate.pool.decode.text import check_captions
from curate.pool.files.faults import EmbeddingFault, InputFault, retry
from curate.pool.files.listing import check_state, file_state
from curate.pool.formats.input_format import Batch, InputPart
from curate.pool.registry import find_format
from curate.recipe.measure import Image
from curate.recipe.source import Source
from curate.signals.signal import Signal, SignalOutput
from curate.store.checkpoints import Checkpoints

# Two batches of a model on a GPU; at 18 images a second and with two units under way, a minute of both. Texts are encoded at the
# end of a step, sorted by length: on a GPU they have some third more padding than in steps twice as long, on a CPU a twentieth.
STEP_ROWS = 512
# Images that a thread takes at a time where no model waits for them: handing one over costs as much as reading its header
_TOGETHER, _TOGETHER_BYTES = 32, 1 << 21
_UNREADABLE = "unreadable"  # the reason of files that may be readable another time
# Images of all units in hand that wait, decoded, for their signals: enough for the next while a model takes a batch
_DECODED = Backlog(8 * CORES + 64)
_SAMPLES = pa.schema([field for field in schema.SAMPLES if field.name not in ("unit", "row", "source", "shard")])
_MEMBERS = pa.schema(list(schema.MEMBERS)[len(schema.ALIGNED) :])
_FACTS = pa.schema([schema.SAMPLES.field(name) for name in ("width", "height", "format", "sha256", "phash")])
_NO_IMAGE = ImageFacts(status="no_image")
_FAULTS = pa.schema([schema.SAMPLES.field(name) for name in ("status", "error")])

Faults = tuple[pa.Array, ...]  # status and error of each row
Steps = Callable[[int], Iterator[pa.Table]]  # from a row to tables of the rows from there on
Complete = Callable[[int, Steps], pa.Table]  # from a batch's number and its steps to the table of all its rows


@dataclass(frozen=True)
class MeasuredPart:
    """What one part of a unit gives, or a batch of it, or all parts together."""

    samples: pa.Table  # the columns of `samples` but unit, row, source and shard
    scores: pa.Table  # the score columns that the pool supplies
    # Of each observing signal: its columns, its errors where it keeps some, and the two of embeddings where it gives some
    outputs: tuple[pa.Table, ...]
    members: pa.Table | None = None  # the columns of `members` that are its own; None where the format has none
    # Of signals whose embeddings the pool was to supply and cannot: what is wrong, and whether it is transient.
    faults: dict[str, tuple[str, bool]] = field(default_factory=dict)
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


def may_be_read_later(reason: str) -> bool:
    """Return whether a file that could not be read for this reason may be readable another time."""
    return reason == _UNREADABLE


def join_measured(parts: Sequence[MeasuredPart]) -> MeasuredPart:
    """Return parts, or the batches of one, put together in order."""
    members = [part.members for part in parts if part.members is not None]
    return MeasuredPart(
        samples=pa.concat_tables([part.samples for part in parts]),
        scores=pa.concat_tables([part.scores for part in parts]),
        outputs=tuple(pa.concat_tables(tables) for tables in zip(*(part.outputs for part in parts), strict=True)),
        members=pa.concat_tables(members) if members else None,
        faults={name: fault for part in reversed(parts) for name, fault in part.faults.items()},
        fields=sum((part.fields for part in parts), Counter()),
    )


def measure_part(
    settings: MeasureSettings, source: Source, part: InputPart, signals: Sequence[Signal], checkpoints: Checkpoints
) -> MeasuredPart:
    """Measure a part of a source; a file that cannot be read is tried again. Raises RunError where it changed meanwhile.

    `signals` are those that observe its images, or whose embeddings it supplies; `checkpoints` are those of the unit.
    """
    outputs = tuple(_output_schema(signal).empty_table() for signal in signals)
    nothing = MeasuredPart(_SAMPLES.empty_table(), settings.read_columns(source.name).empty_table(), outputs)
    if part.fault:
        return replace(nothing, failure=part.fault)

    def read() -> MeasuredPart:
        state = file_state(part.path, source.storage)
        check = partial(check_state, part.path, source.storage, state)
        observing = [signal for signal in signals if signal.from_images]

        def complete(batch: int, steps: Callable[[int], Iterator[pa.Table]]) -> pa.Table:
            of = [part.path, part.groups, state, batch, [[signal.name, signal.key] for signal in observing]]
            return checkpoints.complete(of, _image_schema(observing), steps, check)

        batches, failure = _measure_batches(settings, source, part, signals, complete)
        check()
        return replace(join_measured(batches or [nothing]), failure=failure, state=state)

    try:
        return retry(read)
    except OSError as error:
        return replace(nothing, failure=(_UNREADABLE, one_line(error, 300)))


def _measure_batches(
    settings: MeasureSettings, source: Source, part: InputPart, signals: Sequence[Signal], complete: Complete
) -> tuple[list[MeasuredPart], tuple[str, str] | None]:
    """Return what each batch of a part gives, and reason and detail where the part is damaged."""
    measured, columns = [], settings.read_columns(source.name)
    try:
        for number, batch in enumerate(find_format(source).read(source, part, columns, settings.pool.output)):
            try:
                measured.append(_measure_batch(settings, batch, columns, signals, partial(complete, number)))
            except SignalError as error:
                image = batch.columns["key"][error.row] if "key" in batch.columns else f"of row {error.row}"
                raise RunError(f"{error}, image {image} of {part.path}") from error
    except InputFault as fault:
        return measured, (fault.reason, fault.detail)
    return measured, None


def _measure_batch(
    settings: MeasureSettings,
    batch: Batch,
    scores: pa.Schema,
    signals: Sequence[Signal],
    complete: Callable[[Steps], pa.Table],
) -> MeasuredPart:
    captions = check_captions(batch.columns["caption"])
    rows = len(captions.status)
    faults = captions.status, captions.error
    if batch.faults:
        faults = _first_fault(batch.faults, faults)
    columns = batch.columns | {name: getattr(captions, name) for name in ("caption", "words", "characters")}
    observed: list[pa.Array] = []
    if batch.images is not None:
        steps = partial(_image_steps, settings.measure.image, signals, batch.images, _is_ok(faults), captions.caption)
        measured = [column.combine_chunks() for column in complete(steps).columns]
        columns |= zip(_FACTS.names, measured, strict=False)
        faults = _first_fault(faults, tuple(measured[len(_FACTS) : len(_FACTS) + len(_FAULTS)]))
        observed = measured[len(_FACTS) + len(_FAULTS) :]
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
    outputs, missing = _outputs(batch, signals, observed, is_ok)
    return MeasuredPart(
        samples=pa.table([columns.get(name, pa.nulls(rows)) for name in _SAMPLES.names], schema=_SAMPLES),
        scores=_scores(batch, scores, rows),
        outputs=outputs,
        members=None if batch.members is None else pa.table(list(batch.members), schema=_MEMBERS),
        faults=missing,
        fields=batch.fields,
    )


def _image_steps(
    options: Image,
    signals: Sequence[Signal],
    read: Callable[[Mask], Iterator[bytes | memoryview | None]],
    is_ok: Mask,
    captions: pa.Array,
    first: int,
) -> Iterator[pa.Table]:
    """Yield what the images of a batch give, step by step from row `first` on; see `_image_schema`."""
    images = read(is_ok & (np.arange(len(is_ok)) >= first))
    next(islice(images, first, first), None)
    for start in range(first, len(is_ok), STEP_ROWS):
        try:
            yield _measure_images(islice(images, STEP_ROWS), captions.slice(start, STEP_ROWS), options, signals)
        except SignalError as error:
            raise SignalError(str(error), start + error.row) from error


def _measure_images(
    images: Iterator[bytes | memoryview | None], captions: pa.Array, options: Image, signals: Sequence[Signal]
) -> pa.Table:
    """Return the facts of each image, null where there is none to be read, and the output of each image signal."""
    observing = [signal for signal in signals if signal.from_images]
    observers = [signal.from_images(captions) for signal in observing if signal.from_images]
    observe = [observer.observe for observer in observers]
    facts: list[ImageFacts | None] = []

    def measure(some: list[bytes | memoryview | None]) -> list[ImageFacts | None]:
        return [None if data is None else measure_image(data, options, observe) for data in some]

    some_at_a_time = groups(images, lambda data: len(data or b""), _TOGETHER_BYTES, 1 if observe else _TOGETHER)
    for some in in_threads(measure, some_at_a_time, _DECODED):
        if observe:
            for row, fact in enumerate(some, len(facts)):
                for observer, view in zip(observers, fact.observed if fact else (), strict=False):
                    if view is not None:
                        observer.add(row, view)
        facts += [fact and fact._replace(observed=()) for fact in some] if observe else some
    columns = _fact_columns(facts)
    for signal, observer in zip(observing, observers, strict=True):
        columns += _columns(signal, observer.finish(), len(facts))
    return pa.table(columns, schema=_image_schema(observing))


def _fact_columns(facts: Sequence[ImageFacts | None]) -> list[pa.Array]:
    """Return the columns of _FACTS and _FAULTS."""
    width, height, kind, sha256, small, status, error, _ = zip(*(fact or _NO_IMAGE for fact in facts), strict=True)
    has_hash = np.array([one is not None for one in small], bool)
    hashes = np.zeros(len(facts), np.uint64)
    if has_hash.any():
        hashes[has_hash] = hash_small([one for one in small if one is not None])
    values = (width, height, kind, [one or None for one in sha256], pa.array(hashes, mask=~has_hash), status, error)
    return [pa.array(column, field.type) for column, field in zip(values, [*_FACTS, *_FAULTS], strict=True)]


def _image_schema(observing: Sequence[Signal]) -> pa.Schema:
    """Return the columns that images give: facts, status and error, and the outputs of image signals."""
    return pa.schema([*_FACTS, *_FAULTS, *(field for signal in observing for field in _output_schema(signal))])


def _outputs(
    batch: Batch, signals: Sequence[Signal], observed: Sequence[pa.Array], is_ok: Mask
) -> tuple[tuple[pa.Table, ...], dict[str, tuple[str, bool]]]:
    """Return the output of each signal, with the embeddings that the pool supplies, and the faults of these."""
    images = iter(observed)
    tables: list[pa.Table] = []
    faults: dict[str, tuple[str, bool]] = {}
    for signal in signals:
        output = _output_schema(signal)
        if signal.supplied:
            assert batch.embeddings is not None and signal.dimension is not None
            supplied = SignalOutput(())
            try:
                supplied = SignalOutput((), batch.embeddings(signal.supplied, signal.dimension, is_ok))
            except EmbeddingFault as error:
                faults[signal.name] = str(error)[:300], error.transient
            columns = _columns(signal, supplied, len(is_ok))
        else:
            columns = list(islice(images, len(output)))
        tables.append(pa.table(columns, schema=output))
    return tuple(tables), faults


def _columns(signal: Signal, output: SignalOutput, rows: int) -> list[pa.Array]:
    """Return a signal's output as its columns; without embeddings that it was to give, rows have none."""
    columns = [*output.columns, output.errors] if signal.keeps_errors else list(output.columns)
    if signal.dimension is None:
        return columns
    return [*columns, *(output.embeddings or (no_embeddings(signal.dimension, rows),) * 2)]


def _output_schema(signal: Signal) -> pa.Schema:
    kind = None if signal.dimension is None else pa.list_(pa.float16(), signal.dimension)
    errors = [pa.field("error", pa.string())] if signal.keeps_errors else []
    return pa.schema([*signal.columns, *errors, *(pa.field(side, kind) for side in ("image", "text") if kind)])


def _is_ok(faults: Faults) -> Mask:
    return np.asarray(pc.equal(faults[0], schema.OK).to_numpy(zero_copy_only=False))


def _first_fault(old: Faults, new: Faults) -> Faults:
    """Return status and errors, the new ones where a row was ok before and is not now."""
    is_new = pc.and_(pc.equal(old[0], schema.OK), pc.not_equal(new[0], schema.OK))
    status, errors = (pc.if_else(is_new, n, o) for o, n in zip(old, new, strict=True))
    return status, errors


def _scores(batch: Batch, columns: pa.Schema, rows: int) -> pa.Table:
    """Return the columns that a batch supplies, null where it has none of that name."""
    found = [
        score_column(whole(batch.scores[field.name]), field.type)
        if field.name in batch.scores
        else pa.nulls(rows, field.type)
        for field in columns
    ]
    return pa.table(found, schema=columns)


def read_supplied(settings: MeasureSettings, source: Source, part: InputPart) -> pa.Table:
    """Return the columns of `scores` that a part supplies, of all rows that it has, without looking at an image. Raises OSError."""
    columns = settings.read_columns(source.name)

    def read() -> pa.Table:
        found = [columns.empty_table()]
        state = file_state(part.path, source.storage)
        with suppress(InputFault):  # as when it was measured: the rows that came before
            for batch in find_format(source).read(source, part, columns, settings.pool.output):
                found.append(_scores(batch, columns, len(batch.columns["caption"])))
        check_state(part.path, source.storage, state)
        return pa.concat_tables(found)

    return columns.empty_table() if part.fault else retry(read)
