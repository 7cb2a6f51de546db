"""Pages for a terminal: lines of styled text, columns that align, long values that wrap under themselves.

In: text that strangers wrote, among ours. Out: on a terminal colours and its width; in a pipe plain text, one value a line
whatever its length, so that it can be searched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from curate.wording import escape

Part = str | tuple[str, str]  # text, or text and a style of rich's
_CELL = 60  # columns that a cell of `columns` may take
_NARROW = 30  # a value is not wrapped to fewer columns than these


@dataclass(frozen=True)
class Line:
    """A line; where it is too long for the terminal it goes on below, `hang` columns from the left."""

    text: Text
    hang: int = 0

    def __str__(self) -> str:
        return self.text.plain


@dataclass(frozen=True, repr=False)
class Page:
    """Lines; `str` gives them as plain text, and so does an interpreter that shows a page."""

    lines: tuple[Line, ...]

    def __str__(self) -> str:
        return "".join(f"{str(line).rstrip()}\n" for line in self.lines)

    __repr__ = __str__

    def write(self, file: IO[str]) -> None:
        """Writes the page: in colours and wrapped if `file` is a terminal, else plain."""
        if not file.isatty():
            file.write(str(self))
            return
        console = Console(file=file, highlight=False)
        for line in self.lines:
            for piece in _wrap(line, console):
                console.print(piece, soft_wrap=True)


def line(*parts: Part, hang: int = 0) -> Line:
    """A line of parts. Control characters become escapes, and nothing in a part is markup."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Line(Text.assemble(*((escape(text), style) for text, style in pairs)), hang)


def heading(text: str, more: str = "") -> Line:
    """A line that opens a section."""
    return line((text, "bold"), (f"  {more}" if more else "", "dim"))


def named(name: str, margin: int, *value: Part) -> Line:
    """A line `name  value`, indented, its value `margin` columns wide of the name's begin."""
    return line((f"  {pad(escape(name), margin)}  ", "cyan"), *value, hang=margin + 4)


def columns(rows: Sequence[Sequence[Part]], right: Iterable[int] = (), indent: int = 2) -> list[Line]:
    """Rows as aligned columns; those at the places `right` end at one edge, and of cells that are too wide the end is cut."""
    table = [[(cell, "") if isinstance(cell, str) else cell for cell in row] for row in rows]
    cells = [[(_cut(escape(text)), style) for text, style in row] for row in table]
    widths = [max(cell_len(text) for text, _ in column) for column in zip(*cells, strict=True)]
    ends = set(right)
    return [
        line(
            " " * indent,
            *(
                part
                for place, (text, style) in enumerate(row)
                for part in ((pad(text, widths[place], place in ends), style), "  ")
            ),
        )
        for row in cells
    ]


def pad(text: str, width: int, right: bool = False) -> str:
    """The text, filled with spaces to `width` columns."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _cut(text: str) -> str:
    if cell_len(text) <= _CELL:
        return text
    while cell_len(text) >= _CELL:
        text = text[:-1]
    return f"{text}…"


def _wrap(line: Line, console: Console) -> list[Text]:
    text = line.text.copy()
    text.rstrip()
    if text.cell_len <= console.width or console.width - line.hang < _NARROW:
        return [text]
    begin = 0
    while cell_len(text.plain[:begin]) < line.hang:
        begin += 1
    pieces = text[begin:].wrap(console, console.width - line.hang)
    return [Text.assemble(" " * line.hang if place else text[:begin], piece) for place, piece in enumerate(pieces)]
