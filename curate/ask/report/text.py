"""Texts and numbers of the report: untrusted texts escaped and shortened, shares that sum to 100 %."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
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
    """Return the share of each part in their sum, rounded so that they sum to exactly 100 % (largest remainders).

    Two digits, or up to four where a smaller share would be printed as zero.
    """
    whole = sum(parts)
    if not whole:
        return ["–" for _ in parts]
    smallest = min(n for n in parts if n)
    digits = next((d for d in (2, 3) if smallest * 10 ** (d + 2) >= whole), 4)
    scale = 10 ** (digits + 2)
    floors = [n * scale // whole for n in parts]
    by_rest = sorted(range(len(parts)), key=lambda i: (-(parts[i] * scale % whole), i))
    for i in by_rest[: scale - sum(floors)]:
        floors[i] += 1
    return [f"{Decimal(n).scaleb(-digits)}\N{NO-BREAK SPACE}%" for n in floors]
