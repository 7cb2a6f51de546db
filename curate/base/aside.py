"""Code of other packages neither ends this process nor holds it without a name.

A package's `os._exit` raises SystemExit, as `sys.exit` does; a process that it forked ends. What does not return is
left behind on its thread. Where that holds the GIL, no thread of Python's can tell: faulthandler then prints, from one
of C's, the lines that threads are in. What calls C's own `exit`, or crashes, is not seen.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, NoReturn

from curate.base.wording import package_of

SECONDS = float(os.environ.get("CURATE_PACKAGE_SECONDS") or 600)
"""How long a call may take: the import of a package, and `observe` for an image, with what it loads at first."""
_watched: set[str] = set()
_PROCESS, _END = os.getpid(), os._exit


def watch(package: str) -> None:
    """Watch the code of a package, named as its modules are, from now on."""
    if not _watched:
        os._exit = _leave
        threading.Thread(target=_watch_lock, name="watch", daemon=True).start()
    _watched.add(package)


def _leave(status: int) -> NoReturn:
    if os.getpid() == _PROCESS and package_of(sys._getframe(1)) in _watched:
        raise SystemExit(status)
    _END(status)


def _watch_lock() -> None:
    while True:  # it is only told: a process that was stopped for a while looks the same
        faulthandler.dump_traceback_later(SECONDS, repeat=True, file=2)
        time.sleep(SECONDS / 4)


class _Aside(threading.local):
    """A thread beside each one that calls, left behind where a call does not end: it keeps no process alive."""

    calls: "SimpleQueue[Any] | None" = None  # of a future, a function and its arguments

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return, or raise, what a function does. Raises TimeoutError where it takes longer than SECONDS."""
        if self.calls is None:
            self.calls = SimpleQueue()
            threading.Thread(target=self._work, args=(self.calls,), name="aside", daemon=True).start()
        future: Future[Any] = Future()
        self.calls.put((future, function, arguments))
        try:
            return future.result(SECONDS)
        except TimeoutError:
            if future.done():  # the function's own
                raise
            self.calls, what = None, f"has not returned within {SECONDS:g} s"
            raise TimeoutError(f"{what}; CURATE_PACKAGE_SECONDS sets the limit") from None

    @staticmethod
    def _work(calls: "SimpleQueue[Any]") -> None:
        while True:
            future, function, arguments = calls.get()
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)


call = _Aside().call
