"""A process apart that parses for some seconds of CPU and no more: nothing else stops a parser that is compiled.

It starts with a thread's first call, serves all later ones, and ends with the thread; after one that is too slow
another follows.
"""

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any, TypeVar

Value = TypeVar("Value")

_of_thread = threading.local()


def call_apart(seconds: int, function: Callable[..., Value], *arguments: Any) -> Value:
    """Return what a function of a module gives. Raises what it raises, and ValueError where it ends the process."""
    if not (replies := getattr(_of_thread, "replies", None)):
        replies, far = Pipe()
        call = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve({far.fileno()})"
        with far:  # whose end here would hide that the process has ended
            command = [sys.executable, "-c", call]
            _of_thread.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()])
        _of_thread.replies = replies
    try:
        replies.send((seconds, function, arguments))
        error, value = replies.recv()
    except (OSError, EOFError):
        _of_thread.replies = replies.close()
        status = _of_thread.process.wait()
        why = f"took over {seconds} s" if status == -signal.SIGXCPU else f"ended its process (status {status})"
        raise ValueError(f"parsing it {why}") from None
    if error:
        raise error
    return value  # type: ignore[no-any-return]


def serve(file: int) -> None:
    """Do what another process asks for by a pipe, until it is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with Connection(file) as replies, suppress(EOFError, KeyboardInterrupt):
        while True:
            seconds, function, arguments = replies.recv()
            user, system, *_ = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(resource.RLIMIT_CPU, (int(user + system) + seconds + 1, hardest))
            try:
                replies.send((None, function(*arguments)))
            except ValueError as error:
                replies.send((error, None))
