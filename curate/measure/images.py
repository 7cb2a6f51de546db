"""Images measured in threads, each decoded once for all image signals.

In: the bytes of consecutive rows' images, and their captions. Out: a table of facts, status and error of each image,
and of what signals observed (see `outputs`). Of all units in hand together a few observations a core wait for their
signals; each model holds at most a batch of each unit.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base import schema
from curate.base.process import CORES, Backlog, groups, in_threads
from curate.measure.outputs import output_columns, output_schema
from curate.read.image import ImageFacts, measure_image
from curate.read.phash import hash_small
from curate.recipe.measure import Image
from curate.signals.signal import Collector, ImageSignal

ImageBytes = bytes | memoryview | None

FACTS = ("width", "height", "format", "sha256", "phash")
"""The columns of `samples` that images give, beside status and error."""
_FACTS = pa.schema([schema.SAMPLES.field(name) for name in (*FACTS, "status", "error")])
# Images that a thread takes at a time where no model waits for them: handing one over costs as much as reading its
# header
_TOGETHER, _TOGETHER_BYTES = 32, 1 << 21
# Images of all units in hand that wait, decoded, for their signals: enough for the next while a model takes a batch
_DECODED = Backlog(8 * CORES + 64)
_NO_IMAGE = ImageFacts(status="no_image")


def image_schema(signals: Sequence[ImageSignal]) -> pa.Schema:
    """Return the columns that `measure_images` gives."""
    return pa.schema([*_FACTS, *output_schema(signals)])


def measure_images(
    images: Iterator[ImageBytes], captions: pa.Array, options: Image, signals: Sequence[ImageSignal]
) -> pa.Table:
    """Return the facts of each image, null where there is none to be read, and the output of each signal.

    Raises SignalError where a signal of another package fails; its row is counted from the first of these.
    """
    collectors = [signal.start(captions) for signal in signals]
    observers = [collector.observe for collector in collectors]

    def measure(some: list[ImageBytes]) -> list[ImageFacts]:
        return [_NO_IMAGE if data is None else measure_image(data, options, observers) for data in some]

    some_at_a_time = groups(images, lambda data: len(data or b""), _TOGETHER_BYTES, 1 if signals else _TOGETHER)
    facts: list[ImageFacts] = []
    for some in in_threads(measure, some_at_a_time, _DECODED):
        first = len(facts)
        facts += [_collect(collectors, row, fact) for row, fact in enumerate(some, first)] if collectors else some
    columns = _fact_columns(facts)
    for signal, collector in zip(signals, collectors, strict=True):
        columns |= output_columns(signal, collector.finish(), len(facts))
    return pa.table(columns, schema=image_schema(signals))


def _collect(collectors: Sequence[Collector], row: int, facts: ImageFacts) -> ImageFacts:
    """Give a row's observations to those who wait for them; returns the facts without."""
    if not facts.observed:
        return facts
    for collector, observation in zip(collectors, facts.observed, strict=True):
        if observation is not None:
            collector.add(row, observation)
    return facts._replace(observed=())


def _fact_columns(facts: Sequence[ImageFacts]) -> dict[str, pa.Array]:
    """Return the columns of _FACTS."""
    values: dict[str, Any] = dict(zip(ImageFacts._fields, zip(*facts, strict=True), strict=True))
    small = values["small"]
    has_hash = np.array([picture is not None for picture in small], bool)
    hashes = np.zeros(len(facts), np.uint64)
    if has_hash.any():
        hashes[has_hash] = hash_small([picture for picture in small if picture is not None])
    values["phash"] = pa.array(hashes, mask=~has_hash)
    values["sha256"] = [digest or None for digest in values["sha256"]]
    return {field.name: pa.array(values[field.name], field.type) for field in _FACTS}
