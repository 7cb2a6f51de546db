"""What all sections of an explanation share: rows by their place, values and marks as they are shown."""

from typing import Any

import pyarrow as pa

from curate.ask.page import Line, Part, line, named

AT = "SEMI JOIN (SELECT unnest($places, recursive := true)) USING (unit, row)"  # rows at `places`
VALUE = 40  # characters of a value that are shown with a rule
YES, NO, OPEN = ("✓ ", "green"), ("✗ ", "bold red"), ("– ", "dim")
_TEXT = 300  # characters of a caption or URL that are shown


def fetch(connection: Any, sql: str, **params: object) -> pa.Table:
    """Return the result of a query."""
    return connection.sql(sql, params=params).to_arrow_table()


def origin(row: dict[str, Any]) -> str:
    """Return where a row came from: source, shard and key."""
    place = " ".join(str(part) for part in (row["shard"], row["key"]) if part is not None)
    return f"{row['source']}: {place}" if place else str(row["source"])


def marked(mark: tuple[str, str], name: str, margin: int, *value: Part) -> Line:
    """Return a line `mark name  value`."""
    shown = named("", margin, *value)
    text = line("  ", mark, (name, "cyan")).text
    text.pad_right(max(0, margin + 4 - text.cell_len))
    return Line(text.append_text(shown.text[margin + 4 :]), shown.hang)


def show(value: object, most: int = _TEXT) -> str:
    """Return a value as text, cut where it is long."""
    text = "NULL" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
