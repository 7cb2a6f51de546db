"""Read a sample's .json like Python's `json`, and write it back unchanged except for new fields."""

import json
import re
from collections.abc import Iterator, Mapping
from json import decoder
from json.encoder import encode_basestring
from typing import Any

from curate.base.wording import one_line

_DEPTH = 100
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
# Parts of Python's `json`: each parses a text from a position, and returns the value and where it ends.
_scan_string: Any = getattr(decoder, "scanstring")  # noqa: B009 (its type is not stated)
_scan_value: Any = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009
_SPACE = b" \t\n\r"
_begin, _colon, _separator = (re.compile(rf"[ \t\n\r]*{mark}[ \t\n\r]*").match for mark in ("{", ":", "[,}]"))


def read_json(raw: bytes | memoryview) -> tuple[dict[str, Any], str | None]:
    """Return the fields in a sample's JSON, or the error in it."""
    try:
        fields = json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:
        return {}, one_line(error, 200)
    if not isinstance(fields, dict):
        return {}, f"a JSON {type(fields).__name__}, not an object"
    # Python's parser fails at a depth that depends on the caller's stack; this limit does not depend on it.
    return ({}, f"nested more than {_DEPTH} deep") if _is_deep(fields) else (fields, None)


def json_bytes(value: Any) -> bytes:
    """Return a value as UTF-8. NaN and infinity, which Python accepts but JSON does not, become null."""
    try:
        return (encode_basestring(value) if type(value) is str else _encode(value)).encode()
    except ValueError:  # NaN, or a lone surrogate, which JSON can escape but UTF-8 cannot encode
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None)).encode()


def put_fields(raw: bytes | memoryview, fields: Mapping[str, Any], values: Mapping[str, bytes]) -> bytes:
    """Return the text of a JSON object after some fields are set. All other bytes stay the same.

    `raw` is a text that `read_json` accepts, and `fields` is its result. If `raw` is empty, UTF-16, or UTF-32, the
    whole object is written again. `values` come from `json_bytes`. A value that does not change keeps its spelling. If
    a name occurs several times, all its values are replaced.
    """
    raw = bytes(raw)
    if not raw or b"\0" in raw:  # UTF-16 or UTF-32
        raw = json_bytes(dict(fields))
    added = [json_bytes(name) + b": " + value for name, value in values.items() if name not in fields]
    replaced = {
        name: value
        for name, value in values.items()
        if name in fields and (type(fields[name]) is not str or json_bytes(fields[name]) != value)
    }
    if replaced:
        raw = _replace(raw, replaced)
    if not added:
        return raw
    end = len(raw[: raw.rindex(b"}")].rstrip(_SPACE))
    return b"".join((raw[:end], b", " if fields else b"", b", ".join(added), raw[end:]))


def _replace(raw: bytes, values: Mapping[str, bytes]) -> bytes:
    text = raw.decode("utf-8", "surrogatepass")
    parts: list[bytes] = []
    at = 0
    for name, start, end in _places(text):
        if name in values:
            parts += text[at:start].encode("utf-8", "surrogatepass"), values[name]
            at = end
    return b"".join([*parts, text[at:].encode("utf-8", "surrogatepass")])


def _places(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each field in an object, and where its value starts and ends in the text."""
    at = _begin(text, text.index("{")).end()  # type: ignore[union-attr]
    while text[at : at + 1] == '"':
        name, at = _scan_string(text, at + 1, True)
        start = _colon(text, at).end()  # type: ignore[union-attr]
        _, end = _scan_value(text, start)
        yield name, start, end
        at = _separator(text, end).end()  # type: ignore[union-attr]


def _is_deep(value: Any, depth: int = 1) -> bool:
    children = value.values() if isinstance(value, dict) else value
    inner = [child for child in children if isinstance(child, (dict, list))]
    return bool(inner) and (depth == _DEPTH or any(_is_deep(child, depth + 1) for child in inner))
