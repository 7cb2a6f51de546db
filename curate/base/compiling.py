"""Counts what numba takes to compile kernels: once, for START, and not for the step that waits for it.

Whoever runs steps imports this. The first process that calls a kernel compiles it, and numba's cache keeps it.
"""

from threading import local
from typing import Any

from numba.core import event

from curate.base.meter import METER, START


class _CompileListener(event.Listener):  # type: ignore[misc]
    def __init__(self) -> None:
        self._of_thread = local()

    def on_start(self, event: Any) -> None:
        block = METER.at(START)
        self._of_thread.blocks = [*getattr(self._of_thread, "blocks", []), (block, block.__enter__())]

    def on_end(self, event: Any) -> None:
        block, timed = self._of_thread.blocks.pop()
        block.__exit__(None, None, None)
        METER.compiling += timed.cpu  # numba compiles in one thread at a time


event.register("numba:compile", _CompileListener())
