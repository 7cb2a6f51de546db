"""End a command's own process at once by Ctrl-C, or `kill`, with status 130 or 143, wherever it is.

Python would raise KeyboardInterrupt in whatever the main thread is doing. In a callback of C++ (of torch, say) that
aborts the process with status 134; in one of ctypes, or a finalizer, it is dropped, and the command goes on. So nothing
is raised: a thread that waits for nothing else ends the process, as a kill would, after `clean_up`.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# The handlers with which Python starts.
_BEFORE: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
STATUS = 128  # and the signal's number, as shells have it
SHOW_CURSOR = b"\n\x1b[?25h"  # which progress bars hide


def defaults() -> list[int]:
    """Return which of SIGINT and SIGTERM Python handles: not one that is ignored, as in a shell's background job."""
    return [number for number, handler in _BEFORE.items() if signal.getsignal(number) is handler]


def end_when_interrupted(message: str) -> None:
    """End this process with `message` and status 130 or 143 at SIGINT or SIGTERM; one that is ignored stays so."""
    handled = defaults()
    if not handled:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    presses = 0

    def deliver(number: int, _: object) -> None:
        """Run in the main thread, once it is back in Python; mostly the other one knows first, from `set_wakeup_fd`."""
        nonlocal presses
        presses += 1
        if presses > 1:
            os._exit(STATUS + number)
        with suppress(BlockingIOError):
            os.write(writing, bytes([number]))

    def read() -> bytes:
        while not (signals := bytes(number for number in os.read(reading, 64) if number in handled)):
            pass  # of other signals
        return signals

    end_when_read(read, message)
    for number in handled:
        signal.signal(number, deliver)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)


def end_when_read(read_signals: Callable[[], bytes], message: str) -> None:
    """End this process, as `end_when_interrupted` does, once `read_signals` returns signals, for which it waits."""
    threading.Thread(target=_end, args=(read_signals, message), name="interrupt", daemon=True).start()


def _end(read_signals: Callable[[], bytes], message: str) -> None:
    try:
        signals = read_signals()
    except OSError:  # code of another package has closed the pipe
        return
    foreign = sys.modules.get("curate.base.foreign")
    where = f" in {running}" if foreign and (running := foreign.find_running()) else ""
    text = (SHOW_CURSOR if sys.__stderr__ and sys.__stderr__.isatty() else b"") + f"{message}{where}\n".encode()
    with suppress(OSError):  # nobody reads it
        os.write(2, text)
    threading.excepthook = lambda raised: None  # of threads whose work, or connection, is ended under them
    if process := sys.modules.get("curate.base.process"):  # else there is nothing yet to clean up
        process.clean_up()
    os._exit(STATUS + signals[0])


def raise_when_interrupted() -> None:
    """Let SIGINT raise KeyboardInterrupt again, and SIGTERM end the process, for what survives it, as a shell."""
    if signal.set_wakeup_fd(-1) != -1:
        for number, handler in _BEFORE.items():
            if callable(signal.getsignal(number)):
                signal.signal(number, handler)
