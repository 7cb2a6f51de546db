"""Stores warnings and errors from worker processes on a cluster, with the units that the processes worked on.

Out: one file per process, in the run's `logs`, with its latest messages: a line each, with time, level and unit. The
file is rewritten when work on a unit ends, because object stores cannot append. If a process is killed, its messages
since then are lost. Messages also go where they would go without this module.
"""

import logging
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from curate.base.wording import one_line
from curate.store.layout import DRIVER_LOG, LOGS
from curate.store.store import RunStore

_LINES, _CHARACTERS = 500, 2000  # lines kept by a process; maximum characters of a line
_log = logging.getLogger(__name__)


class _Kept(logging.Handler):
    """A handler that keeps the latest lines from this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.places: dict[int, str] = {}  # what each thread works on
        self.lines: deque[str] = deque(maxlen=_LINES)
        self.is_new = False  # whether some lines are not in the file yet

    def emit(self, record: logging.LogRecord) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(record.created))
        with suppress(Exception):  # the arguments of a library's message may not fit it
            at = self.places.get(record.thread or 0) or ", ".join(sorted(self.places.values()))  # a thread of a library
            self.lines.append(f"{now} {record.levelname} {at}: {one_line(self.format(record), _CHARACTERS)}\n")
            self.is_new = True


_KEPT = _Kept()


@contextmanager
def logged(store: RunStore, location: str) -> Iterator[None]:
    """Keep messages during the block, which works on a place such as a unit, and the error that ends the block."""
    thread = threading.get_ident()
    logging.basicConfig()  # the same as without a handler: standard error, if nothing else is configured
    logging.getLogger().addHandler(_KEPT)
    _KEPT.places[thread] = location
    try:
        yield
    except Exception as error:
        _log.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        del _KEPT.places[thread]
        if _KEPT.is_new:
            _KEPT.is_new = False
            try:
                store.write_bytes(f"{LOGS}/{platform.node()}-{os.getpid()}.log", "".join([*_KEPT.lines]).encode())
            except OSError:  # a failure to write the log must not fail the work
                _KEPT.is_new = True


def read_last_error(store: RunStore) -> str | None:
    """Return the last error of the worker that wrote last; None if it has only warnings, or if no worker wrote."""
    times = {os.path.basename(path): at for path, at in store.times(LOGS).items() if path.endswith(".log")}
    times.pop(os.path.basename(DRIVER_LOG), None)
    if not times:
        return None
    with suppress(FileNotFoundError):  # the next command has started
        text = store.read_bytes(f"{LOGS}/{max(times, key=lambda name: times[name])}").decode(errors="replace")
        return next((line for line in reversed(text.splitlines()) if " ERROR " in line), None)
    return None
