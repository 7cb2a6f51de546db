"""A log in an object store, which does not append to files: what a process wrote is put there anew with each line.

An object for each line would take fewer bytes. But readers list them, 1,000 in an answer, and there would be some for
each unit. A store takes one write a second of one object, so lines that come sooner go into another one.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

_FULL = 1 << 16  # bytes from which on an object takes no further line
_BETWEEN = 1.0  # seconds between two writes of an object


@dataclass(eq=False)
class _Object:
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: int = field(default_factory=os.getpid)  # one that is forked has its own
    data: bytes = b""
    ready: float = 0.0  # when it may be written again


class StoredLog:
    """The objects of a log that are written here."""

    def __init__(self) -> None:
        self._objects, self._lock = list[_Object](), threading.Lock()

    def add(self, line: str, put: Callable[[str, bytes], None]) -> None:
        """Add a line to an object, which `put` writes whole under a name; if that fails, the next line brings both."""
        with self._lock:
            now, process = time.monotonic(), os.getpid()
            ready = (other for other in self._objects if other.ready <= now and other.process == process)
            if (written := next(ready, None)) is None:
                written = _Object()
            else:
                self._objects.remove(written)
        written.data += line.encode() + b"\n"
        is_put = False
        try:
            put(written.name, written.data)
            is_put = True
        finally:
            written.ready = time.monotonic() + _BETWEEN if is_put else 0.0
            if len(written.data) < _FULL or not is_put:
                with self._lock:
                    self._objects.insert(len(self._objects) if is_put else 0, written)
