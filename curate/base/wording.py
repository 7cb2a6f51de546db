"""Counts, sizes and durations in words, parts of error messages, and escapes of text that a terminal would obey."""

import difflib
import email.utils
import math
import re
import struct
import traceback
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from types import FrameType

from curate.base.errors import CurateError

# What moves a terminal's cursor, colours it or turns the direction of text, what no XML may hold, and the mark of byte
# order, which nobody sees.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")  # of a Retry-After
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in messages of libraries: another one in each process


def pluralise(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun: 1 shard, 1,200 shards; `nouns` is the plural where it does not end in s."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def format_bytes(size: float) -> str:
    """Return a size in bytes with its unit: 4.8 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.{0 if value >= 100 or unit == 'B' else 1}f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def format_seconds(seconds: float) -> str:
    """Return a duration in words: 31.7 s, 4 min 12 s, 3 h 5 min."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def next_size(rows: int, t: int, expected: float, above: float | None) -> str:
    """Return the expected size of t + 1, `above`, in words; empty where that of t is within 5 % of `rows`."""
    return "" if above is None or expected >= 0.95 * rows else f"{above:,.0f} with t = {t + 1:,}"


def all_digits(value: float, single: bool = False) -> str:
    """Return a number in the fewest digits that are read as it, never as 1e-05; `single`: by a column of float32."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    texts = (f"{value:.{digits}g}" for digits in range(1, 10) if single)
    text = next((text for text in texts if struct.pack("f", float(text)) == struct.pack("f", value)), repr(value))
    return format(Decimal(text.removesuffix(".0")), "f")


def escape(text: str) -> str:
    """Return the text with control characters as escapes, so that a stranger's text cannot steer a terminal."""

    def spell(match: re.Match[str]) -> str:
        code = ord(match[0])
        return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return CONTROL.sub(spell, text)


def one_line(error: object, limit: int | None = None) -> str:
    """Return the text of an error on one line, cut after `limit` characters; empty where the error has none."""
    return " ".join(str(error).split())[:limit]


def package_of(frame: FrameType) -> str:
    """Return the outermost package of a frame's module."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def describe_error(error: BaseException, package: str | None = None) -> str:
    """Return what an exception says, and where in a package it was raised: the innermost of its lines.

    Without `package`: of the outermost package that is not curate's.
    """
    if isinstance(error, CurateError):
        return str(error)
    text = f"{type(error).__name__}: {ADDRESS.sub('', one_line(error, 400))}".removesuffix(": ")
    frames = [(package_of(frame), frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    package = package or next((name for name, *_ in frames if name != "curate"), None)
    inside = [frame for frame in frames if frame[0] == package]
    if not inside:
        return text
    _, code, line = inside[-1]
    return f"{text} at {Path(code.co_filename).name}:{line} in {code.co_name}"


def did_you_mean(name: str, choices: Iterable[str], part: Callable[[str], str] = str.lower) -> str:
    """Return the known name whose `part` is nearest, as a hint: "did you mean 'x'? "; empty where none is near."""
    names = {part(text): text for text in choices}
    near = difflib.get_close_matches(part(name), names, 1)
    return f"did you mean {names[near[0]]!r}? " if near else ""


def describe_seen(seen: int, kept: float, copies: float | None = None) -> str:
    """Return how often each kept sample is seen in a training run; `copies`: how many there are with repeats."""
    if not kept:
        return f"{seen:,} samples seen, and none is kept"
    each = f"{seen:,} samples seen: each of {kept:,.0f} kept ones {seen / kept:,.3g} times"
    return (
        each if copies is None else f"{each} on average, each of {copies:,.0f} in uids.npy {seen / copies:,.3g} times"
    )


def read_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
