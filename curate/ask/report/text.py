"""Texts and numbers of the report: untrusted texts escaped and shortened, and shares."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from curate.base.wording import escape

LONGEST = 400  # characters of a caption that are shown
SHORT = 80  # characters of a name


def clean(value: object, limit: int = LONGEST) -> str:
    """Return the value as text of at most `limit` characters, control and direction marks escaped; "–" for none."""
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


def names(row: Mapping[str, Any], *columns: str) -> list[str]:
    """Return these values of a row as texts of at most SHORT characters."""
    return [clean(row[column], SHORT) for column in columns]


def counts(row: Mapping[str, Any], *columns: str) -> list[str]:
    """Return these integers of a row as texts."""
    return [count(row[column]) for column in columns]


def number(value: float) -> str:
    """Return a measured value in few digits: 0.2756, 1,280, 3."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return count(int(value))
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def count(value: int | None) -> str:
    """Return an integer with thousands separated, and a true minus; "–" for none."""
    return "–" if value is None else f"{value:,}".replace("-", "−")


def percent(part: float, whole: float, digits: int = 2) -> str:
    """Return a share of `whole`; "–" of nothing."""
    return f"{100 * part / whole:.{digits}f}\N{NO-BREAK SPACE}%" if whole else "–"


def shares(parts: Sequence[int]) -> list[str]:
    """Return the share of each part in their sum: two digits, or up to four where a smaller one would be zero."""
    whole = sum(parts)
    smallest = min((n for n in parts if n), default=0)
    digits = next((d for d in (2, 3) if smallest * 10 ** (d + 2) >= whole), 4)
    return [percent(n, whole, digits) for n in parts]
