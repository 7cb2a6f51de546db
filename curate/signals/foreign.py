"""Guards signals of other packages: what their code raises names the package, its line, and the image or caption.

An image that `observe` cannot use (ValueError, OSError, MemoryError) has null in its row, and the error is kept beside
it. All else ends the run: a missing file, and what fails in `process_cache`.
"""

import logging
import traceback
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from curate.base import schema
from curate.base.errors import RunError, SignalError
from curate.base.foreign import is_interrupt
from curate.base.numeric.arrays import whole
from curate.base.process import process_cache
from curate.base.wording import describe_error, one_line, pluralise
from curate.signals import signal as signals
from curate.signals.signal import Collector, EmbeddingSignal, ImageSignal, ModelSignal, Signal, SignalOutput, TextSignal

_CLASSES = (ImageSignal, ModelSignal, TextSignal, EmbeddingSignal, signals.PrecomputedSignal)
_OF_AN_IMAGE = (ValueError, OSError, MemoryError)
_OF_A_FILE = (FileNotFoundError, PermissionError)
_log = logging.getLogger(__name__)
_warned: set[str] = set()  # the signals of which a first error was logged in this process


def guard_signal(built: Any, kind: str, package: str) -> Signal:
    """Return a package's signal, with errors that name it and checked columns. Raises RunError where it is none."""
    if not isinstance(built, _CLASSES):
        accepted = ", ".join(cls.__name__ for cls in _CLASSES)
        gave = f"the class {built.__name__}" if isinstance(built, type) else type(built).__name__
        raise RunError(f"{signals.label(kind, package)}: build returned {gave}; accepted: objects of {accepted}")
    columns = built.columns if isinstance(built.columns, tuple | list | pa.Schema) else [None]
    if not all(isinstance(column, pa.Field) for column in columns):
        what = f"{built.columns!r:.200}"
        raise RunError(f"{signals.label(kind, package)}: its columns are {what}; accepted: a schema or fields of Arrow")
    signal = replace(built, package=package)
    if isinstance(signal, ImageSignal):
        return replace(signal, start=lambda some: _GuardedCollector(signal.start(some), signal, len(some)))
    if isinstance(signal, TextSignal):
        return replace(signal, compute=lambda texts: _checked(signal, "compute", signal.compute(texts), len(texts)))
    if isinstance(signal, EmbeddingSignal):
        return replace(signal, compute=lambda rows: _checked(signal, "compute", signal.compute(rows), len(rows.rows)))
    return signal


class _Failure(NamedTuple):
    """What `observe` raised of an image, in place of an observation."""

    text: str
    is_of_image: bool


class _GuardedCollector:
    """A `Collector` of another package at work on one part."""

    def __init__(self, inner: Collector, signal: Signal, rows: int) -> None:
        self._inner, self._signal = inner, signal
        self._errors: list[str | None] = [None] * rows

    def observe(self, image: Any) -> Any:
        """Return what the signal does, or what it raised: `add` knows the row."""
        try:
            return self._inner.observe(image)
        except BaseException as caught:  # another package's code: of any kind
            if is_interrupt(caught):
                raise
            codes = [frame.f_code for frame, _ in traceback.walk_tb(caught.__traceback__)]
            is_of_image = isinstance(caught, _OF_AN_IMAGE) and not isinstance(caught, _OF_A_FILE)
            return _Failure(describe_error(caught), is_of_image and process_cache.__code__ not in codes)

    def add(self, row: int, observation: Any) -> None:
        """Take a row's observation, or its error. Raises SignalError where that is not of the image."""
        if not isinstance(observation, _Failure):
            self._inner.add(row, observation)
            return
        if not observation.is_of_image:
            raise SignalError(f"{self._signal.label}: {observation.text}", row)
        self._errors[row] = observation.text
        if self._signal.label not in _warned:
            _warned.add(self._signal.label)
            _log.warning("%s: null where it fails on an image, such as %s", self._signal.label, observation.text)

    def finish(self) -> SignalOutput:
        output = self._inner.finish()
        columns = _checked(self._signal, "finish", getattr(output, "columns", output), len(self._errors))
        return SignalOutput(columns, getattr(output, "embeddings", None), pa.array(self._errors, pa.string()))


def _checked(signal: Signal, gave: str, columns: Any, rows: int) -> tuple[pa.Array, ...]:
    """Return what a signal gave as its columns, of their types. Raises RunError where it cannot be."""
    fields = [*(schema.SAMPLES.field(name) for name in signals.filled_columns([signal])), *signal.columns]
    names = ", ".join(field.name for field in fields)
    accepted = f"accepted: a list of {pluralise(len(fields), 'Arrow array')}: {names}"
    if not isinstance(columns, list | tuple) or len(columns) != len(fields):
        what = f"{len(columns)} items" if hasattr(columns, "__len__") else type(columns).__name__
        raise RunError(f"{signal.label}: {gave} returned {what}; {accepted}")
    checked: list[pa.Array] = []
    for column, field in zip(columns, fields, strict=True):
        if not isinstance(column, pa.Array | pa.ChunkedArray):
            raise RunError(f"{signal.label}: {gave} returned {type(column).__name__} as {field.name}; {accepted}")
        if len(column) != rows:
            raise RunError(f"{signal.label}: {gave} returned {len(column):,} values of {field.name} for {rows:,} rows")
        try:
            converted = column.cast(field.type)
        except pa.ArrowException as error:
            kinds = f"{gave} returned {field.name} as {column.type}; accepted: {field.type}"
            raise RunError(f"{signal.label}: {kinds} ({one_line(error, 200)})") from None
        checked.append(whole(converted) if isinstance(converted, pa.ChunkedArray) else converted)
    return tuple(checked)
