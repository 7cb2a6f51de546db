"""Signals that observe each image once, and at the end perhaps its caption: `nsfw`, `text_area`, most user-defined signals."""

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from curate import ids
from curate.signals.signal import Signal, SignalOutput


class ImageObserver(Protocol):
    """What such a signal is; without state that threads could not share."""

    columns: pa.Schema

    def observe(self, image: Any) -> Any:
        """Return what the image tells; see `curate.signals.signal.ImageSignal.observe`."""

    def finish(self, observed: Sequence[Any], captions: Sequence[str | None]) -> Sequence[pa.Array]:
        """Return the columns of a part, one value a row.

        Args:
            observed: what `observe` returned for each row; None where the image could not be read or used.
            captions: of each row.
        """


def image_signal(name: str, observer: ImageObserver, identity: Any) -> Signal:
    """Return the signal of an observer; `identity` is what its values depend on, as plain data."""
    return Signal(
        name=name,
        columns=tuple(observer.columns),
        key=ids.digest([name, 1, identity]),
        from_images=lambda captions: _Part(observer, captions),
    )


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
