"""Runs work that may crash in a subprocess. An item that crashes it is reported, and all other items continue.

Each subprocess serves one thread, and starts again after it dies. It may use half of the free memory.
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

DIED = "worker_died"  # the reason code for an item that killed the process
CONFIRMATIONS = 2  # crashes before an item is blamed, because the first may have another cause
_CLOSED = 10  # seconds that the process has to exit after its pipe is closed


class EndedError(Exception):
    """A signal killed the process (negative status), or it exited; the message says which."""

    def __init__(self, status: int) -> None:
        end = f"was ended by signal {-status}" if status < 0 else f"exited (status {status})"
        super().__init__(end)
        self.status = status


class Subprocess:
    """A process that calls module functions. Their first argument is the result of `begin` in that process."""

    def __init__(self, work: str, begin: Callable[..., Any], *arguments: Any) -> None:
        """`work` says in errors what the process is for."""
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
        """Return the result of a function in the process.

        Raises the function's errors, and EndedError if the process ends.
        """
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
        """Yield the function's results for slices of the items, each with the position of its first item.

        A slice that crashes the process is split into halves. For a single item that crashes it, EndedError is yielded.
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
        """Start a process. Raises RunError if the process ends before it gets a request."""
        self._replies, far = Pipe()
        call = f"import sys; sys.path[:] = {sys.path}; from {__name__} import serve; serve({far.fileno()})"
        command = [sys.executable, "-c", call]
        with far:  # otherwise, nobody would notice that the process has ended
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, pass_fds=[far.fileno()])
        try:
            self._replies.send(self._begin)
            self._replies.recv()
        except (OSError, EOFError):
            raise RunError(f"the process that should {self._work} {self._find_end()} when it started") from None
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
    """Answer another process's requests over a pipe, until the pipe is closed."""
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
            except Exception as error:  # the error may not pickle, and then an image would be blamed
                reply = RuntimeError(f"{type(error).__name__}: {error}"), None
            replies.send(reply)
