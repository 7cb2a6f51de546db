"""What this process uses, by the step at work: CPU, GPUs, memory, requests to stores, bytes that are grouped.

CPU is the process's, threads of libraries included: of steps that are at work at once, each has an equal part, and what
is used while none is belongs to ENGINE. All else is counted for the step that the thread is in.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CPU = "cpu"  # seconds of a core
START, ENGINE = "start", "engine"
Used = defaultdict[tuple[str, str], float]  # by step and kind, as of `curate.store.facts.UsedFacts`


class Block:
    """A part of a step's work, in one thread: its CPU seconds so far, but those of blocks within."""

    def __init__(self, step: str) -> None:
        self.step, self.cpu = step, 0.0


class Meter:
    """Counts from the start of the process, or from the last `take`, on."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what another process did, of which this one is a copy."""
        self._lock = threading.Lock()
        self._blocks = defaultdict[int, list[Block]](list)  # that each thread is in, the innermost last
        self._used = Used(float)
        self._cpu, self._sampled = 0.0, time.monotonic()
        self.compiling = 0.0  # CPU seconds in which kernels were compiled

    @contextmanager
    def at(self, step: str) -> Iterator[Block]:
        """Count for the step meanwhile."""
        block, blocks = Block(step), self._blocks[threading.get_ident()]
        with self._lock:
            self._settle()
            blocks.append(block)
        try:
            yield block
        finally:
            with self._lock:
                self._settle()
                blocks.pop()

    def count(self, kind: str, value: float = 1, step: str | None = None) -> None:
        """Add to what the step used, or the step of this thread."""
        with self._lock:
            blocks = self._blocks[threading.get_ident()]
            self._used[step or (blocks[-1].step if blocks else ENGINE), kind] += value

    def take(self) -> Used:
        """Return what was used since the last time; the memory of now, for that time, by this thread's step."""
        now = time.monotonic()
        with suppress(OSError), open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
            self.count("memory", pages * os.sysconf("SC_PAGE_SIZE") / 1e9 * (now - self._sampled))
        with self._lock:
            self._settle()
            used, self._used, self._sampled = self._used, Used(float), now
            return used

    def _settle(self) -> None:
        now = time.process_time()
        spent, self._cpu = now - self._cpu, now
        working = [blocks[-1] for blocks in list(self._blocks.values()) if blocks]
        for block in working or [Block(ENGINE)]:
            block.cpu += spent / max(1, len(working))
            self._used[block.step, CPU] += spent / max(1, len(working))


METER = Meter()
os.register_at_fork(after_in_child=METER.reset)
