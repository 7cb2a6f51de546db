"""Measure the images of one part in threads, and let the recipe's image signals observe each right after it was decoded.

In: the bytes of each row's image, in order, None where it is not to be read. Out: facts, in order, and what each
image signal gives. An image is decoded once for all of them; at most a few batches of observations are in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from curate.pool.image import ImageFacts, ImageOptions, measure_image
from curate.process import CORES, in_threads
from curate.signals.signal import Signal, SignalOutput

_AHEAD = 64  # observations that wait for their signals, at most, besides those in the threads' hands


def measure_images(
    images: Iterator[bytes | memoryview | None], captions: pa.Array, options: ImageOptions, signals: Sequence[Signal]
) -> tuple[list[ImageFacts | None], list[SignalOutput]]:
    """Return the facts of each image, None where there is none, and the output of each image signal.

    Args:
        images: one item a row.
        captions: of the part's rows (string).
        options: what to measure besides the signals.
        signals: image signals; others are passed over.
    """
    observers = [signal.from_images(captions) for signal in signals if signal.from_images is not None]
    options = replace(options, observers=tuple(observer.observe for observer in observers))
    facts: list[ImageFacts | None] = []

    def measure(data: bytes | memoryview | None) -> ImageFacts | None:
        return None if data is None else measure_image(data, options)

    for row, fact in enumerate(in_threads(measure, images, 8 * CORES + (_AHEAD if observers else 0))):
        facts.append(fact and fact._replace(observed=()))
        if fact and fact.observed:
            for observer, view in zip(observers, fact.observed, strict=True):
                if view is not None:
                    observer.add(row, view)
    return facts, [observer.finish() for observer in observers]


def image_columns(facts: list[ImageFacts | None]) -> dict[str, pa.Array]:
    """Return the columns of `samples` that images give; null where none was measured."""
    kinds = {
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "sha256": pa.string(),
        "phash": pa.uint64(),
    }
    return {name: pa.array([fact and getattr(fact, name) for fact in facts], kind) for name, kind in kinds.items()}
