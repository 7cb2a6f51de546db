"""A unit that killed its workers, measured in a process apart: what kills that one is found, and all else goes on.

Images go there in steps; a step that ends the process is halved, down to the one image that does: it has status
`worker_died`. So has a caption that ends it. A file that does when it is read has it as its failure.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.apart import DIED, SURE, Apart, EndedError
from curate.base.errors import SignalError
from curate.measure.images import ImageBytes, image_schema, measure_images
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.registry import find_format
from curate.recipe.source import Source
from curate.signals.registry import find_signals
from curate.signals.signal import ImageSignal, TextSignal
from curate.store.attempts import MOST, SUSPECT


@contextmanager
def apart_after(killed: int, settings: MeasureSettings) -> Iterator["MeasureApart | None"]:
    """Yield what measures a unit at which so many attempts were killed; None: who asks does it."""
    if killed < SUSPECT:
        yield None
        return
    process = Apart("measure a unit that workers were killed at", _begin, replace(settings, signals=()))
    try:
        yield MeasureApart(killed, process)
    finally:
        process.end()


class MeasureApart:
    """Measures a unit in a process apart."""

    def __init__(self, killed: int, process: Apart) -> None:
        self._killed, self._process = killed, process

    def find_fault(self, source: Source, part: InputPart) -> tuple[str, str] | None:
        """Return reason and detail where reading a part ends the process, or all before came to nothing; else None."""
        if self._killed >= MOST:
            return DIED, f"{self._killed} attempts to measure it were killed, and no row alone does it"
        try:
            self._process.ask(_read, source, part, tries=SURE)
        except EndedError as error:
            return DIED, f"{self._killed} attempts to measure it were killed, and a process that only read it {error}"
        return None

    def measure(self, images: Sequence[ImageBytes], captions: pa.Array, signals: Sequence[ImageSignal]) -> pa.Table:
        data = [None if image is None else bytes(image) for image in images]
        schema, names = image_schema(signals), [signal.name for signal in signals]

        def call(rows: slice) -> tuple[Any, ...]:
            return _measure, data[rows], captions[rows], names, rows.start

        def table_of(part: pa.Table | EndedError) -> pa.Table:
            if not isinstance(part, EndedError):
                return part
            fault = {"status": DIED, "error": self._blame(part)}
            return pa.Table.from_pylist([dict.fromkeys(schema.names) | fault], schema)

        return pa.concat_tables([table_of(part) for _, part in self._process.isolate(len(data), call)])

    def find_deadly(self, captions: pa.Array, signals: Sequence[TextSignal]) -> dict[int, str]:
        """Return which captions (string or null) end a process that computes these signals, by row, each with how."""
        names = [signal.name for signal in signals]
        parts = self._process.isolate(len(captions), lambda rows: (_compute, captions[rows], names))
        return {rows.start: self._blame(error) for rows, error in parts if error}

    def _blame(self, error: EndedError) -> str:
        return f"{self._killed} attempts to measure its unit were killed, and a process with it alone {error}"


def _begin(settings: MeasureSettings) -> MeasureSettings:
    return replace(settings, signals=find_signals(settings.measure, settings.models))


def _read(settings: MeasureSettings, source: Source, part: InputPart) -> None:
    """Read a part, and what else happens is seen where it is measured."""
    with suppress(Exception):
        for batch in find_format(source).read(source, part, settings.read_columns(source.name), settings.pool.output):
            if batch.images:
                for _ in batch.images(np.ones(len(batch.columns["caption"]), bool)):
                    pass


def _measure(
    settings: MeasureSettings, images: list[ImageBytes], captions: pa.Array, names: list[str], first: int
) -> pa.Table:
    signals = [signal for signal in settings.signals if isinstance(signal, ImageSignal) and signal.name in names]
    try:
        return measure_images(iter(images), captions, settings.measure.image, signals)
    except SignalError as error:
        raise SignalError(str(error), error.row + first) from error


def _compute(settings: MeasureSettings, captions: pa.Array, names: list[str]) -> None:
    for signal in settings.signals:
        if isinstance(signal, TextSignal) and signal.name in names:
            signal.compute(captions)
