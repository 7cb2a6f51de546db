"""A unit that killed its workers, measured in a process apart: what kills that one is found, and all else goes on.

Images go there in steps; a step that ends the process is halved, down to the one image that does: it has status
`worker_died`. So has a caption that ends it. A file that does when it is read has it as its failure. The process may
take half of the free memory.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.errors import CurateError, RunError, SignalError
from curate.base.process import free_memory, memory_limited
from curate.measure.images import ImageBytes, image_schema, measure_images
from curate.measure.settings import MeasureSettings
from curate.pool.formats.input_format import InputPart
from curate.pool.registry import find_format
from curate.recipe.source import Source
from curate.signals.registry import find_signals
from curate.signals.signal import ImageSignal, TextSignal
from curate.store.attempts import MOST

DIED = "worker_died"
_CLOSED = 10  # seconds, within which a process ends that has closed its pipe
_SURE = 2  # processes that end with one image, or file: one may be ended by somebody else
_SUSPECT = 3  # attempts that were killed, from which on a unit is measured apart


class _EndedError(Exception):
    """The process was ended; the message says by what."""


@contextmanager
def apart_after(killed: int, settings: MeasureSettings) -> Iterator["Apart | None"]:
    """Yield what measures a unit at which so many attempts were killed; None: who asks does it."""
    apart = Apart(killed, settings) if killed >= _SUSPECT else None
    try:
        yield apart
    finally:
        if apart:
            apart.end()


class Apart:
    """A process that works for one thread; where it is ended, another one follows."""

    def __init__(self, killed: int, settings: MeasureSettings) -> None:
        self._killed, self._settings = killed, settings
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: Connection | None = None

    def end(self) -> None:
        """End the process."""
        if self._process and self._replies:
            self._replies.close()
            self._process.kill()
            self._process.wait()
            self._process = self._replies = None

    def find_fault(self, source: Source, part: InputPart) -> tuple[str, str] | None:
        """Return reason and detail where reading a part ends the process, or all before came to nothing; else None."""
        if self._killed >= MOST:
            return DIED, f"{self._killed} attempts to measure it were killed, and no row alone does it"
        try:
            self._ask(_read, source, part, tries=_SURE)
        except _EndedError as error:
            return DIED, f"{self._killed} attempts to measure it were killed, and a process that only read it {error}"
        return None

    def measure(self, images: Sequence[ImageBytes], captions: pa.Array, signals: Sequence[ImageSignal]) -> pa.Table:
        """Return what `measure_images` does. Raises SignalError as it does."""
        try:
            data = [None if image is None else bytes(image) for image in images]
            names, tries = [signal.name for signal in signals], 1 if len(data) > 1 else _SURE
            table: pa.Table = self._ask(_measure, data, captions, names, tries=tries)
            return table
        except _EndedError as error:
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
            self._ask(_compute, captions, [signal.name for signal in signals], tries=1 if len(captions) > 1 else _SURE)
            return {}
        except _EndedError as error:
            half = len(captions) // 2
            if not half:
                return {0: self._blame(error)}
        second = self.find_deadly(captions[half:], signals)
        return self.find_deadly(captions[:half], signals) | {half + row: detail for row, detail in second.items()}

    def _blame(self, error: _EndedError) -> str:
        return f"{self._killed} attempts to measure its unit were killed, and a process with it alone {error}"

    def _ask(self, function: Callable[..., Any], *arguments: Any, tries: int) -> Any:
        """Return what a function of this module gives there. Raises what it raises, and _EndedError."""
        replies = self._replies or self._start()
        try:
            replies.send((function, arguments))
            error, value = replies.recv()
        except (OSError, EOFError):
            end = self._tell_end()
            if tries > 1:
                return self._ask(function, *arguments, tries=tries - 1)
            raise _EndedError(end) from None
        if error:
            raise error
        return value

    def _start(self) -> Connection:
        """Start a process. Raises RunError where it ends before it is asked for anything."""
        self._replies, far = Pipe()
        call = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve({far.fileno()})"
        command = [sys.executable, "-c", call]
        with far:  # whose end here would hide that the process has ended
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()])
        try:
            self._replies.send(replace(self._settings, signals=()))
            self._replies.recv()
        except (OSError, EOFError):
            why = f"the process that is to measure a unit that {self._killed} workers were killed at"
            raise RunError(f"{why} {self._tell_end()} at its start") from None
        return self._replies

    def _tell_end(self) -> str:
        """Return how the process ended."""
        assert self._process
        try:
            status = self._process.wait(_CLOSED)
        except subprocess.TimeoutExpired:
            status = 0
        self.end()
        return f"was ended by signal {-status}" if status < 0 else f"ended itself (status {status})"


def serve(file: int) -> None:
    """Do what another process asks for by a pipe, until it is closed."""
    with Connection(file) as replies, memory_limited(free_memory() // 2), suppress(EOFError):
        settings: MeasureSettings = replies.recv()
        settings = replace(settings, signals=find_signals(settings.measure, settings.models))
        replies.send("ready")
        while True:
            function, arguments = replies.recv()
            reply: tuple[Exception | None, Any]
            try:
                reply = None, function(settings, *arguments)
            except (CurateError, OSError) as error:
                reply = error, None
            except Exception as error:  # which may not travel, and an image would be blamed
                reply = RuntimeError(f"{type(error).__name__}: {error}"), None
            replies.send(reply)


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
