"""The one way to a terminal: control characters of strangers' text, in keys, errors or arguments, are spelled out."""

import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from curate.base.wording import escape

_BREAKS = re.compile(r"([\n\t]+)")


class Escaped:
    """A stream of text that writes control characters as escapes, but line feeds and tabs."""

    def __init__(self, stream: TextIO | None) -> None:
        self.inner = plain(stream) or open(os.devnull, "w")  # noqa: SIM115 - None: it was closed before the start

    def write(self, text: str) -> int:
        """Write the text, its sentences in lines of a terminal's width, and return its length."""
        parts = [part if part.isspace() else escape(part) for part in _BREAKS.split(text)]
        with self._unread():
            self.inner.write("".join(map(self._fold, parts) if self.inner.isatty() else parts))
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self.inner.flush()

    @contextmanager
    def _unread(self) -> Iterator[None]:
        """Let all go nowhere from now on if nobody reads it any more, as behind `| head`: the command goes on."""
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.inner.fileno())

    def _fold(self, line: str) -> str:
        """Break a line between words, but of commands, which begin with a space: they are to be copied."""
        width = shutil.get_terminal_size().columns
        is_long = len(line) > width and not line[0].isspace()
        return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if is_long else line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def plain(stream: Any) -> TextIO:
    """Return the stream itself: for data, and for what colours lines or moves the cursor and escapes texts itself."""
    return stream.inner if isinstance(stream, Escaped) else stream
