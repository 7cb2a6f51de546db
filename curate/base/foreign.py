"""Kinds of other packages that fail: what their code raises becomes an error that names the kind, the package and its line.

`naming_packages` is for all registries: it stands where work on a unit or a command ends, and knows by the traceback whose code
failed. `guard` is for functions whose callers know more, such as which signal it is. An interrupt of the user stays what it is.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from curate.base.errors import CurateError, RunError
from curate.base.registry import ForeignKind, foreign_kinds
from curate.base.wording import ADDRESS, one_line

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
            raise kind(f"{where}: {describe(caught)}") from caught

    return guarded


@contextmanager
def naming_packages() -> Iterator[None]:
    """Turn what a foreign kind raises in the block into a RunError, or its own CurateError, that names kind, package and line."""
    try:
        yield
    except INTERRUPTS:
        raise
    except BaseException as caught:
        kinds, module = _find_kinds(caught)
        where = (
            f"{' or '.join(f'{kind.what} {kind.key!r}' for kind in kinds)} of package {kinds[0].package}"
            if kinds
            else ""
        )
        if not kinds or f"package {kinds[0].package}" in str(caught):
            raise
        if isinstance(caught, CurateError):
            caught.args = (f"{where}: {caught}", *caught.args[1:])
            raise
        raise RunError(f"{where}: {describe(caught, module)}") from caught


def describe(caught: BaseException, module: str | None = None) -> str:
    """Return what an exception says, and where in the package of a module it was raised: the innermost of its lines.

    Without `module` that is the outermost one that is not curate's.
    """
    if isinstance(caught, CurateError):
        return str(caught)
    text = f"{type(caught).__name__}: {ADDRESS.sub('', one_line(caught, 400))}"
    frames = [(_package(frame), frame.f_code, line) for frame, line in traceback.walk_tb(caught.__traceback__)]
    outside = [frame for frame in frames if frame[0] == (module or frame[0]) != "curate"]
    if not outside:
        return text
    _, code, line = [frame for frame in outside if frame[0] == outside[0][0]][-1]
    return f"{text} at {Path(code.co_filename).name}:{line} in {code.co_name}"


def _find_kinds(caught: BaseException) -> tuple[list[ForeignKind], str]:
    """Return the foreign kinds whose code raised an exception, mostly one, and the package of modules that they are in."""
    foreign = foreign_kinds()
    for frame, _ in traceback.walk_tb(caught.__traceback__) if foreign else ():
        module = _package(frame)
        if kinds := [kind for kind in foreign if kind.module.partition(".")[0] == module]:
            same = [kind for kind in kinds if kind.module == frame.f_globals.get("__name__")] or kinds
            return [kind for kind in same if _is_of(kind, frame)] or same, module
    return [], ""


def _is_of(kind: ForeignKind, frame: FrameType) -> bool:
    """Return whether a frame is one of a kind's own methods or functions, or of its section's."""
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    classes = owner if isinstance(owner, type) else type(owner)
    own = [kind.kind, type(kind.kind), getattr(kind.kind, "section", None)]
    if any(part is owner or part is classes for part in own):
        return True
    return any(
        getattr(value, "__code__", None) is frame.f_code for value in getattr(kind.kind, "__dict__", {}).values()
    )


def _package(frame: FrameType) -> str:
    """Return the outermost package of a frame's module."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]
