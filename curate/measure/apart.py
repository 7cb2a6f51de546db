"""A unit that killed its workers, measured in a process apart: what kills that one is found, and all else goes on.

Images go there in steps; a step that ends the process is halved, down to the one image that does: it has status
`worker_died`. So has a caption that ends it. A file that does when it is read has it as its failure.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

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
        self._killed, self._ask = killed, process.ask

    def find_fault(self, source: Source, part: InputPart) -> tuple[str, str] | None:
        """Return reason and detail where reading a part ends the process, or all before came to nothing; else None."""
        if self._killed >= MOST:
            return DIED, f"{self._killed} attempts to measure it were killed, and no row alone does it"
        try:
            self._ask(_read, source, part, tries=SURE)
        except EndedError as error:
            return DIED, f"{self._killed} attempts to measure it were killed, and a process that only read it {error}"
        return None

    def measure(self, images: Sequence[ImageBytes], captions: pa.Array, signals: Sequence[ImageSignal]) -> pa.Table:
        """Return what `measure_images` does. Raises SignalError as it does."""
        try:
            data = [None if image is None else bytes(image) for image in images]
            names, tries = [signal.name for signal in signals], 1 if len(data) > 1 else SURE
            table: pa.Table = self._ask(_measure, data, captions, names, tries=tries)
            return table
        except EndedError as error:
            schema, half = image_schema(signals), len(images) // 2
            if not half:
                detail = self._blame(error)
                return pa.Table.from_pylist([dict.fromkeys(schema.names) | {"status": DIED, "error": detail}], schema)
        first = self.measure(images[:half], captions[:half], signals)
        try:
            return pa.concat_tables([first, self.measure(images[half:], captions[half:], signals)])
        except SignalError as error:
            raise SignalError(str(error), error.row + half) from error

    def find_deadly(self, captions: pa.Array, signals: Sequence[TextSignal]) -> dict[int, str]:
        """Return which captions (string or null) end a process that computes these signals, by row, each with how."""
        try:
            self._ask(_compute, captions, [signal.name for signal in signals], tries=1 if len(captions) > 1 else SURE)
            return {}
        except EndedError as error:
            half = len(captions) // 2
            if not half:
                return {0: self._blame(error)}
        second = self.find_deadly(captions[half:], signals)
        return self.find_deadly(captions[:half], signals) | {half + row: detail for row, detail in second.items()}

    def _blame(self, error: EndedError) -> str:
        return f"{self._killed} attempts to measure its unit were killed, and a process with it alone {error}"


def _begin(settings: MeasureSettings) -> MeasureSettings:
    """Return the settings with signals, which do not travel."""
    return replace(settings, signals=find_signals(settings.measure, settings.models))


def _read(settings: MeasureSettings, source: Source, part: InputPart) -> None:
    """Read a part, and what else happens is seen where it is measured."""
    with suppress(Exception):
        for batch in find_format(source).read(source, part, settings.read_columns(source.name), settings.pool.output):
            if batch.images:
                for _ in batch.images(np.ones(len(batch.columns["caption"]), bool)):
                    pass


def _measure(settings: MeasureSettings, images: list[ImageBytes], captions: pa.Array, names: list[str]) -> pa.Table:
    signals = [signal for signal in settings.signals if isinstance(signal, ImageSignal) and signal.name in names]
    return measure_images(iter(images), captions, settings.measure.image, signals)


def _compute(settings: MeasureSettings, captions: pa.Array, names: list[str]) -> None:
    for signal in settings.signals:
        if isinstance(signal, TextSignal) and signal.name in names:
            signal.compute(captions)
