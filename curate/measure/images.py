"""Measures images in threads; each image is decoded once for all signals.

A few observations per core, over all units in progress, wait for their signals; each model holds at most one batch of
each unit.
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pyarrow as pa

from curate.base import schema
from curate.base.errors import RunError
from curate.base.numeric.vectors import no_embeddings
from curate.base.process import CORES, Backlog, groups, in_threads, process_cache
from curate.base.wording import describe_error
from curate.read.image import ImageFacts, measure_image
from curate.read.phash import hash_small
from curate.recipe.measure import Image
from curate.signals.signal import Collector, Column, Embedder, ImageSignal, Signal, SignalOutput

ImageBytes = bytes | memoryview | None
Columns = dict[str, Column]

# The columns of `samples` from images, besides status and error.
FACTS = ("width", "height", "format", "sha256", "phash")
_FACTS = pa.schema([schema.SAMPLES.field(name) for name in (*FACTS, "status", "error")])
_UNUSABLE = ValueError, TypeError, OSError, MemoryError  # errors of one image; any other exception ends the run
# Images per task if no model waits for them: submitting a task costs as much as reading a header
_TOGETHER, _TOGETHER_BYTES = 32, 1 << 21
# Decoded images that may wait for their signals, over all units: enough for the next batch while a model runs
_DECODED = Backlog(8 * CORES + 64)
_NO_IMAGE = ImageFacts(status="no_image")


def image_schema(signals: Sequence[ImageSignal]) -> pa.Schema:
    """Return the columns of the result of `measure_images`."""
    return pa.schema([*_FACTS, *output_schema(signals)])


def measure_images(
    images: Iterator[ImageBytes], captions: pa.Array, options: Image, signals: Sequence[ImageSignal], labels: list[str]
) -> pa.Table:
    """Return the facts about each image, null if it cannot be read, and the output of each signal.

    An exception in a signal gets the image's label as a note.
    """
    works = [_SignalWork(signal, signal.start(captions), [None] * len(captions)) for signal in signals]
    observers = [work.observe for work in works]

    def measure(group: list[ImageBytes]) -> list[ImageFacts]:
        return [_NO_IMAGE if data is None else measure_image(data, options, observers) for data in group]

    image_groups = groups(images, lambda data: len(data or b""), _TOGETHER_BYTES, 1 if signals else _TOGETHER)
    facts: list[ImageFacts] = []
    try:
        for group in in_threads(measure, image_groups, _DECODED):
            for fact in group:
                for work, observation in zip(works, fact.observed, strict=False):  # empty if it cannot be read
                    work.add(len(facts), observation)
                facts.append(fact._replace(observed=()))
    except Exception as error:  # plugin code may raise anything
        error.add_note(labels[len(facts)])
        raise
    columns: dict[str, Any] = _fact_columns(facts)
    for work in works:
        columns |= output_columns(work.signal, work.collector.finish(), len(facts), work.errors)
    return pa.table(columns, schema=image_schema(signals))


@dataclass(frozen=True)
class _SignalWork:
    signal: ImageSignal
    collector: Collector
    errors: list[str | None]  # for images that it cannot use

    def observe(self, image: PIL.Image.Image) -> Any:
        try:
            return self.collector.observe(image)
        except _UNUSABLE as error:
            frames = traceback.walk_tb(error.__traceback__)
            is_loading = any(frame.f_code is process_cache.__code__ for frame, _ in frames)
            if self.signal.package and (is_loading or isinstance(error, FileNotFoundError | PermissionError)):
                raise RunError(f"{self.signal.label}: {describe_error(error)}") from error  # not the image's fault
            return _Unusable(describe_error(error))

    def add(self, row: int, observation: Any) -> None:
        if isinstance(observation, _Unusable):
            self.errors[row] = observation.error
        elif observation is not None:
            self.collector.add(row, observation)


class _Unusable(NamedTuple):
    error: str


def _fact_columns(facts: Sequence[ImageFacts]) -> dict[str, pa.Array]:
    values: dict[str, Any] = dict(zip(ImageFacts._fields, zip(*facts, strict=True), strict=True))
    small = values["small"]
    has_hash = np.array([picture is not None for picture in small], bool)
    hashes = np.zeros(len(facts), np.uint64)
    if has_hash.any():
        hashes[has_hash] = hash_small([picture for picture in small if picture is not None])
    values["phash"] = pa.array(hashes, mask=~has_hash)
    values["sha256"] = [digest or None for digest in values["sha256"]]
    return {field.name: pa.array(values[field.name], field.type) for field in _FACTS}


class EmbeddingColumns(NamedTuple):
    """The embeddings of rows by one model, see `curate.base.numeric.vectors`."""

    image: Column
    text: Column


def output_schema(signals: Sequence[Signal]) -> pa.Schema:
    """Return the columns of the signals' outputs."""
    fields: list[pa.Field] = []
    for signal in signals:
        fields += [field.with_name(f"{signal.name}.{field.name}") for field in signal.columns]
        if isinstance(signal, ImageSignal) and signal.package:
            fields.append(pa.field(f"{signal.name} errors", pa.string()))
        if isinstance(signal, Embedder):
            kind = pa.list_(pa.float16(), signal.dimension)
            fields += [pa.field(f"{signal.name} {side}", kind) for side in EmbeddingColumns._fields]
    return pa.schema(fields)


def output_columns(signal: Signal, output: SignalOutput, rows: int, errors: Sequence[str | None] = ()) -> Columns:
    """Return a signal's output by name; if the embeddings are missing, rows have none."""
    columns = list(output.columns)
    if isinstance(signal, ImageSignal) and signal.package:
        columns.append(pa.array(errors, pa.string()))
    if isinstance(signal, Embedder):
        columns += output.embeddings or [no_embeddings(signal.dimension, rows)] * 2
    return signal.by_name(columns, rows, output_schema([signal]))


def by_name(table: pa.Table) -> Columns:
    """Return the columns of a table."""
    return dict(zip(table.column_names, table.columns, strict=True))
