"""What commands print: pages of styled lines for a terminal, and rows of a query as a table, as CSV or as JSON.

Texts are partly untrusted (captions, URLs, keys): their control characters are escaped. On a terminal pages are in
colors and wrapped to its width, with a hanging indent; in a pipe plain text, one value a line, which can be searched.
"""

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from json.encoder import encode_basestring
from typing import IO, Any, Literal

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curate.base.wording import CONTROL, all_digits, escape, pluralize

Part = str | tuple[str, str] | Text  # text, or text and a style of rich's, or both in one
_WIDEST = 60  # columns that a cell of `columns` may take
_UNLIMITED = 1_000_000  # columns of a line that is not wrapped yet
_NARROW = 30  # a value is not wrapped to fewer columns than these
Format = Literal["table", "csv", "json"]

_ODD = re.compile(r'[",\r\n]')  # characters for which CSV quotes a field
_CELL = 80  # characters of a value shown in a table
_SHOWN = 50  # rows of a table shown in a notebook
_LINE = 200  # characters; if a line is longer, a table shows one value per line
_CUT = "long values are cut; --format csv prints them in full"


@dataclass(frozen=True)
class Line:
    """A line; if it is too long for the terminal, it wraps, indented by `hang` columns."""

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
        """Write the page: colored and wrapped if `file` is a terminal, else plain."""
        if not file.isatty():
            file.write(str(self))
            return
        console = Console(file=file, highlight=False)
        for line in self.lines:
            for piece in _wrap(line, console):
                console.print(piece, soft_wrap=True)


def line(*parts: Part, hang: int = 0) -> Line:
    """Return a line of parts as plain text, not markup, with control characters escaped."""
    escaped: list[tuple[str, str] | Text] = []
    for part in parts:
        if isinstance(part, Text):
            escaped.append(part)
        else:
            text, style = (part, "") if isinstance(part, str) else part
            escaped.append((escape(text), style))
    return Line(Text.assemble(*escaped), hang)


def columns(rows: Sequence[Sequence[Part]], right: Iterable[int] = (), indent: int = 2) -> list[Line]:
    """Return rows as aligned columns, those in `right` right-aligned; cells are cut except in the last column."""
    if not rows:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    last = max(map(len, rows)) - 1
    for index in range(last + 1):
        justify: Literal["right", "left"] = "right" if index in right else "left"
        table.add_column(justify=justify, no_wrap=True, max_width=_WIDEST if index < last else None)
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
    return [Text.assemble(" " * line.hang if index else text[:begin], piece) for index, piece in enumerate(pieces)]


@dataclass(frozen=True)
class Result:
    """Rows of a query, a list or an iterator, with the Python values that DuckDB returns. `names` are unique.

    A table shows floats in all digits for the columns in `exact` (true: float32), else in six digits.
    """

    names: tuple[str, ...]
    rows: Iterable[tuple[Any, ...]]
    exact: Mapping[str, bool] = field(default_factory=dict)
    note: str = ""  # whether the `limit` of a named query cut off rows


