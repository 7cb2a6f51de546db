"""Texts and numbers of the report: untrusted texts escaped and shortened, and shares."""

import math
from collections.abc import Sequence
from decimal import Decimal

from curate.base.wording import escape

LONGEST = 400  # characters of a caption that are shown
SHORT = 80  # characters of a name
CELL = 160  # characters of a cell


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


def number(value: float) -> str:
    """Return a measured value in few digits: 0.2756, 1,280, 3."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return count(int(value))
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def count(value: int | Decimal | None) -> str:
    """Return a number with thousands separated, and a true minus; "–" for none."""
    return "–" if value is None else f"{value:,}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Return a share of `whole`; "–" of nothing."""
    return f"{100 * part / whole:.2f}\N{NO-BREAK SPACE}%" if whole else "–"


def format_shares(shares: Sequence[float | None]) -> list[str]:
    """Return the shares of a column: two digits each, or up to four where a smaller one would be zero."""
    smallest = min((abs(share) for share in shares if share), default=1.0)
    digits = next((digits for digits in (2, 3) if smallest >= 10 ** -(digits + 2)), 4)
    return ["–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%" for share in shares]
