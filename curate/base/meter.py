"""What this process uses, by the step at work: CPU, seconds of GPUs, requests to stores.

CPU is the process's, threads of libraries included: where several steps are at work at once, each has an equal part;
what is used while none is belongs to ENGINE. Counts go to the step that the thread is in.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CPU = "cpu"  # seconds of a core
ENGINE = "engine"
Used = defaultdict[tuple[str, str], float]  # by step and kind, as of `curate.store.facts.UsedFacts`
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(eq=False)
class Block:
    """A part of a step's work, in one thread: its CPU seconds so far, but those of blocks within."""

    step: str
    cpu: float = 0.0


class Meter:
    """Counts from its making, or from the last `take`, on."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what another process did, of which this one is a copy."""
        self._lock = threading.Lock()
        self._blocks: dict[int, list[Block]] = {}  # that each thread is in, the innermost last
        self._used = Used(float)
        self._seen = 0.0  # what the process used before counts too
        self._taken = time.monotonic()

    @contextmanager
    def at(self, step: str) -> Iterator[Block]:
        """Count for the step meanwhile."""
        thread, block = threading.get_ident(), Block(step)
        with self._lock:
            self._settle()
            self._blocks.setdefault(thread, []).append(block)
        try:
            yield block
        finally:
            with self._lock:
                self._settle()
                self._blocks[thread].pop()
                if not self._blocks[thread]:
                    del self._blocks[thread]

    def count(self, kind: str, value: float = 1) -> None:
        """Add to what the step of this thread used."""
        with self._lock:
            self._used[self._step, kind] += value

    def take(self) -> Used:
        """Return what was used since the last time; the memory of now, for that time, by this thread's step."""
        with self._lock:
            self._settle()
            now, used = time.monotonic(), self._used
            with suppress(OSError), open("/proc/self/statm") as file:
                used[self._step, "memory"] += int(file.read().split()[1]) * _PAGE / 1e9 * (now - self._taken)
            self._taken, self._used = now, Used(float)
            return used

    @property
    def _step(self) -> str:
        blocks = self._blocks.get(threading.get_ident())
        return blocks[-1].step if blocks else ENGINE

    def _settle(self) -> None:
        now = time.process_time()
        spent, self._seen = now - self._seen, now
        for *_, block in self._blocks.values():
            block.cpu += spent / len(self._blocks)
            self._used[block.step, CPU] += spent / len(self._blocks)
        if not self._blocks:
            self._used[ENGINE, CPU] += spent


METER = Meter()
os.register_at_fork(after_in_child=METER.reset)
