"""Captions a unit that killed its workers in subprocesses, to isolate the input that crashes them.

A model that runs in the worker's process (a local engine or the region detector) can crash it. After several crashes,
its requests go to subprocesses in batches. A batch that crashes its subprocess is halved until a single request or
image is left, which fails with reason `worker_died`.

If no single item crashes a subprocess, and workers still die before the unit makes any progress, the whole unit fails.
Its partial answers are kept. The next start of the run retries all failed requests, in subprocesses from the beginning.
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

_alone = threading.Lock()  # held by a unit that uses subprocesses: a GPU cannot fit the models of two


@contextmanager
def open_captioner(settings: CaptionSettings, tables: UnitTables) -> Iterator[tuple["Captioner", Callable[[], None]]]:
    """Yield a unit's captioner, and a function to call when some of the unit is done.

    Killed attempts are counted only if a model runs in this process, where it can crash the worker.
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
    """Runs engines and the detector in this process or, after several killed attempts, each in its own subprocess."""

    def __init__(self, settings: CaptionSettings, killed: int) -> None:
        self._settings, self._processes = settings, dict[str, Subprocess]()
        self._killed = f"{DIED}: {killed} processes died while they captioned the unit,"
        self.is_isolated = killed >= ISOLATE_AFTER
        self.is_over = killed >= MAX_ATTEMPTS  # whether every request fails without being sent
        self.has_fault = False  # whether a single item crashed a subprocess

    def end(self) -> None:
        for process in self._processes.values():
            process.end()

    def answers(self, spec: EngineSpec, engine_id: str, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield an engine's answers as they arrive. Endpoints are never isolated, since they cannot crash a process."""
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
        """Return the function's result for each item, from a subprocess; an error text for an item that crashes it."""
        if self.is_over:
            return [f"{self._killed} but a process that handles a single request or image does not crash"] * len(items)
        answers = list[Any]()
        for _, part in process.isolate(function, items, *rest):
            if isinstance(part, EndedError):
                self.has_fault = True
                answers.append(f"{self._killed} and a process that had only this request or image {part}")
            else:
                answers += part
        return answers


def _detect(detector: ZeroShotDetector, items: Sequence[tuple[bytes | None, Any]], threshold: float) -> list[Any]:
    images, phrases = zip(*items, strict=True)
    tables = find_regions(images, pa.array(phrases, pa.list_(pa.string())), detector, threshold)
    return [row for table in tables for row in table.to_pylist()]
