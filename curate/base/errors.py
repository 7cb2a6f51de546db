"""The errors that users see, in one small tree, with their exit statuses.

    CurateError
    ├── RecipeError     the recipe, the arguments or an input named by them is wrong      exit 2
    │   └── UnknownColumn         an expression names a column that does not exist
    └── RunError        the run or the check failed                                       exit 1
        ├── TransientError        another attempt at the same work may succeed
        ├── ConservationError     input rows are not kept + dropped + failed
        └── DamagedError          a file of a run was read, and differs from what was written

A message names what was found, where, and what would be accepted.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard


class CurateError(Exception):
    """Base of the errors that curate raises on purpose. `exit_status` is the exit status of the command."""

    exit_status = 1
    permanent = True  # a runner need not retry: curate has already retried if that may help


class RecipeError(CurateError):
    """The recipe or the arguments are wrong. curate finds this before anything runs."""

    exit_status = 2


class UnknownColumn(RecipeError):
    """An expression in a recipe names a column that does not exist."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


class RunError(CurateError):
    """The run or the check failed."""


class TransientError(RunError):
    """Another attempt may succeed: a file that could be read before cannot be read now, or the opposite."""

    permanent = False


class ConservationError(RunError):
    """The input rows are not kept + dropped + failed. This is a bug in curate; it does not publish the run."""


class DamagedError(RunError):
    """curate read a file of a run, and it differs from what was written. A failed read is an OSError instead."""


def describe(error: BaseException) -> str:
    """Return an error's message. For a full disk, or a folder where a file should be, add the path and what to do."""
    if is_disk_full(error):
        folder = getattr(error, "filename", None) or "the run's folder, or the folder for temporary files (TMPDIR)"
        cause = "a file exceeds `ulimit -f`" if error.errno == errno.EFBIG else "no space is left on its disk"
        return f"{folder}: {cause}; make room, then run the same command again to continue"
    if isinstance(error, IsADirectoryError):
        return f"{error.filename2 or error.filename}: is a folder, but curate needs a file there; remove or move it"
    return str(error)


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Return whether a write failed because the disk is full or a quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Add the location, such as a recipe key, at the start of errors raised in the block."""
    try:
        yield
    except CurateError as error:
        raise type(error)(f"{where}: {error}") from None


@contextmanager
def needing(user: str, install: str) -> Iterator[None]:
    """Raise RecipeError if an import in the block fails.

    The error says what needs the package and how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise RecipeError(f"{user} ({error}); install it with: pip install {install}") from None


@contextmanager
def reraised(
    kind: Callable[[str], Exception], subject: str, *errors: type[Exception], remedy: str = ""
) -> Iterator[None]:
    """Convert these errors, if raised in the block, to another class, with the message `subject: MESSAGE` and `remedy`.

    Messages of curate's own errors are not changed. Others are cut to one line of at most 400 characters.
    """
    try:
        yield
    except errors as error:
        text = str(error) if isinstance(error, CurateError) else " ".join(str(error).split())[:400]
        if isinstance(error, FileNotFoundError | PermissionError) and error.errno is None:  # fsspec gives only a path
            text = f"{type(error).__name__}: {text}"
        raise kind(f"{subject}: {text}{remedy}") from None
