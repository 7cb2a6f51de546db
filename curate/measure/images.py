"""Measures the images of one part in threads, and lets the recipe's signals look at each while it is decoded.

In: the bytes of each row's image, in order, None where it is not to be read. Out: facts, in order, and what each
signal gauged. An image is decoded once, whoever looks; at most a few batches of views are in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from curate.pool.image import ImageFacts, ImageOptions, measure_image
from curate.process import CORES, in_threads
from curate.signals.signal import Signal, SignalOutput

_AHEAD = 64  # views that wait for their signals, at most, beside those in the threads' hands


def measure_images(
    images: Iterator[bytes | memoryview | None], captions: pa.Array, options: ImageOptions, signals: Sequence[Signal]
) -> tuple[list[ImageFacts | None], list[SignalOutput]]:
    """Facts of each image, None where there is none, and what each of the signals (of images) gauged.

    Args:
        images: one item a row.
        captions: of the part's rows (string).
        options: what to measure beside the signals.
        signals: those that start a gauge.
    """
    gauges = [signal.from_images(captions) for signal in signals if signal.from_images is not None]
    options = replace(options, looks=tuple(gauge.observe for gauge in gauges))
    facts: list[ImageFacts | None] = []

    def measure(data: bytes | memoryview | None) -> ImageFacts | None:
        return None if data is None else measure_image(data, options)

    for row, fact in enumerate(in_threads(measure, images, 8 * CORES + (_AHEAD if gauges else 0))):
        facts.append(fact and fact._replace(views=()))
        if fact and fact.views:
            for gauge, view in zip(gauges, fact.views, strict=True):
                if view is not None:
                    gauge.add(row, view)
    return facts, [gauge.finish() for gauge in gauges]


def image_columns(facts: list[ImageFacts | None]) -> dict[str, pa.Array]:
    """The columns of `samples` that images give; null where none was measured."""
    kinds = {
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "sha256": pa.string(),
        "phash": pa.uint64(),
    }
    return {name: pa.array([fact and getattr(fact, name) for fact in facts], kind) for name, kind in kinds.items()}
