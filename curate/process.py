"""What belongs to a process and not to a run: what its threads share (models, engines, indexes), and the threads themselves."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")
Item = TypeVar("Item")
Result = TypeVar("Result")

CORES = os.cpu_count() or 1

_made: dict[str, Any] = {}
_lock = threading.RLock()


def process_cache(key: str, make: Callable[[], Made], replaces: str | None = None) -> Made:
    """Return what `make` gives, called once per key, by the first thread that needs it.

    A key names the content of what is made: a digest, say; never a path. What is cached under other keys that begin
    with `replaces` is dropped first.
    """
    with _lock:
        if key not in _made:
            for other in [other for other in _made if replaces and other.startswith(replaces)]:
                del _made[other]
            _made[key] = make()
        made: Made = _made[key]
        return made


class Lazy(Generic[Made]):
    """A model, say: loaded at its first use, and used by one thread at a time."""

    def __init__(self, load: Callable[[], Made]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loaded: Made | None = None

    @contextmanager
    def use(self) -> Iterator[Made]:
        """Yield what `load` returned, while other threads wait."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            yield self._loaded


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the process's threads for what releases the GIL (Pillow, numba), one per core."""
    return ThreadPoolExecutor(CORES, thread_name_prefix="core")


class Backlog:
    """How many results may wait to be read, in all loops over `in_threads` that share it.

    Each loop has an equal part of it and at least one result, so that none waits for another: `size` results and one a loop.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._loops = self._waiting = 0

    @contextmanager
    def in_loop(self) -> Iterator[None]:
        """Count one more loop meanwhile."""
        with self._lock:
            self._loops += 1
        try:
            yield
        finally:
            with self._lock:
                self._loops -= 1

    def add(self, waiting: int) -> bool:
        """Count one more result, and return True, unless the loop, for which so many wait, has to read one first."""
        with self._lock:
            may_add = not waiting or (waiting < self._size // self._loops and self._waiting < self._size)
            self._waiting += may_add
            return may_add

    def remove(self, count: int) -> None:
        """Count so many results less."""
        with self._lock:
            self._waiting -= count


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], backlog: Backlog | None = None
) -> Iterator[Result]:
    """Yield the function's result for each item, in order; the function must not use these threads itself.

    The thread that asks for results takes items as threads come free: as many as `backlog` lets wait, by default CORES,
    and the next one.
    """
    backlog = backlog or Backlog(CORES)
    waiting: deque[Future[Result]] = deque()

    def read() -> Result:
        result = waiting[0].result()
        waiting.popleft()
        backlog.remove(1)
        return result

    with backlog.in_loop():
        try:
            for item in items:
                while not backlog.add(len(waiting)):
                    yield read()
                waiting.append(_threads().submit(function, item))
            while waiting:
                yield read()
        finally:
            for future in waiting:
                future.cancel()
            backlog.remove(len(waiting))
