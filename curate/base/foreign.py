"""Kinds of other packages that fail: what their code raises becomes an error that names kind, package and line.

`naming_packages` is for all registries: it stands where work on a unit or a command ends, and knows by the traceback
whose code failed. `guard` is for functions whose callers know more, such as which signal it is. Interrupts pass.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from curate.base.errors import CurateError, RunError
from curate.base.registry import FOREIGN, ForeignKind
from curate.base.wording import describe_error, package_of

INTERRUPTS = (KeyboardInterrupt, GeneratorExit)  # of whoever runs or reads, not of the code that runs


def guard(function: Callable[..., Any], where: str, error: type[CurateError] = RunError) -> Callable[..., Any]:
    """Return a function of another package, whose exceptions become errors that begin with `where`."""

    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except INTERRUPTS:
            raise
        except BaseException as caught:  # another package's code: of any kind
            kind = type(caught) if isinstance(caught, CurateError) else error
            raise kind(f"{where}: {describe_error(caught)}") from caught

    return guarded


@contextmanager
def naming_packages() -> Iterator[None]:
    """Let what a foreign kind raises in the block name kind, package and line: its CurateError, or a RunError."""
    try:
        yield
    except INTERRUPTS:
        raise
    except BaseException as caught:
        kinds, module = _find_kinds(caught)
        if not kinds or (package := f"package {kinds[0].package}") in str(caught):
            raise
        where = f"{' or '.join(f'{kind.what} {kind.key!r}' for kind in kinds)} of {package}"
        if isinstance(caught, CurateError):
            caught.args = (f"{where}: {caught}", *caught.args[1:])
            raise
        raise RunError(f"{where}: {describe_error(caught, module)}") from caught


def _find_kinds(caught: BaseException) -> tuple[list[ForeignKind], str]:
    """Return the foreign kinds whose code raised an exception, mostly one, and their package of modules."""
    for frame, _ in traceback.walk_tb(caught.__traceback__) if FOREIGN else ():
        module = package_of(frame)
        if kinds := [kind for kind in list(FOREIGN.values()) if kind.module.partition(".")[0] == module]:
            same = [kind for kind in kinds if kind.module == frame.f_globals.get("__name__")] or kinds
            return [kind for kind in same if _is_of(kind, frame)] or same, module
    return [], ""


def _is_of(kind: ForeignKind, frame: FrameType) -> bool:
    """Return whether a frame is one of a kind's own methods or functions, or of its section's."""
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    classes = owner if isinstance(owner, type) else type(owner)
    parts = [kind.kind, type(kind.kind), getattr(kind.kind, "section", None)]
    codes = [getattr(value, "__code__", None) for value in getattr(kind.kind, "__dict__", {}).values()]
    return any(part is owner or part is classes for part in parts) or any(code is frame.f_code for code in codes)
