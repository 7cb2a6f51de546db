"""Ends a command's own process immediately at Ctrl-C or `kill`, with status 130 or 143.

Python would raise KeyboardInterrupt wherever the main thread is. In a C++ callback, for example of torch, that aborts
the process with status 134. In a ctypes callback or a finalizer, the exception is lost, and the command continues. So
this module raises nothing. A separate thread waits for signals, calls `clean_up`, and ends the process like a kill.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# Python's default handlers.
_BEFORE: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
STATUS = 128  # plus the number of the signal, as in shells
SHOW_CURSOR = b"\n\x1b[?25h"  # progress bars hide the cursor


def defaults() -> list[int]:
    """Return which of SIGINT and SIGTERM have Python's handlers. Background jobs of a shell ignore SIGINT."""
    return [number for number, handler in _BEFORE.items() if signal.getsignal(number) is handler]


def end_when_interrupted(message: str) -> None:
    """At SIGINT or SIGTERM, end this process with `message` and status 130 or 143.

    Signals that are ignored stay ignored.
    """
    handled = defaults()
    if not handled:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    presses = 0

    def deliver(number: int, _: object) -> None:
        """Runs when the main thread executes Python again; usually, `set_wakeup_fd` wakes the other thread first."""
        nonlocal presses
        presses += 1
        if presses > 1:
            os._exit(STATUS + number)
        with suppress(BlockingIOError):
            os.write(writing, bytes([number]))

    def read() -> bytes:
        while not (signals := bytes(number for number in os.read(reading, 64) if number in handled)):
            pass  # other signals
        return signals

    end_when_read(read, message)
    for number in handled:
        signal.signal(number, deliver)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)


def end_when_read(read_signals: Callable[[], bytes], message: str) -> None:
    """End this process like `end_when_interrupted`, when `read_signals` returns. It waits for signals."""
    threading.Thread(target=_end, args=(read_signals, message), name="interrupt", daemon=True).start()


def _end(read_signals: Callable[[], bytes], message: str) -> None:
    try:
        signals = read_signals()
    except OSError:  # another package has closed the pipe
        return
    foreign = sys.modules.get("curate.base.foreign")
    where = f" in {running}" if foreign and (running := foreign.find_running()) else ""
    text = (SHOW_CURSOR if sys.__stderr__ and sys.__stderr__.isatty() else b"") + f"{message}{where}\n".encode()
    with suppress(OSError):  # nobody reads standard error
        os.write(2, text)
    threading.excepthook = lambda raised: None  # silences threads that fail because the process ends
    if process := sys.modules.get("curate.base.process"):  # otherwise, there is nothing to clean up yet
        process.clean_up()
    os._exit(STATUS + signals[0])


def raise_when_interrupted() -> None:
    """Let SIGINT raise KeyboardInterrupt again, and SIGTERM end the process: an interrupt must not end a SQL shell."""
    if signal.set_wakeup_fd(-1) != -1:
        for number, handler in _BEFORE.items():
            if callable(signal.getsignal(number)):
                signal.signal(number, handler)
