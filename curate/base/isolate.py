"""Run work that may kill its process in a subprocess: report the item that kills it, and go on with all others.

A subprocess works for one thread, and is started again after it dies. It may take half of the free memory.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, Self

from curate.base.errors import CurateError, RunError
from curate.base.process import free_memory, memory_limited

if TYPE_CHECKING:
    import pyarrow as pa

DIED = "worker_died"  # the reason of what does
CONFIRMATIONS = 2  # processes that end with one image, or file: one may be ended by somebody else
_CLOSED = 10  # seconds, within which a process ends that has closed its pipe


class EndedError(Exception):
    """The process was ended by a signal, where its status is negative, or ended itself; the message says which."""

    def __init__(self, status: int) -> None:
        end = f"was ended by signal {-status}" if status < 0 else f"ended itself (status {status})"
        super().__init__(end)
        self.status = status


class Subprocess:
    """A process that calls functions of modules, each with what `begin` gave there as its first argument."""

    def __init__(self, work: str, begin: Callable[..., Any], *arguments: Any) -> None:
        """`work` is what it is for, in an error."""
        self._work, self._begin = work, (begin, arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self._process and self._replies:
            self._replies.close()
            self._process.kill()
            self._process.wait()
            self._process = self._replies = None

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function gives there. Raises what it raises, and EndedError where the process ends."""
        replies = self._replies or self._start()
        try:
            replies.send((function, arguments))
            error, value = replies.recv()
        except (OSError, EOFError):
            raise self._find_end() from None
        if error:
            raise error
        return value

    def isolate(
        self, function: Callable[..., Any], items: "Sequence[Any] | pa.Array", *constants: Any, first: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """Yield what the function gives there for slices of the items, each with the position of its first item.

        A slice that ends the process is halved; for an item that ends it alone, the EndedError is yielded.
        """
        result: Any = None
        for _ in range(CONFIRMATIONS if len(items) == 1 else 1):
            try:
                result = self.ask(function, items, *constants)
                break
            except EndedError as error:
                result = error
        if isinstance(result, EndedError) and len(items) > 1:
            half = len(items) // 2
            yield from self.isolate(function, items[:half], *constants, first=first)
            yield from self.isolate(function, items[half:], *constants, first=first + half)
        else:
            yield first, result

    def _start(self) -> Connection:
        """Start a process. Raises RunError where it ends before it is asked for anything."""
        self._replies, far = Pipe()
        call = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve({far.fileno()})"
        command = [sys.executable, "-c", call]
        with far:  # whose end here would hide that the process has ended
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()])
        try:
            self._replies.send(self._begin)
            self._replies.recv()
        except (OSError, EOFError):
            raise RunError(f"the process that is to {self._work} {self._find_end()} at its start") from None
        return self._replies

    def _find_end(self) -> EndedError:
        assert self._process
        try:
            status = self._process.wait(_CLOSED)
        except subprocess.TimeoutExpired:
            status = 0
        self.end()
        return EndedError(status)


def serve(file: int) -> None:
    """Do what another process asks for by a pipe, until it is closed."""
    with Connection(file) as replies, memory_limited(free_memory() // 2), suppress(EOFError, KeyboardInterrupt):
        begin, arguments = replies.recv()
        first = begin(*arguments)
        replies.send("ready")
        while True:
            function, arguments = replies.recv()
            reply: tuple[Exception | None, Any]
            try:
                reply = None, function(first, *arguments)
            except (CurateError, OSError) as error:
                reply = error, None
            except Exception as error:  # which may not travel, and an image would be blamed
                reply = RuntimeError(f"{type(error).__name__}: {error}"), None
            replies.send(reply)
