"""Signals that need nothing but a look at each image, and at the end the captions: `nsfw`, `text_area`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pyarrow as pa
from PIL import Image

from curate import ids
from curate.signals.signal import Signal, SignalOutput


class Looker(Protocol):
    """What such a signal is."""

    columns: pa.Schema

    def look(self, image: Image.Image) -> tuple[Any, ...]:
        """What the image tells; called in several threads."""

    def finish(self, looked: Sequence[tuple[Any, ...] | None], captions: Sequence[str | None]) -> Sequence[pa.Array]:
        """The columns, null where nothing was looked at."""


def looked_signal(name: str, kind: Callable[[], Any], identity: str) -> Signal:
    """The signal of a class of lookers."""
    looker = kind()
    return Signal(
        name=name,
        columns=tuple(looker.columns),
        key=ids.digest([name, 1, identity]),
        start=lambda captions: LookedGauge(looker, captions),
    )


class LookedGauge:
    """Collects what was seen of one part."""

    def __init__(self, looker: Looker, captions: pa.Array) -> None:
        self._looker, self._captions = looker, captions
        self._looked: list[tuple[Any, ...] | None] = [None] * len(captions)
        self.look = looker.look

    def put(self, row: int, view: tuple[Any, ...]) -> None:
        """Takes a row's view."""
        self._looked[row] = view

    def finish(self) -> SignalOutput:
        """The columns."""
        return SignalOutput(tuple(self._looker.finish(self._looked, self._captions.to_pylist())))
