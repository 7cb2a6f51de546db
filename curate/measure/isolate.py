"""Measures a unit in a subprocess after it has killed its workers, and isolates the input that crashes it.

Images are sent in steps. A step that crashes the subprocess is halved until one image is left, which gets the status
`worker_died`. The same applies to captions. If reading a file crashes the subprocess, this is the file's failure.
Everything else is measured.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.foreign import naming_packages
from curate.base.isolate import DIED, EndedError, Subprocess
from curate.measure.images import ImageBytes, image_schema, measure_images
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.registry import find_format
from curate.recipe.source import Source
from curate.signals.registry import find_signals
from curate.signals.signal import ImageSignal, TextSignal
from curate.store.attempts import ISOLATE_AFTER, MAX_ATTEMPTS


@contextmanager
def isolating(killed: int, settings: MeasureSettings) -> Iterator["IsolatedMeasuring | None"]:
    """Yield an object that measures a unit with this number of killed attempts; None: measure it in this process."""
    if killed < ISOLATE_AFTER:
        yield None
        return
    with Subprocess("measure a unit on which workers died", _begin, replace(settings, signals=())) as process:
        yield IsolatedMeasuring(killed, process)


@dataclass(frozen=True)
class IsolatedMeasuring:
    """Measures a unit in a subprocess."""

    killed: int
    process: Subprocess

    def find_fault(self, source: Source, part: InputPart) -> tuple[str, str] | None:
        """Return reason and detail if reading a part crashes the subprocess, or if no attempt succeeded; else None."""
        killed = f"{self.killed} processes died while they measured this file,"
        if self.killed >= MAX_ATTEMPTS:
            return DIED, f"{killed} but a process that measures a single row does not crash"
        [(_, error)] = self.process.isolate(_read, [part], source)
        return (DIED, f"{killed} and a process that only read the file {error}") if error else None

    def measure(
        self, images: Sequence[ImageBytes], captions: pa.Array, signals: Sequence[ImageSignal], labels: Sequence[str]
    ) -> pa.Table:
        data = (None if image is None else bytes(image) for image in images)
        rows = list(zip(data, captions.to_pylist(), labels, strict=True))
        schema = image_schema(signals)

        def table_of(part: pa.Table | EndedError) -> pa.Table:
            if not isinstance(part, EndedError):
                return part
            error = {"status": DIED, "error": self._blame(part)}
            return pa.Table.from_pylist([dict.fromkeys(schema.names) | error], schema)

        parts = self.process.isolate(_measure, rows, [signal.name for signal in signals])
        return pa.concat_tables([table_of(part) for _, part in parts])

    def find_deadly(self, captions: pa.Array, signals: Sequence[TextSignal]) -> dict[int, str]:
        """Return row → error for captions (string or null) that crash a process that computes these signals."""
        parts = self.process.isolate(_compute, captions, [signal.name for signal in signals])
        return {row: self._blame(error) for row, error in parts if error}

    def _blame(self, error: EndedError) -> str:
        return f"{self.killed} processes died while they measured the unit, and one that had only this row {error}"


def _begin(settings: MeasureSettings) -> MeasureSettings:
    return replace(settings, signals=find_signals(settings.measure, settings.models))


def _read(settings: MeasureSettings, parts: Sequence[InputPart], source: Source) -> None:
    """Read a part; errors other than crashes are found when it is measured."""
    [part] = parts
    with suppress(Exception):
        for batch in find_format(source).read(source, part, settings.read_columns(source.name), settings.pool.output):
            if batch.images:
                for _ in batch.images(np.ones(len(batch.columns["caption"]), bool)):
                    pass


def _measure(settings: MeasureSettings, rows: Sequence[tuple[Any, Any, str]], names: list[str]) -> pa.Table:
    images, captions, labels = map(list, zip(*rows, strict=True))
    signals = [signal for signal in settings.signals if isinstance(signal, ImageSignal) and signal.name in names]
    with naming_packages():
        return measure_images(iter(images), pa.array(captions, pa.string()), settings.measure.image, signals, labels)


def _compute(settings: MeasureSettings, captions: pa.Array, names: list[str]) -> None:
    for signal in settings.signals:
        if isinstance(signal, TextSignal) and signal.name in names:
            signal.compute(captions)
