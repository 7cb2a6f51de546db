"""Captions a unit that killed its workers in subprocesses, to isolate the input that crashes them.

Models that work in the worker's process may end it: engines of that kind, and the detector of regions. Their requests
go to subprocesses, in batches; one that ends its process is halved, down to the one request or image that does: it
fails with reason `worker_died`. Where nothing alone ends a process, and workers are killed all the same before any more
of the unit is done, all of it fails, and answers in parts stay. The next start of the run asks again, as for all that
failed: in subprocesses at once.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import islice
from typing import Any

import pyarrow as pa

from curate.base.isolate import DIED, EndedError, Subprocess
from curate.captions.engines import open_engine
from curate.captions.regions import DETECTED, ZeroShotDetector, find_regions, open_detector
from curate.captions.settings import CaptionSettings
from curate.llm.engine import Answer, Engine, Request
from curate.recipe.captions import EngineSpec
from curate.store.attempts import ISOLATE_AFTER, MAX_ATTEMPTS, attempt, reset_attempts
from curate.store.layout import CAPTION_ATTEMPTS, unit_stem
from curate.store.tables import UnitTables

_alone = threading.Lock()  # held by a unit whose engines run in subprocesses: a GPU has no room for the models of two


@contextmanager
def open_captioner(settings: CaptionSettings, tables: UnitTables) -> Iterator[tuple["Captioner", Callable[[], None]]]:
    """Yield what captions a unit, and what is called once some of it is done.

    Attempts that were killed are counted where a model works in this process, which it may end.
    """
    if not settings.has_models:
        yield Captioner(settings, 0), lambda: None
        return
    work = f"{CAPTION_ATTEMPTS}/{unit_stem(tables.unit)}"
    with attempt(tables.store, work, lambda: captioner.has_fault) as killed, ExitStack() as stack:
        captioner = Captioner(settings, killed)
        if captioner.is_isolated:
            stack.enter_context(_alone)
        stack.callback(captioner.end)
        yield captioner, cache(partial(reset_attempts, tables.store, work, killed))


class Captioner:
    """Asks engines and the detector: in this process, or in a subprocess each after so many attempts were killed."""

    def __init__(self, settings: CaptionSettings, killed: int) -> None:
        self._settings, self._processes = settings, dict[str, Subprocess]()
        self._killed = f"{DIED}: {killed} attempts to caption its unit were killed, and"
        self.is_isolated = killed >= ISOLATE_AFTER
        self.is_over = killed >= MAX_ATTEMPTS  # whether all fails, unasked
        self.has_fault = False  # whether something ended a process alone

    def end(self) -> None:
        for process in self._processes.values():
            process.end()

    def answers(self, spec: EngineSpec, engine_id: str, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers of an engine, as they come; an endpoint ends no process."""
        if not self.is_over and not (self.is_isolated and spec.section.is_local):
            yield from open_engine(spec, engine_id).answers(requests)
            return
        process = self._process(engine_id, open_engine, spec)
        for index, answer in enumerate(self._each(process, Engine.ask, requests)):
            yield index, Answer(None, answer) if isinstance(answer, str) else answer

    def find_regions(
        self, images: Iterable[bytes | None], phrases: pa.Array, detector: ZeroShotDetector, threshold: float
    ) -> Iterator[pa.Table]:
        """See `regions.find_regions`."""
        if not self.is_isolated:
            yield from find_regions(images, phrases, detector, threshold)
            return
        waiting = zip(images, phrases.to_pylist(), strict=True)
        process = self._process(detector.model, open_detector, self._settings.captions.regions)
        while items := list(islice(waiting, detector.batch)):
            rows = self._each(process, _detect, items, threshold)
            rows = [{"regions": None, "error": row} if isinstance(row, str) else row for row in rows]
            yield pa.Table.from_pylist(rows, DETECTED)

    def _process(self, model: str, begin: Callable[[Any, str], Any], options: Any) -> Subprocess:
        return self._processes.setdefault(model, Subprocess(f"work with {model} alone", begin, options, model))

    def _each(self, process: Subprocess, function: Callable[..., Any], items: Sequence[Any], *rest: Any) -> list[Any]:
        """Return what a function gives for each item in a process; for one that ends it, the error as text."""
        if self.is_over:
            return [f"{self._killed} no request or image alone does it"] * len(items)
        answers = list[Any]()
        for _, part in process.isolate(function, items, *rest):
            if isinstance(part, EndedError):
                self.has_fault = True
                answers.append(f"{self._killed} a process that had it alone {part}")
            else:
                answers += part
        return answers


def _detect(detector: ZeroShotDetector, items: Sequence[tuple[bytes | None, Any]], threshold: float) -> list[Any]:
    images, phrases = zip(*items, strict=True)
    tables = find_regions(images, pa.array(phrases, pa.list_(pa.string())), detector, threshold)
    return [row for table in tables for row in table.to_pylist()]
