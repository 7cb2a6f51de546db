"""The one way to a terminal: control characters of strangers' text, in keys, errors or arguments, are spelled out."""

import re
from typing import Any, TextIO

from curate.base.wording import escape

_BREAKS = re.compile(r"([\n\t]+)")


class Escaped:
    """A stream of text that writes control characters as escapes, but line feeds and tabs."""

    def __init__(self, stream: TextIO) -> None:
        self.inner = plain(stream)

    def write(self, text: str) -> int:
        """Write the text, and return its length."""
        self.inner.write("".join(part if part.isspace() else escape(part) for part in _BREAKS.split(text)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def plain(stream: Any) -> TextIO:
    """Return the stream itself: for data, and for what colours lines or moves the cursor and escapes texts itself."""
    file: TextIO = stream.inner if isinstance(stream, Escaped) else stream
    return file
