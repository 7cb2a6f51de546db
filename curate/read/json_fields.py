"""The .json of a sample: read as Python's `json` reads it, and written as it came."""

import json
import re
from collections.abc import Iterator, Mapping
from json import decoder
from json.encoder import encode_basestring
from typing import Any

from curate.base.wording import one_line

_DEPTH = 100
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
# What `json` is made of: each reads a text from a place on, and returns what it read and where that ends.
_scan_string: Any = getattr(decoder, "scanstring")  # noqa: B009 (its type is not stated)
_scan_value: Any = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009
_SPACE = b" \t\n\r"
_begin, _colon, _separator = (re.compile(rf"[ \t\n\r]*{mark}[ \t\n\r]*").match for mark in ("{", ":", "[,}]"))


def read_json(raw: bytes | memoryview) -> tuple[dict[str, Any], str | None]:
    """Return the fields of a sample's json, or what is wrong with it."""
    try:
        fields = json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:
        return {}, one_line(error, 200)
    if not isinstance(fields, dict):
        return {}, f"a JSON {type(fields).__name__}, not an object"
    # Where Python's parser gives up depends on the stack that it is called from; this does not.
    return ({}, f"nested more than {_DEPTH} deep") if _is_deep(fields) else (fields, None)


def json_bytes(value: Any) -> bytes:
    """Return a value as UTF-8; what JSON has no word for (NaN, infinities, which Python reads all the same) is null."""
    try:
        return (encode_basestring(value) if type(value) is str else _encode(value)).encode()
    except ValueError:  # NaN, or a lone surrogate: JSON can spell it, UTF-8 cannot
        return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None)).encode()


def put_fields(raw: bytes | memoryview, fields: Mapping[str, Any], values: Mapping[str, bytes]) -> bytes:
    """Return the text of a json with some fields put into it; all else is as it was, byte for byte.

    `raw` is a text that `read_json` accepts, and `fields` what it gives of it; no text, or one in UTF-16 or UTF-32, is
    written anew. `values` are as `json_bytes` writes them; a text that is there already stays as written. Of a repeated
    name all values are replaced.
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
    """Yield the name of each field of an object, and where the text of its value begins and ends."""
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
