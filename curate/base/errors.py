"""The errors that users see, one small tree, and the exit status that each becomes.

    CurateError
    ├── RecipeError     the recipe, the arguments or an input named by them is wrong      exit 2
    │   └── UnknownColumn         an expression names a column that there is not
    └── RunError        the run or the check failed                                       exit 1
        ├── TransientError        another attempt at the same work may succeed
        ├── ConservationError     rows in are not kept + dropped + failed
        └── DamagedError          a file of a run was read, and is not what was written

A message names what was found, where, and what would be accepted.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard


class CurateError(Exception):
    """Base of every error that curate raises on purpose; `exit_status` is the command's."""

    exit_status = 1
    permanent = True  # a runner that tries again what fails need not: we have, where that may help


class RecipeError(CurateError):
    """The recipe or the arguments are wrong, found before anything was run."""

    exit_status = 2


class UnknownColumn(RecipeError):
    """An expression of a recipe names a column that there is not."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


class RunError(CurateError):
    """The run or the check failed."""


class TransientError(RunError):
    """Another attempt may succeed: a file that was read before cannot be read now, or the other way round."""

    permanent = False


class ConservationError(RunError):
    """Rows in are not kept + dropped + failed: a defect, never published."""


class DamagedError(RunError):
    """A file of a run was read, and is not what was written there. A read that fails is an OSError instead."""


def describe(error: BaseException) -> str:
    """Return what an error says; of a full disk, or of a folder in a file's place, its path, and what to do."""
    if is_disk_full(error):
        folder = getattr(error, "filename", None) or "the run's folder, or that for temporary files (TMPDIR)"
        cause = "a file exceeds `ulimit -f`" if error.errno == errno.EFBIG else "no space is left on its disk"
        return f"{folder}: {cause}; make room, then run the same command again to continue"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename2 or error.filename}: is a folder in a file's place; remove it, or move it away"
    return str(error)


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether a file could not be written for want of space, or because a quota or limit is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put where it is, such as a key of the recipe, in front of the message of an error that the block raises."""
    try:
        yield
    except CurateError as error:
        raise type(error)(f"{where}: {error}") from None


@contextmanager
def needing(user: str, install: str) -> Iterator[None]:
    """Raise RecipeError where a package that the block imports is missing: what needs it, and what pip installs."""
    try:
        yield
    except ImportError as error:
        raise RecipeError(f"{user} ({error}); install it with: pip install {install}") from None


@contextmanager
def reraised(
    kind: Callable[[str], Exception], subject: str, *errors: type[Exception], remedy: str = ""
) -> Iterator[None]:
    """Raise another kind of error for these in the block: `subject`, a colon, what the error says, and `remedy`.

    What curate's own errors say stays as it is; that of others is on one line of at most 400 characters.
    """
    try:
        yield
    except errors as error:
        text = str(error) if isinstance(error, CurateError) else " ".join(str(error).split())[:400]
        if isinstance(error, FileNotFoundError | PermissionError) and error.errno is None:  # fsspec gives a path alone
            text = f"{type(error).__name__}: {text}"
        raise kind(f"{subject}: {text}{remedy}") from None
