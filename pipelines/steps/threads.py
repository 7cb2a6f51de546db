"""Elements mapped in threads: a worker of Beam takes one element after another, and a unit may not be work for all
cores.

Beam's local runner can have several workers in one process, but then now and then reads an element from a wrong place
(github.com/apache/beam/issues/21104). So it has one, and the steps that are worth it have threads.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from curate.base.process import CORES, threads
from pipelines.steps.functions import PlainDoFn, in_window

_SHORT = 0.01  # seconds
_LONG = 0.1  # as good as any longer
_WEIGHT = 0.2  # of the latest element in the average


class InThreads(PlainDoFn):
    """Give all that the function does for an element, which may be tagged, CORES elements at a time.

    Results follow in the order of elements; an error ends the bundle, once the threads have ended what they had begun.
    An element holds so many units: where these are short work, threads would spend their time on taking the interpreter
    from each other, and there are none.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], units: int = 1) -> None:
        self._function, self._units = function, units
        self._waiting: deque[Future[tuple[float, Sequence[Any]]]] = deque()
        self._seconds = _LONG  # that a unit takes, on a moving average

    def start_bundle(self) -> None:
        """Begin with none."""
        self._waiting = deque()

    def process(self, element: Any, *side: Any) -> Iterator[Any]:
        """Give what is done of the elements so far."""
        if self._seconds < _SHORT:
            yield from self._rest()
            seconds, outputs = _timed(self._function, element, *side)
            self._count(seconds)
            yield from outputs
            return
        self._waiting.append(threads("unit").submit(_timed, self._function, element, *side))
        if len(self._waiting) > CORES:
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Give the rest."""
        yield from map(in_window, self._rest())

    def _rest(self) -> Iterator[Any]:
        while self._waiting:
            yield from self._next()

    def _next(self) -> Sequence[Any]:
        try:
            seconds, outputs = self._waiting.popleft().result()
        except BaseException as error:
            begun = [future for future in self._waiting if not future.cancel()]
            if isinstance(error, Exception):  # an interrupt ends the process, whatever they do
                wait(begun)
            raise
        self._count(seconds / CORES)  # since short work spends most of its time on waiting for the others
        return outputs

    def _count(self, seconds: float) -> None:
        self._seconds += _WEIGHT * (min(seconds / self._units, _LONG) - self._seconds)


def _timed(function: Callable[..., Sequence[Any]], *arguments: Any) -> tuple[float, Sequence[Any]]:
    began = time.perf_counter()
    outputs = function(*arguments)
    return time.perf_counter() - began, outputs
