"""Pages for a terminal: lines of styled text, columns that align, long values that wrap with a hanging indent.

In: text, some of it untrusted. Out: on a terminal in colours and wrapped to its width; in a pipe plain text, one value
a line, which can be searched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate.base.wording import escape

Part = str | tuple[str, str]  # text, or text and a style of rich's
_CELL = 60  # columns that a cell of `columns` may take
_UNLIMITED = 1_000_000  # columns of a line that is not wrapped yet
_NARROW = 30  # a value is not wrapped to fewer columns than these


@dataclass(frozen=True)
class Line:
    """A line; where it is too long for the terminal it continues below, indented by `hang` columns."""

    text: Text
    hang: int = 0

    def __str__(self) -> str:
        return self.text.plain


@dataclass(frozen=True, repr=False)
class Page:
    """A page of lines; `str` and `repr` return it as plain text."""

    lines: tuple[Line, ...]

    def __str__(self) -> str:
        return "".join(f"{str(line).rstrip()}\n" for line in self.lines)

    __repr__ = __str__

    def write(self, file: IO[str]) -> None:
        """Write the page: in colours and wrapped if `file` is a terminal, else plain."""
        if not file.isatty():
            file.write(str(self))
            return
        console = Console(file=file, highlight=False)
        for line in self.lines:
            for piece in _wrap(line, console):
                console.print(piece, soft_wrap=True)


def line(*parts: Part, hang: int = 0) -> Line:
    """Return a line of parts, whose control characters are escaped; nothing in them is markup."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Line(Text.assemble(*((escape(text), style) for text, style in pairs)), hang)


def heading(text: str, more: str = "") -> Line:
    """Return a line that opens a section."""
    return line((text, "bold"), (f"  {more}" if more else "", "dim"))


def named(name: str, margin: int, *value: Part) -> Line:
    """Return an indented line `name  value`, its name padded to `margin` columns."""
    return line((f"  {pad(escape(name), margin)}  ", "cyan"), *value, hang=margin + 4)


def columns(rows: Sequence[Sequence[Part]], right: Iterable[int] = (), indent: int = 2) -> list[Line]:
    """Return rows as aligned columns, at the places `right` to the right; long cells are cut but in the last column."""
    if not rows:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    last = max(map(len, rows)) - 1
    for place in range(last + 1):
        justify: Literal["right", "left"] = "right" if place in right else "left"
        table.add_column(justify=justify, no_wrap=True, max_width=_CELL if place < last else None)
    for row in rows:
        table.add_row(*(line(cell).text for cell in row))
    console = Console(width=_UNLIMITED, color_system=None, force_terminal=False)
    return [
        Line(Text.assemble(" " * indent, *((piece.text, piece.style or "") for piece in pieces)))
        for pieces in console.render_lines(table, pad=False)
    ]


def pad(text: str, width: int, right: bool = False) -> str:
    """Return the text, filled with spaces to `width` columns of a terminal."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


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
