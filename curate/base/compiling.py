"""Counts the time that numba needs to compile kernels toward START, not toward the step that waits for the kernel.

Modules that run steps import this module. The first process that calls a kernel compiles it, and numba caches the
result. `interpreting` is for plans of a few rows, when nothing is compiled yet.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba import config
from numba.core import event
from numba.core.dispatcher import Dispatcher

from curate.base.meter import METER, START


class _CompileListener(event.Listener):
    def __init__(self) -> None:
        self._blocks: list[Any] = []  # numba compiles in one thread at a time

    def on_start(self, event: Any) -> None:
        block = METER.at(START)
        self._blocks.append((block, block.__enter__()))

    def on_end(self, event: Any) -> None:
        block, timed = self._blocks.pop()
        block.__exit__(None, None, None)
        METER.compiling += timed.cpu


event.register("numba:compile", _CompileListener())


def is_compiled(kernel: Any) -> bool:
    """Return whether numba's cache has a kernel that was compiled from its current source."""
    return bool(kernel._cache._cache_file._load_index())


@contextmanager
def interpreting(is_wanted: bool) -> Iterator[None]:
    """If `is_wanted`, run all kernels in the block as plain Python: 100 times slower, but without compiling."""
    compiled = []
    config.DISABLE_JIT = is_wanted  # for modules imported in the block
    for module in [module for name, module in sys.modules.items() if name.startswith("curate.") and is_wanted]:
        for name, value in list(vars(module).items()):
            if isinstance(value, Dispatcher):
                setattr(module, name, value.py_func)
            elif name == "prefetch":  # an intrinsic that does not exist in plain Python
                setattr(module, name, lambda *_: None)
            else:
                continue
            compiled.append((module, name, value))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # hashes overflow on purpose
            yield
    finally:
        config.DISABLE_JIT = False
        for module, name, value in compiled:
            setattr(module, name, value)
