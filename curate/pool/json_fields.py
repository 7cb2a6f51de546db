"""The .json of a sample: read as Python's `json` reads it, four times as fast where it is flat, and written on one line.

`orjson` reads integers of more than 64 bits as floats, and refuses NaN, infinities, lone surrogates and other encodings than
UTF-8: objects that may hold one of these, and what is nested, are read by `json`. It also writes floats in another way; where there
are none, objects are written by it, many at once, and a kernel puts the spaces in that `json` has behind commas and colons.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
from numba import njit

from curate.wording import one_line

_DEPTH = 100
_SAME = frozenset((str, int, bool, type(None)))  # types that both libraries read alike
_FLAT = _SAME | {float}
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def read_json(raw: bytes | memoryview) -> tuple[dict[str, Any], str | None]:
    """Return the fields of a sample's json, or what is wrong with it."""
    try:
        fields = orjson.loads(raw)
        if type(fields) is dict and _are_same(fields.values()):
            return fields, None
    except orjson.JSONDecodeError:  # or something that only Python accepts
        pass
    try:
        fields = json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:
        return {}, one_line(error, 200)
    if not isinstance(fields, dict):
        return {}, f"a JSON {type(fields).__name__}, not an object"
    # Where Python's parser gives up depends on the stack that it is called from; this does not.
    return ({}, f"nested more than {_DEPTH} deep") if _is_deep(fields) else (fields, None)


def json_bytes(fields: dict[str, Any]) -> bytes:
    """Return the fields as UTF-8; what JSON has no word for (NaN, infinities, which Python reads all the same) is null."""
    try:
        return _encode(fields).encode()
    except ValueError:  # NaN, or a lone surrogate: JSON can spell it, UTF-8 cannot
        return json.dumps(json.loads(json.dumps(fields), parse_constant=lambda _: None)).encode()


def json_lines(objects: Sequence[dict[str, Any]]) -> list[bytes]:
    """Return `json_bytes` of each."""
    lines: list[bytes | None] = [_write(fields) if _is_plain(fields) else None for fields in objects]
    spaced = iter(_with_spaces([line for line in lines if line is not None]))
    return [json_bytes(fields) if line is None else next(spaced) for line, fields in zip(lines, objects, strict=True)]


def _is_plain(value: dict[str, Any] | list[Any]) -> bool:
    """Return whether both libraries write it alike but for spaces: no float is in it."""
    inner = value.values() if isinstance(value, dict) else value
    return all([type(one) in _SAME or (type(one) in (dict, list) and _is_plain(one)) for one in inner])  # noqa: C419 (faster)


def _write(fields: dict[str, Any]) -> bytes | None:
    try:
        return orjson.dumps(fields)
    except TypeError:  # integers of more than 64 bits, lone surrogates, or too deep
        return None


def _with_spaces(lines: Sequence[bytes]) -> list[bytes]:
    """Return what `orjson` wrote with a space behind each comma and colon that is not in a string."""
    raw = b"".join(lines)
    ends = np.cumsum(list(map(len, lines)), dtype=np.int64)
    out = np.empty(2 * len(raw), np.uint8)
    _add_spaces(np.frombuffer(raw, np.uint8), ends, out)
    stops = ends.tolist()
    whole = out[: stops[-1]].tobytes() if stops else b""
    return [whole[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


@njit(nogil=True, cache=True)
def _add_spaces(raw: Any, ends: Any, out: Any) -> None:
    """Write the text with spaces to `out`, and where each line ends in it to `ends`."""
    at, used = 0, 0
    for line in range(len(ends)):
        in_string = False
        while at < ends[line]:
            byte = raw[at]
            out[used] = byte
            used += 1
            at += 1
            if in_string and byte == 92:  # a backslash: what follows it ends no string
                out[used] = raw[at]
                used += 1
                at += 1
            elif byte == 34:
                in_string = not in_string
            elif not in_string and byte in (44, 58):  # a comma or a colon
                out[used] = 32
                used += 1
        ends[line] = used


def _are_same(values: Iterable[Any]) -> bool:
    """Return whether `json` reads these values alike: they are flat, and no float may stand for a large integer."""
    kinds = set(map(type, values))
    if kinds <= _SAME:
        return True
    return kinds <= _FLAT and all(abs(value) < 2.0**63 for value in values if type(value) is float)


def _is_deep(value: Any) -> bool:
    """Return whether `value` nests more than `_DEPTH` deep."""
    level = [value]
    for _ in range(_DEPTH):
        inner = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in inner if isinstance(child, (dict, list))]
        if not level:
            return False
    return True
