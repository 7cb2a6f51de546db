"""What workers on a cluster say: their processes' warnings and errors, with the units that they were at.

Out: a file of each process that said something, in the run's `logs`: its latest lines, each with time, level and unit.
It is written whole, as object stores have it, where work on a unit ends; a process that is killed loses what it said
since then. Beside that, lines go where they went before.
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

_LINES, _CHARACTERS = 500, 2000  # that a process keeps, and of a line
_log = logging.getLogger(__name__)


class _Kept(logging.Handler):
    """Keeps the latest lines of this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.places: dict[int, str] = {}  # what each thread is at
        self.lines: deque[str] = deque(maxlen=_LINES)
        self.is_new = False  # whether some are not written yet

    def emit(self, record: logging.LogRecord) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(record.created))
        with suppress(Exception):  # a library's message that does not fit its arguments
            at = self.places.get(record.thread or 0) or ", ".join(sorted(self.places.values()))  # of a thread of theirs
            self.lines.append(f"{now} {record.levelname} {at}: {one_line(self.format(record), _CHARACTERS)}\n")
            self.is_new = True


_KEPT = _Kept()


@contextmanager
def logged(store: RunStore, location: str) -> Iterator[None]:
    """Log what the process says while the block works at a place, a unit mostly, and the error that ends it."""
    thread = threading.get_ident()
    logging.basicConfig()  # to standard error, where nothing else was set up: as without a handler
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
            except OSError:  # work is not lost for want of a log
                _KEPT.is_new = True


def read_last_error(store: RunStore) -> str | None:
    """Return the last error of the worker that wrote last; none where that one has only warned, or nobody wrote."""
    times = {os.path.basename(path): at for path, at in store.times(LOGS).items() if path.endswith(".log")}
    times.pop(os.path.basename(DRIVER_LOG), None)
    if not times:
        return None
    with suppress(FileNotFoundError):  # the next command has begun
        text = store.read_bytes(f"{LOGS}/{max(times, key=lambda name: times[name])}").decode(errors="replace")
        return next((line for line in reversed(text.splitlines()) if " ERROR " in line), None)
    return None
