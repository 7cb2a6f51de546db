"""Parsing in a process apart, for some seconds of CPU and no more: nothing else stops a parser that is compiled.

The process starts with a thread's first call, and serves all later ones; after one that is too slow another follows.
"""

import resource
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from curate.base.apart import Apart, EndedError

Value = TypeVar("Value")

_of_thread = threading.local()


def call_apart(seconds: int, function: Callable[..., Value], *arguments: Any) -> Value:
    """Return what a function of a module gives. Raises ValueError where it raises one, or ends the process."""
    if not hasattr(_of_thread, "process"):
        _of_thread.process = Apart("parse pages", resource.setrlimit, resource.RLIMIT_CORE, (0, 0))
    try:
        error, value = _of_thread.process.ask(_call, seconds, function, arguments, tries=1)
    except EndedError as ended:
        why = f"took over {seconds} s" if ended.status == -signal.SIGXCPU else str(ended)
        raise ValueError(f"parsing it {why}") from None
    if error:
        raise error
    return value  # type: ignore[no-any-return]


def _call(_: None, seconds: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return the ValueError that a function raises, else None, and what it gives."""
    user, system, *_rest = resource.getrusage(resource.RUSAGE_SELF)
    hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(user + system) + seconds + 1, hardest))
    try:
        return None, function(*arguments)
    except ValueError as error:
        return error, None
