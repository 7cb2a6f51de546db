"""Parts of a report section: plain values, which page.html lays out. The only HTML is the SVG of charts.

Also formats the texts and numbers in a report: untrusted texts, escaped and shortened, and shares.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self

import jinja2

from curate.base.ids import own_uid
from curate.base.wording import escape, format_bytes, format_seconds

LONGEST = 400  # characters shown of a caption
SHORT = 80  # characters of a name
CELL = 160  # characters of a cell
PAIRS = 60  # rows in a table of names and values


def clean(value: object, limit: int = LONGEST) -> str:
    """Return the value as text of at most `limit` characters, with control characters escaped; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        value = ", ".join(clean(part, limit) for part in value[:limit])
    text = escape(str(value)[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def number(value: float) -> str:
    """Return a measured value in few digits: 0.2756, 1,280, 3."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return count(int(value))
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def finite(value: object) -> float | None:
    """Return a number to sort and filter cards by; None if the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return float(value)


def count(value: int | Decimal | None) -> str:
    """Return a number with thousands separators and a true minus sign; "–" for None."""
    return "–" if value is None else f"{value:,}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Return a share of `whole`; "–" if `whole` is 0."""
    return f"{100 * part / whole:.2f}%" if whole else "–"


def format_shares(shares: Sequence[float | None]) -> list[str]:
    """Return the shares in a column with two digits, or up to four if a small share would show as zero."""
    smallest = min((abs(share) for share in shares if share), default=1.0)
    digits = next((digits for digits in (2, 3) if smallest >= 10 ** -(digits + 2)), 4)
    return ["–" if share is None else f"{100 * share:.{digits}f}%" for share in shares]


class Bar(NamedTuple):
    """A cell with a bar behind its text; its length is a fraction of the column's width."""

    text: str
    length: float
    style: str = "kept"  # kept, pool or drop: a color


Cell = str | Bar


class Table(NamedTuple):
    """A table. Columns named in `words` are left-aligned text; the others are numbers. Folded: collapsed at first."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[str] = ()
    title: str = ""
    note: str = ""
    folded: bool = False
    last_is_sum: bool = False

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], title: str = "", note: str = "", **options: Any) -> Self:
        """Return rows of a query as a table, with column names as heads; the type of a value sets its format.

        A float is a share of 1; an integer or decimal is a number; a dict is a bar with `count` or `share`, `style`,
        and `length` if that is not the share.
        """
        columns = {clean(head, SHORT): [row[head] for row in rows] for head in (rows[0] if rows else ())}
        words = [head for head, cells in columns.items() if any(isinstance(v, str | list | dict) for v in cells)]
        cells = list(zip(*map(_cells, columns.values()), strict=True))
        return cls(tuple(columns), cells, words, title, note, **options)


def _cells(values: Sequence[Any]) -> list[Cell]:
    parts = [value.get("share") if isinstance(value, dict) else value for value in values]
    shares = format_shares([part if isinstance(part, float) else None for part in parts])
    cells: list[Cell] = []
    for value, share in zip(values, shares, strict=True):
        if isinstance(value, dict):
            text = share if value.get("count") is None else count(value["count"])
            length = value.get("length", value.get("share")) or 0.0
            cells.append(Bar(text, length, value.get("style", "kept")))
        elif isinstance(value, int | Decimal) and not isinstance(value, bool):
            cells.append(count(value))
        elif isinstance(value, datetime):
            cells.append(f"{value:%Y-%m-%d %H:%M}")
        else:
            cells.append(share if isinstance(value, float) else clean(value, CELL))
    return cells


class Figure(NamedTuple):
    """A chart: SVG from `charts.render_svg`; `narrow` may hold one for phones. A legend item starts with its color."""

    title: str
    svg: str
    table: Table
    narrow: str = ""
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    spec: Mapping[str, Any] | None = None  # to write the chart to a file


class Picture(NamedTuple):
    """A thumbnail as a data URI, or why it is missing."""

    data: str = ""
    missing: str = ""
    blurred: bool = False


class Card(NamedTuple):
    """A sample: its rows with their roles in a group of duplicates, its values, and its verdict.

    The first row is the sample itself. If there are no rows, `missing` has the reason. `verdict` is the verdict and its
    reason; cards are filtered by `rule`. `name` is a uid or key for `curate explain`.
    """

    group: Sequence[tuple[str, Mapping[str, Any]]]
    values: Sequence[tuple[str, Any]]
    name: str
    verdict: tuple[str, str] | None = None
    rule: str = ""
    missing: str = ""


class Section(NamedTuple):
    """A section of the page: facts that `sections.html` renders as text and tables."""

    id: str
    title: str
    facts: Mapping[str, Any]


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("curate.ask", "report"),
    autoescape=jinja2.select_autoescape(["html"]),  # other templates are JSON
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)
TEMPLATES.tests["uid"] = lambda text: own_uid(text) == text
TEMPLATES.filters |= {"clean": clean, "count": count, "percent": percent, "number": number, "finite": finite}
TEMPLATES.filters |= {"format_seconds": format_seconds, "format_bytes": format_bytes}
TEMPLATES.filters["pairs"] = lambda values: [{"name": n, "value": str(v)} for n, v in [*values.items()][:PAIRS]]
TEMPLATES.globals["table"] = Table.of
