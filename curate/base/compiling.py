"""Counts what numba takes to compile kernels: once, for START, and not for the step that waits for it.

Whoever runs steps imports this. The first process that calls a kernel compiles it, and numba's cache keeps it.
`interpreting` is for plans of few rows, where nothing is compiled yet.
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
    """Return whether numba's cache has a kernel as its source is now."""
    return bool(kernel._cache._cache_file._load_index())


@contextmanager
def interpreting(is_wanted: bool) -> Iterator[None]:
    """Let Python run all kernels of this process meanwhile, if that is wanted: a hundred times slower, but at once."""
    compiled = []
    config.DISABLE_JIT = is_wanted  # of modules that are imported meanwhile
    for module in [module for name, module in sys.modules.items() if name.startswith("curate.") and is_wanted]:
        for name, value in list(vars(module).items()):
            if isinstance(value, Dispatcher):
                setattr(module, name, value.py_func)
            elif name == "prefetch":  # an intrinsic, which Python has not
                setattr(module, name, lambda *_: None)
            else:
                continue
            compiled.append((module, name, value))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # of hashes, as is meant
            yield
    finally:
        config.DISABLE_JIT = False
        for module, name, value in compiled:
            setattr(module, name, value)
