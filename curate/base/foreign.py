"""Adds the kind, the package and the line to errors that plugin code raises. Otherwise, installed packages are trusted.

`naming_packages` wraps the work on a unit or a command. It finds out from the traceback whose code failed.
"""

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from curate.base.errors import CurateError, RunError
from curate.base.wording import describe_error, package_of


@dataclass(frozen=True)
class ForeignKind:
    """A kind from another package."""

    label: str  # such as signal 'blur'
    package: str  # with its version
    module: str  # the module that its entry point names
    kind: Any


FOREIGN: dict[str, ForeignKind] = {}
"""The kinds of other packages that were loaded in this process, by their labels."""


@contextmanager
def naming_packages() -> Iterator[None]:
    """Name kind, package and line in errors that plugin code raises in the block.

    A CurateError of the plugin keeps its class; other exceptions become RunError. The exception's notes (PEP 678),
    which say what the code was working on, follow.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # plugin code may raise anything
        kinds, module = _find_kinds(frame for frame, _ in traceback.walk_tb(error.__traceback__))
        if not kinds or f"package {kinds[0].package}" in str(error):  # the message already names the package
            raise
        notes = getattr(error, "__notes__", [])
        text = ", ".join([f"{_label(kinds)}: {describe_error(error, module)}", *notes])
        if isinstance(error, CurateError):
            error.args = (text, *error.args[1:])
            raise
        raise RunError(text) from error


def find_running() -> str:
    """Return the plugin kind, and its package, whose code is now running in a thread of this process; empty if none."""
    for innermost in sys._current_frames().values():
        if kinds := _find_kinds(frame for frame, _ in traceback.walk_stack(innermost))[0]:
            return _label(kinds)
    return ""


def _label(kinds: Sequence[ForeignKind]) -> str:
    return f"{' or '.join(kind.label for kind in kinds)} of package {kinds[0].package}"


def _find_kinds(frames: Iterable[FrameType]) -> tuple[list[ForeignKind], str]:
    """Return the kind whose code is in the frames, or all kinds of its package; and the top-level module."""
    for frame in frames if FOREIGN else ():
        module = package_of(frame)
        if kinds := [kind for kind in list(FOREIGN.values()) if kind.module.partition(".")[0] == module]:
            return [kind for kind in kinds if _runs_in(kind, frame)] or kinds, module
    return [], ""


def _runs_in(kind: ForeignKind, frame: FrameType) -> bool:
    """Return whether a frame belongs to a method or function of a kind, or to a method of the kind's section."""
    owner = frame.f_locals.get("self", frame)
    parts = [kind.kind, type(kind.kind), *getattr(kind.kind, "__dict__", {}).values()]
    codes = (getattr(part, "__code__", None) for part in parts)
    return any(part is owner or part is type(owner) for part in parts) or frame.f_code in codes