def tuples(table: pa.Table | pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def write_result(result: Result, format: Format, file: IO[str]) -> None:
    """Write rows: `table` for people, `csv` as in RFC 4180, `json` as one array of objects.

    In CSV, lines end in a line feed, for programs behind a pipe; null is an empty field and empty text is "", but a
    single null in a row is "" too, since readers skip empty lines. In JSON, numbers of any size are numbers, NaN and
    infinities are null, lists are arrays, structs are objects, and everything else is text. Control characters are
    escaped.
    """
    if format == "json":
        names = [f"{_json(name)}: " for name in result.names]
        file.write("[")
        for position, row in enumerate(result.rows):
            file.write(f"{',' if position else ''}\n{{{', '.join(map(str.__add__, names, map(_json, row)))}}}")
        file.write("]\n")
    elif format == "csv":
        show = escape if file.isatty() else str
        _write_csv(file, [[show(name) for name in result.names]])
        _write_csv(file, ([None if v is None else show(_plain(v)) for v in row] for row in result.rows))
    elif result.names == ("explain_key", "explain_value"):
        file.writelines(escape(text) + "\n" for row in result.rows for text in row[1].splitlines())
    else:
        _write_table(result, file)


def write_json(value: Any, file: IO[str]) -> None:
    """Write one value as JSON, in the format of `write_result`."""
    file.write(f"{_json(value)}\n")


def _write_csv(file: IO[str], rows: Iterable[list[str | None]]) -> None:
    """Write lines of CSV; the csv module would write "" like null, and not quote \\r."""
    for row in rows:
        file.write((",".join(map(_quote, row)) or '""') + "\n")


def _quote(field: str | None) -> str:
    if field is None:
        return ""
    return '"' + field.replace('"', '""') + '"' if field == "" or _ODD.search(field) else field


def _json(value: Any) -> str:
    """Return the value as JSON, on one line. The json module supports neither exact decimals nor other SQL types."""
    if isinstance(value, str):
        return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", encode_basestring(value))
    if value is None or isinstance(value, int):
        return json.dumps(value)
    if isinstance(value, float | Decimal):
        return (repr(value) if isinstance(value, float) else format(value, "f")) if math.isfinite(value) else "null"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(str(k))}: {_json(v)}" for k, v in value.items()) + "}"
    return _json(_plain(value))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | tuple | dict):
        return _json(value)
    return bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else str(value)


def _write_table(result: Result, file: IO[str]) -> None:
    rows = list(result.rows)
    exact = [result.exact.get(name) for name in result.names]
    cells = [list(map(cell_text, row, exact)) for row in rows]
    file.writelines(f"{text}\n" for text in _table(list(map(escape, result.names)), rows, cells))
    is_cut = any(len(cell) == _CELL and cell.endswith("…") for row in cells for cell in row)
    Page((line(f"({pluralize(len(cells), 'row')})"), *([line((_CUT, "dim"))] if is_cut else []))).write(file)


def _table(names: list[str], rows: list[tuple[Any, ...]], cells: list[list[str]]) -> Iterator[str]:
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if sum(widths) + 2 * len(widths) > _LINE:
        margin = max(map(cell_len, names))
        for number, row in enumerate(cells, 1):
            yield f"── row {number} of {len(cells)}"
            yield from (f"{pad(name, margin)}  {cell}" for name, cell in zip(names, row, strict=True))
    else:
        kinds = [{type(value) for value in column} - {type(None)} for column in zip(*rows, strict=True)]
        right = [bool(types) and types <= {int, float, Decimal} for types in kinds] or [False for _ in names]
        for row in [names, ["─" * width for width in widths], *cells]:
            yield "  ".join(map(pad, row, widths, right)).rstrip()


def cell_text(value: Any, single: bool | None = None) -> str:
    """Return a value as a table shows it: escaped, cut if it is long, and floats as `Result.exact` says."""
    if value is None:
        return "NULL"
    if isinstance(value, float) and single is not None:
        text = all_digits(value, single)
    elif isinstance(value, float) and not value.is_integer():
        text = f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else all_digits(float(f"{value:.6g}"))
    else:
        text = escape(_plain(value))
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def table_html(table: pa.Table) -> str:
    """Return the first rows of a table as HTML for notebooks."""
    head = "".join(f"<th>{html_text(name)}</th>" for name in table.column_names)
    rows = tuples(table.slice(0, _SHOWN))
    cells = ("".join(f"<td>{html_text(cell_text(value))}</td>" for value in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    count = f"{pluralize(len(table), 'row')}" + (f", the first {_SHOWN} shown" if len(table) > _SHOWN else "")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{count}</p>"


def html_text(text: str) -> str:
    """Return a text escaped for HTML."""
    return html.escape(escape(text))


class Tables:
    """Base of results that notebooks show as their `repr` and each of their tables that has rows."""

    def _repr_html_(self) -> str:
        shown = (f"<b>{n}</b>{table_html(t)}" for n, t in vars(self).items() if isinstance(t, pa.Table) and len(t))
        return f"<p>{html_text(repr(self))}</p>{''.join(shown)}"
