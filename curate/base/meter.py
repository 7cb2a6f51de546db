"""Measures what this process uses in each step: CPU, GPU, memory, requests to stores, bytes grouped by key.

CPU time is the time of the whole process, including threads of libraries. Steps that run at the same time share it
equally. CPU time outside of steps counts toward ENGINE. Everything else counts toward the step of the thread.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CPU = "cpu"  # core seconds
START, ENGINE = "start", "engine"
Used = defaultdict[tuple[str, str], float]  # by step and kind, see `curate.store.facts.UsedFacts`


class Block:
    """A part of a step's work in one thread: the CPU seconds that it used so far, without nested blocks."""

    def __init__(self, step: str) -> None:
        self.step, self.cpu = step, 0.0


class Meter:
    """Counts since the process started, or since the last call of `take`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the counts after a fork, because they belong to the parent process."""
        self._lock = threading.Lock()
        self._blocks = defaultdict[int, list[Block]](list)  # blocks of each thread, with the innermost last
        self._used = Used(float)
        self._cpu, self._sampled = 0.0, time.monotonic()
        self.compiling = 0.0  # CPU seconds spent compiling kernels

    @contextmanager
    def at(self, step: str) -> Iterator[Block]:
        """Count what the block uses toward the step."""
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
        """Add to what the step has used, by default this thread's step."""
        with self._lock:
            blocks = self._blocks[threading.get_ident()]
            self._used[step or (blocks[-1].step if blocks else ENGINE), kind] += value

    def take(self) -> Used:
        """Return what was used since the last call. For memory, the current use counts for all of this time."""
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
