"""Find the numbers in a caption, and check whether another text contains them.

In: a text. Out: `Numbers`: the numbers that it claims, which another text must contain, and all numbers that it
contains in any form, which cover another text's claims. Numbers are compared by readings, canonical decimal strings:

    1000  1,000  1.000  1'000  1 000 (narrow or no-break space)     1000
    1,500  1.500                 1500 or 1.5: countries differ, so both readings count
    1,5  1.5  1.50               1.5, or the numbers 1 and 5: this may be a list or a date
    1,234.56  1.234,56           1234.56
    12.04.2020  192.168.0.1      each part is a number, so the order in a date does not matter
    50x70  5-7  5–7  1/2  4:30   its parts; ½ is 1 and 2; 7:00 is 7
    50cm  50 cm  4K  No.5  #5    50, 4, 5: units are ignored, and k may also mean a thousand
    2 million  2 dozen           2000000, 24
    1st  2nd  twelfth            1, 2, 12
    two … ninety-nine, dozen     2 … 99, 12, in English
    ٣  ３                        3: decimal digits of every script

Number words claim a number from "two" up and ordinals from "third" up, since "one" and "second" often are not numbers.
Words such as pair, both, twin, trio and single only cover a number. Digits in URLs, e-mail addresses, file names, HTML
tags and after @ claim nothing. Roman numerals, number words in other languages, spaces between thousands, and names of
months are not read.
"""

import functools
import re
import tomllib
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

from curate.captions.gates.plain_text import plain, without_places

_WORDS = tomllib.loads(files("curate.captions.gates").joinpath("number_words.toml").read_text("ascii"))
_SMALL, _TENS, _ORDINALS = (_WORDS[name].split() for name in ("small", "tens", "ordinals"))
_VALUES = {word: n for n, word in [*enumerate(_SMALL), *enumerate(_ORDINALS, 1)]}
_VALUES |= {word: 10 * n for n, word in enumerate(_TENS, 2)}
_TIMES: dict[str, int] = _WORDS["times"]
_COVERS: dict[str, str] = {word: number for number, words in _WORDS["covers"].items() for word in words.split()}

_DIGITS = r"(?P<digits>\d+(?:[.,']\d+)*)(?P<kilo>k\b)?"
_FACTOR = rf"(?(kilo)|(?:[ -](?P<times>{'|'.join(_TIMES)})\b)?)"
_BEGIN = r"(?<![^\W_])"
_COUNT = rf"(?:(?P<tens>{'|'.join(_TENS)})(?:[ -](?P<unit>{'|'.join(_SMALL[1:10])}))?|(?P<small>{'|'.join(_SMALL)}))\b"
_OTHER = rf"(?:(?P<ordinal>{'|'.join(_ORDINALS)})|(?P<dozen>dozen)|(?P<cover>{'|'.join(_COVERS)}))\b"
_NUMBER = re.compile(rf"(?:{_DIGITS}|{_BEGIN}{_COUNT}){_FACTOR}|{_BEGIN}{_OTHER}")
_FIGURE = re.compile(_DIGITS + _FACTOR)
_LETTERS = re.compile(r"[^\W\d_]+")
_KNOWN = {**_VALUES, **_TIMES, **_COVERS}.keys()
# RE2 pattern that matches texts with number words.
NUMBER_WORDS = rf"(?i:\b(?:{'|'.join(_KNOWN)})\b)"

_MOST_DIGITS = 18  # longer ones are identifiers, which are not multiplied


class Number(NamedTuple):
    """One number: its possible readings as a whole, and its parts if it may be several numbers."""

    readings: frozenset[str]
    parts: tuple[str, ...] = ()
    spelt: bool = False  # written at least partly in words

    def is_in(self, held: frozenset[str]) -> bool:
        """Return whether the readings `held` include this number, as a whole or in parts."""
        return not self.readings.isdisjoint(held) or (bool(self.parts) and held.issuperset(self.parts))

    def above(self, least: int) -> bool:
        """Return whether all its readings and all its parts are above `least`."""
        return all(float(reading) > least for reading in (*self.readings, *self.parts))


