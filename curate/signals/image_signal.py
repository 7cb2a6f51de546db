"""Signals that observe each image once, and at the end perhaps its caption: `nsfw`, `text_area`, most of packages.

The folder's README has one of another package, with a small torch model in a file.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from curate.base import ids
from curate.signals.signal import ImageSignal, SignalOutput


class ImageObserver(Protocol):
    """What such a signal is; without state that threads could not share."""

    columns: pa.Schema

    def observe(self, image: Any) -> Any:
        """Return what the image tells; see `curate.signals.signal.Collector.observe`."""

    def finish(self, observed: Sequence[Any], captions: Sequence[str | None]) -> Sequence[pa.Array]:
        """Return the columns of a part, one value a row.

        `observed` is what `observe` returned for each row, None where the image could not be read or used.
        """


def image_signal(
    name: str, observer: ImageObserver, identity: Any, load: Callable[[], Any] | None = None
) -> ImageSignal:
    """Return the signal of an observer, by its name as `build` gets it.

    `identity` is what its values depend on, as plain data; `load` loads its model, so that what is wrong with it is
    reported before the run.
    """
    key = ids.digest([name, 1, identity])
    return ImageSignal(name, tuple(observer.columns), key, start=lambda captions: _Part(observer, captions), load=load)


class _Part:
    """Collects what was observed in one part."""

    def __init__(self, observer: ImageObserver, captions: pa.Array) -> None:
        self._observer, self._captions = observer, captions
        self._observed: list[Any] = [None] * len(captions)
        self.observe = observer.observe

    def add(self, row: int, observation: Any) -> None:
        """Take a row's observation."""
        self._observed[row] = observation

    def finish(self) -> SignalOutput:
        """Return the columns."""
        return SignalOutput(tuple(self._observer.finish(self._observed, self._captions.to_pylist())))
