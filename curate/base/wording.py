"""Formats counts, sizes and durations, builds parts of error messages, and escapes text for terminals."""

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

# Characters that control a terminal or the direction of text, that XML forbids, and the invisible byte-order mark.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")  # the number in a Retry-After header
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # an address in a library's message, which differs in each process


def pluralize(number: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun: 1 shard, 1,200 shards; `nouns` is an irregular plural."""
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
    """Return the expected size at t + 1, `above`, as text; empty if the size at t is within 5% of `rows`."""
    return "" if above is None or expected >= 0.95 * rows else f"{above:,.0f} with t = {t + 1:,}"


def all_digits(value: float, single: bool = False) -> str:
    """Return a number with as few digits as possible, so that it parses to the same number; `single`: as float32.

    The text has no exponent.
    """
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    texts = (f"{value:.{digits}g}" for digits in range(1, 10) if single)
    text = next((text for text in texts if struct.pack("f", float(text)) == struct.pack("f", value)), repr(value))
    return format(Decimal(text.removesuffix(".0")), "f")


def escape(text: str) -> str:
    """Return the text with control characters escaped, so that untrusted text cannot control a terminal."""

    def spell(match: re.Match[str]) -> str:
        code = ord(match[0])
        return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return CONTROL.sub(spell, text)


def one_line(error: object, limit: int | None = None) -> str:
    """Return an error's message on one line, cut after `limit` characters; empty if the error has no message."""
    return " ".join(str(error).split())[:limit]


def package_of(frame: FrameType) -> str:
    """Return the outermost package of the module that a frame is in."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def describe_error(error: BaseException, package: str | None = None) -> str:
    """Return an exception's message, and the innermost line of a package in its traceback.

    By default, this is the outermost package other than curate.
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
    """Return the most similar known name, by its `part`, as a hint: "did you mean 'x'? "; empty if none is similar."""
    names = {part(text): text for text in choices}
    near = difflib.get_close_matches(part(name), names, 1)
    return f"did you mean {names[near[0]]!r}? " if near else ""


def describe_seen(seen: int, kept: float, copies: float | None = None) -> str:
    """Return how often training sees each kept sample, as text. `copies` is the number of samples with repeats."""
    if not kept:
        return f"{seen:,} samples to see, but no sample is kept"
    each = f"{seen:,} samples seen: each of {kept:,.0f} kept samples {seen / kept:,.3g} times"
    return (
        each if copies is None else f"{each} on average, each of {copies:,.0f} in uids.npy {seen / copies:,.3g} times"
    )


def read_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds in a Retry-After header, a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
