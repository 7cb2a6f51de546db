"""What reading an input raises where the input itself is at fault, and how reading is tried again."""

import time
from collections.abc import Callable
from typing import TypeVar

from curate.base.errors import CurateError

T = TypeVar("T")
_ATTEMPTS = 3


class InputFault(CurateError):
    """A part, or what is left of it, cannot be used; `reason` is one of `schema.FILE_REASONS` or `DAMAGE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class EmbeddingFault(ValueError):
    """The embeddings of a file are missing, damaged or do not fit it; `transient` where a later read may succeed."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def retry(read: Callable[[], T]) -> T:
    """Return what `read` returns. Raises its OSError after some attempts, or where the file is missing or forbidden."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(attempt)
    return read()