class Numbers(NamedTuple):
    """A text's numbers; its own `held` covers all of `claimed`."""

    claimed: tuple[Number, ...]
    held: frozenset[str]


@functools.lru_cache(1 << 12)  # an original may have several texts
def read_numbers(text: str) -> Numbers:
    """Return a text's numbers; see the module."""
    text = plain(text).casefold()
    claims = without_places(text)
    claimed, held = _read(claims)
    if claims != text:
        held |= _read(text)[1]
    return Numbers(tuple(claimed), frozenset(held))


def _read(text: str) -> tuple[list[Number], set[str]]:
    claimed: list[Number] = []
    held: set[str] = set()
    # Set lookup is faster than the search, so it comes first.
    spelt = not _KNOWN.isdisjoint(_LETTERS.findall(text))
    for match in (_NUMBER if spelt else _FIGURE).finditer(text):
        digits = match["digits"]
        if spelt and match["cover"]:
            held.add(_COVERS[match["cover"]])
            continue
        if digits and not digits.strip("0") and text[match.start() - 1 : match.start()] == ":":
            held.add("0")  # the minutes of 7:00
            continue
        number, claims = (_multiplied(_from_digits(digits), match), True) if digits else _from_words(match)
        held.update(number.readings, number.parts)
        if claims:
            claimed.append(number)
    return claimed, held


def _canonical(whole: str, fraction: str = "") -> str:
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _from_digits(token: str) -> Number:
    """Return the number that digits with separators may mean; only its parts if it cannot be a single number."""
    if token.isdecimal():
        return Number(frozenset({_canonical(token)}))
    groups = re.split(r"[.,']", token)
    separators = "".join(char for char in token if char in ".,'")
    parts = tuple(_canonical(group) for group in groups)
    readings = set()
    if len(set(separators)) == 1:
        if _thousands(groups):
            readings.add(_canonical("".join(groups)))
        if len(groups) == 2 and separators != "'" and not (readings and groups[1] == "000"):
            readings.add(_canonical(*groups))
            # Three digits after a separator are not a list: 1 and 500 must not cover "1,500".
            parts = () if len(groups[1]) == 3 else parts
        elif readings:
            parts = ()
    elif len(set(separators[:-1])) == 1 and separators[-1] != separators[0] and _thousands(groups[:-1]):
        return Number(frozenset({_canonical("".join(groups[:-1]), groups[-1])}))
    return Number(frozenset(readings), parts)


def _thousands(groups: list[str]) -> bool:
    return 1 <= len(groups[0]) <= 3 and groups[0][0] != "0" and all(len(group) == 3 for group in groups[1:])


def _multiplied(number: Number, match: re.Match[str]) -> Number:
    """Return the number times its suffix: a k, which may mean a thousand, or a word such as million."""
    kilo = match["kilo"]
    if not kilo and not match["times"]:
        return number
    factor = 1000 if kilo else _TIMES[match["times"]]
    short = [reading for reading in number.readings if len(reading.replace(".", "")) <= _MOST_DIGITS]
    products = frozenset(f"{(Decimal(reading) * factor).normalize():f}" for reading in short)
    if kilo or not products:
        return Number(number.readings | products, number.parts)
    return Number(products, spelt=True)


def _from_words(match: re.Match[str]) -> tuple[Number, bool]:
    """Return the value of number words, and whether the text claims it."""
    ordinal = match["ordinal"]
    value = 12 if match["dozen"] else _VALUES[match["tens"] or match["small"] or ordinal]
    value += _VALUES[match["unit"]] if match["unit"] else 0
    value *= _TIMES[match["times"]] if match["times"] else 1
    return Number(frozenset({str(value)}), spelt=True), value > (2 if ordinal else 1)
