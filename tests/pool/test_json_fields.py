"""The .json of samples: whatever it is, read and written as Python's json does."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.pool.json_fields import json_bytes, json_lines, read_json
from curate.wording import one_line

texts = st.one_of(st.text(max_size=8), st.text('a"\\/\b\f\n\r\t\0\x1f\x7f\u2028é😀\ud800,:[]{} ', max_size=8))
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**15, 10**16]),
    st.floats(),
    st.sampled_from([1e-4, 0.00009999999999999999, 1e-5, 1e15, 9999999999999998.0, 1e16, 1e22, -0.0, 5e-324]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=6)
tokens = st.from_regex(r"\A-?[0-9]{1,25}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")


def json_by_python(fields: dict[str, Any]) -> bytes:
    """One line, as json writes it; null for NaN and infinities; in ASCII where it holds one, or a lone surrogate."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(json.loads(json.dumps(fields), parse_constant=lambda _: None)).encode()


def fields_by_python(raw: bytes) -> tuple[Any, str | None]:
    try:
        fields = json.loads(raw)
    except ValueError as error:
        return {}, one_line(error, 200)
    return (fields, None) if isinstance(fields, dict) else ({}, f"a JSON {type(fields).__name__}, not an object")


@settings(max_examples=500, deadline=None)
@given(objects)
@example({"large": [2**64], "small": [{"x": 1e-5}], "nan": [math.nan]})
def test_written_as_python_writes_it(fields: dict[str, Any]) -> None:
    assert json_bytes(fields) == json_by_python(fields)


@settings(max_examples=500, deadline=None)
@given(st.lists(objects, max_size=4))
@example([{}, {"a": {"b,:": [1, '\\",:', None, True]}, "c": []}, {"large": [2**64 - 1, -(2**63)]}])
@example([{"deep": json.loads("[" * 300 + "]" * 300)}, {"float": [1e16]}, {"lone": "\ud800"}])
def test_many_are_written_as_each(many: list[dict[str, Any]]) -> None:
    assert json_lines(many) == list(map(json_by_python, many))


@settings(max_examples=500, deadline=None)
@given(objects, st.booleans(), st.sampled_from([None, 0, 4]), st.sampled_from([(",", ":"), (" ,\t", "\r: ")]))
def test_read_as_python_reads_it(fields: Any, ascii_only: bool, indent: int | None, separators: Any) -> None:
    text = json.dumps(fields, ensure_ascii=ascii_only, indent=indent, separators=separators)
    raw = text.encode("utf-8", "surrogatepass")
    assert repr(read_json(raw)) == repr(fields_by_python(raw))


@settings(max_examples=300, deadline=None)
@given(st.lists(tokens, max_size=3), st.lists(tokens, max_size=3))
@example([], ["-0", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e400"])
@example([], ["9223372036854774784.0", "1e-400", "-0.0"])
def test_numbers_are_read_as_python_reads_them(inside: list[str], beside: list[str]) -> None:
    members = [f'"{i}": {token}' for i, token in enumerate([f"[{', '.join(inside)}]", *beside])]
    raw = f"{{{', '.join(members)}}}".encode()
    assert repr(read_json(raw)) == repr(fields_by_python(raw))


@settings(max_examples=500, deadline=None)
@given(objects, st.data())
def test_damaged_ones_are_judged_as_python_judges_them(fields: Any, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(fields).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"{", b"}", b"[", b",", b'"', b"\\", b"0", b"-", b".", b"e", b"NaN", b"\0", b"\xff"])
        )
    assert repr(read_json(bytes(raw))) == repr(fields_by_python(bytes(raw)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_other_encodings(encoding: str) -> None:
    assert read_json('{"caption": "é"}'.encode(encoding)) == ({"caption": "é"}, None)


def test_a_later_field_of_the_same_name_replaces_the_first() -> None:
    assert list(read_json(b'{"a": 1e-9, "b": 2, "a": 3}')[0].items()) == [("a", 3), ("b", 2)]


@pytest.mark.parametrize(("depth", "fault"), [(98, None), (99, None), (100, "nested more than 100 deep")])
def test_depth(depth: int, fault: str | None) -> None:
    for opened, closed in (("[", "]"), ('{"a": ', "}")):
        inner = opened * depth + ("1" if opened != "[" else "") + closed * depth
        assert read_json(f'{{"a": {inner}}}'.encode())[1] == fault
    assert read_json(f'{{"a": "{"{[" * 200}"}}'.encode())[1] is None
