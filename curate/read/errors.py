"""Errors from faulty inputs, and retries of reads."""

import time
from collections.abc import Callable
from typing import TypeVar

from curate.base.errors import CurateError, TransientError
from curate.base.wording import one_line
from curate.recipe.clouds import OBJECT_STORES

T = TypeVar("T")
_ATTEMPTS = 3


class InputError(CurateError):
    """A part, or the rest of it, cannot be used. `reason` is one of `schema.FILE_REASONS` or `DAMAGE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class EmbeddingError(ValueError):
    """The embeddings of a file are missing, damaged, or do not fit it.

    `transient` means that a later read may succeed.
    """

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def retry(read: Callable[[], T], path: str) -> T:
    """Return the result of `read`, which is called again a few times if it fails.

    Raises its OSError, for example if the file is missing or forbidden. If an object store has the file but cannot send
    it, raises TransientError, which stops the run. Otherwise, an outage of the store would drop many files.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return read()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            last = error
        if attempt < _ATTEMPTS:
            time.sleep(attempt)
    if path.partition("://")[0].rpartition("::")[2] not in OBJECT_STORES:
        raise last
    message = one_line(last, 300)
    raise TransientError(f"{path[:300]}: the store cannot deliver it now: {message}; run again to continue") from None
