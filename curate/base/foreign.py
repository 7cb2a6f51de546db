"""Code of other packages: what it raises names kind, package and line. What is installed is trusted otherwise.

`naming_packages` stands where work on a unit or a command ends, and finds by the traceback whose code failed. A user's
interrupts pass.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from curate.base.errors import CurateError, RunError
from curate.base.wording import describe_error, package_of


@dataclass(frozen=True)
class ForeignKind:
    """A kind of another package."""

    what: str  # it is, as `Registry.what`
    key: str
    package: str  # with its version
    module: str  # that its entry point names
    kind: Any


FOREIGN: dict[tuple[str, str], ForeignKind] = {}
"""The kinds of other packages that were loaded in this process, by what they are and their keys."""


def is_interrupt(error: BaseException) -> bool:
    """Return whether a user interrupted the thread, by Python's own handler: else code raised KeyboardInterrupt."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, KeyboardInterrupt) and is_default and threading.current_thread() is threading.main_thread()


@contextmanager
def naming_packages() -> Iterator[None]:
    """Let what a foreign kind raises in the block name kind, package and line: its CurateError, or a RunError."""
    try:
        yield
    except BaseException as caught:
        if is_interrupt(caught):
            raise
        kinds, module = _find_kinds(frame for frame, _ in traceback.walk_tb(caught.__traceback__))
        if not kinds or f"package {kinds[0].package}" in str(caught):
            raise
        where = _label(kinds)
        if isinstance(caught, CurateError):
            caught.args = (f"{where}: {caught}", *caught.args[1:])
            raise
        raise RunError(f"{where}: {describe_error(caught, module)}") from caught


def find_running() -> str:
    """Return the foreign kind whose code a thread of this process is in now, and its package; empty where none is."""
    for innermost in sys._current_frames().values():
        if kinds := _find_kinds(frame for frame, _ in traceback.walk_stack(innermost))[0]:
            return _label(kinds)
    return ""


def _label(kinds: Sequence[ForeignKind]) -> str:
    return f"{' or '.join(f'{kind.what} {kind.key!r}' for kind in kinds)} of package {kinds[0].package}"


def _find_kinds(frames: Iterable[FrameType]) -> tuple[list[ForeignKind], str]:
    """Return the foreign kinds whose code is in some frames, mostly one, and their package of modules."""
    for frame in frames if FOREIGN else ():
        module = package_of(frame)
        if kinds := [kind for kind in list(FOREIGN.values()) if kind.module.partition(".")[0] == module]:
            same = [kind for kind in kinds if kind.module == frame.f_globals.get("__name__")] or kinds
            owned = [kind for kind in same if _is_of(kind, frame)] or [kind for kind in same if _names(kind, frame)]
            return owned or same, module
    return [], ""


def _owner(frame: FrameType) -> tuple[Any, type]:
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    return owner, owner if isinstance(owner, type) else type(owner)


def _names(kind: ForeignKind, frame: FrameType) -> bool:
    """Return whether a kind's own code names the function of a frame, or its class, such as a selection's choice."""
    kind_class = kind.kind if isinstance(kind.kind, type) else type(kind.kind)
    classes = [
        base for base in kind_class.__mro__ if base.__module__.partition(".")[0] == kind.module.partition(".")[0]
    ]
    values = [value for part in (*classes, kind.kind) for value in getattr(part, "__dict__", {}).values()]
    codes, names = [value.__code__ for value in values if hasattr(value, "__code__")], set[str]()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return not names.isdisjoint({frame.f_code.co_name, _owner(frame)[1].__name__})


def _is_of(kind: ForeignKind, frame: FrameType) -> bool:
    """Return whether a frame is one of a kind's own methods or functions, or of its section's."""
    owner, classes = _owner(frame)
    parts = [kind.kind, type(kind.kind), getattr(kind.kind, "section", None)]
    codes = [getattr(value, "__code__", None) for value in getattr(kind.kind, "__dict__", {}).values()]
    return any(part is owner or part is classes for part in parts) or any(code is frame.f_code for code in codes)
