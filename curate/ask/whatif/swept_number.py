"""The variable of a sweep or a search: one number in the recipe, with a range or a list of values in braces.

    balance.t={1000..100000}                  whole numbers, evenly spaced in their logarithm
    balance.rows={10000,20000,40000}          these values; likewise sample.rows and all other sizes of selections
    balance.tail_share={0.02..0.2}            evenly spaced
    rules.aligned.top={0.1..0.5}              evenly spaced
    rules.best.rows={1000..50000}             whole numbers, evenly spaced
    rules.aligned=clip_score >= {0.1..0.5}    any number in a rule

If the number is the whole value, you can omit the braces. Values between the ends of a range are rounded by less than
half their distance: 0.43 and 0.45, not 0.427273 and 0.454545. If both ends are written as integers, as in
words > {1..9}, values are integers; {0.0..1.0} allows any number in between.
In: such a text. Out: a `SweptNumber`, with its values and the override (`key=value`) for each.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, Self

import numpy as np

from curate.base.errors import RecipeError
from curate.recipe.deciding import SELECTIONS

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE, _LIST = rf"{_NUMBER}\.\.{_NUMBER}", rf"{_NUMBER}(?:\s*,\s*{_NUMBER})"
_ALONE = re.compile(rf"(\{{)?(?P<values>{_RANGE}|{_LIST}*)(?(1)\}})")
_IN_BRACES = [re.compile(rf"\{{(?P<values>{values})\}}") for values in (_RANGE, f"{_LIST}+")]
_TOP, _ROWS = re.compile(r"rules\.[^.]+\.top"), re.compile(r"rules\.[^.]+\.rows")
_RULE = re.compile(r"rules\.[^.]+")
_EDGE = 1e-9  # the lowest fraction of a top rule, which must be above 0
_MOST_ROWS = 10**12
_MAX_NUMBER, _MAX_LISTED = 1e15, 1000  # largest number, and how many of them
_FORMS = (
    "accepted: a range or list in braces, as in 'balance.t={1000..100000}' or 'rules.NAME=clip_score >= {0.4,0.5}', "
    "for a number in a rule, or for the whole value of balance.t, balance.tail_share, rules.NAME.top, rules.NAME.rows, "
)
SEARCHED = (
    "accepted: a rule with a range in braces, such as --by 'rules.NAME=clip_score >= {0.1..0.5}', or rules.NAME.top or "
    "rules.NAME.rows for a top rule; to search t, use --rows without --by"
)


@dataclass(frozen=True)
class SweptNumber:
    """One number in the recipe."""

    key: str  # the override's key
    before: str  # the text around the number in the override's value
    after: str
    low: float  # the range
    high: float
    listed: tuple[float, ...]  # the values, if they were listed
    is_whole: bool  # whether the number is an integer
    of_run: float | None = None  # the run's value, if known

    @property
    def rule(self) -> str | None:
        return self.key.split(".")[1] if self.key.startswith("rules.") else None

    @property
    def logarithmic(self) -> bool:
        return self.key in _sizes() and self.low > 0

    def override(self, value: float) -> str:
        """Return the override that sets the number, without exponents: YAML reads 1e-09 as text."""
        text = str(int(value)) if self.is_whole else np.format_float_positional(value, trim="0")
        if value < 0 and self.before:  # in `words -{-1..1}`, a second minus would begin a SQL comment
            text = f"({text})"
        return f"{self.key}={self.before}{text}{self.after}"

    def with_value_of(self, recipe: Mapping[str, Any], t: int | None) -> Self:
        """Return the number with its value in a run's recipe; `t` is the value that the run used."""
        setting: Any = recipe
        for key in self.key.split("."):
            setting = setting.get(key) if isinstance(setting, Mapping) else None
        if self.key == "balance.t":
            setting = t
        if isinstance(setting, str):
            before, after = (re.escape("".join(text.split())) for text in (self.before, self.after))
            match = re.fullmatch(rf"{before}\(?({_NUMBER})\)?{after}", "".join(setting.split()))
            setting = float(match[1]) if match else None
        return replace(self, of_run=setting) if isinstance(setting, int | float) else self

    def values(self, points: int) -> list[float]:
        """Return the listed values, or `points` values over the range with both ends, plus the run's value if in range.

        Fewer if the range has fewer whole numbers.
        """
        if self.listed:
            return list(self.listed)
        spaced = (np.geomspace if self.logarithmic else np.linspace)(self.low, self.high, points)
        # Round to the first digit of the distance to the previous value: by less than half of it.
        digits = [math.floor(math.log10(b - a)) if a < b else -9 for a, b in pairwise(spaced[:-1].tolist())]
        inner = [round(value, -n) for value, n in zip(spaced[1:-1].tolist(), digits, strict=True)]
        values = {self.rounded(value) for value in [self.low, *inner, self.high]}
        if self.of_run is not None and self.low <= self.of_run <= self.high:
            values |= {self.of_run} if self.rounded(self.of_run) == self.of_run else set()
        return sorted(values)

    def rounded(self, value: float) -> float:
        """Return the value as written in overrides: a whole number, or nine digits."""
        return round(value) if self.is_whole else float(f"{value:.9g}")


@cache
def _sizes() -> list[str]:
    kinds = ((key, form) for key, kind in SELECTIONS.kinds().items() for form in (kind, *kind.forms.values()))
    return list(dict.fromkeys(["balance.t", *(f"{key}.{size}" for key, form in kinds for size in form.sizes_of)]))


def parse_swept_number(text: str, accepted: str = "") -> SweptNumber:
    """Return the number that a text names; `rules.NAME.top` alone means its whole range.

    Raises RecipeError with the `accepted` forms: SEARCHED for a search, where `rules.NAME.rows` may also stand alone.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    is_top, is_rows = bool(_TOP.fullmatch(key)), bool(_ROWS.fullmatch(key))
    if is_top and not equals:
        return SweptNumber(key, "", "", _EDGE, 1.0, (), False)
    if is_rows and not equals and accepted == SEARCHED:
        return SweptNumber(key, "", "", 1, _MOST_ROWS, (), True)
    matches: list[re.Match[str]] = []
    is_share = is_top or key == "balance.tail_share"
    if is_share or is_rows or key in _sizes():
        matches = [match for match in [_ALONE.fullmatch(value)] if match]
    elif _RULE.fullmatch(key):  # {2,3} may be part of a regular expression, so try ranges first
        matches = next(filter(None, (list(braces.finditer(value)) for braces in _IN_BRACES)), [])
    if len(matches) != 1:
        problem = f"{text!r} names no value to {'search' if accepted else 'sweep'}"
        raise RecipeError(f"{problem}; {accepted or _FORMS + ', '.join(_sizes()[1:])}")
    [match] = matches
    words = re.split(r"\.\.|\s*,\s*", match["values"])
    numbers, is_range = tuple(map(float, words)), ".." in match["values"]
    if len(numbers) > _MAX_LISTED or max(map(abs, numbers)) > _MAX_NUMBER:
        accepted = f"at most {_MAX_LISTED:,} values, each at most {_MAX_NUMBER:,.0f}"
        raise RecipeError(f"{key}: {len(numbers):,} values up to {max(numbers):.3g}; accepted: {accepted}")
    if is_range and numbers[0] >= numbers[1]:
        accepted = "a range from a smaller number to a larger one"
        raise RecipeError(f"{text!r}: {match['values']} is empty; accepted: {accepted}")
    is_whole = not is_share and not any("." in word for word in words)
    around = value[: match.start()], value[match.end() :]
    return SweptNumber(key, *around, min(numbers), max(numbers), () if is_range else numbers, is_whole)
