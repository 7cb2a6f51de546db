"""The .json of samples: read and written like Python's json does; fields are put into it without other changes."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base.wording import one_line
from curate.read.json_fields import json_bytes, put_fields, read_json

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


def json_by_python(fields):
    """One line, as json writes it; null for NaN and infinities; in ASCII where it holds one, or a lone surrogate."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(json.loads(json.dumps(fields), parse_constant=lambda _: None)).encode()


def fields_by_python(raw):
    try:
        fields = json.loads(raw)
    except ValueError as error:
        return {}, one_line(error, 200)
    return (fields, None) if isinstance(fields, dict) else ({}, f"a JSON {type(fields).__name__}, not an object")


@pytest.mark.thorough
@given(objects)
@example({"large": [2**64], "small": [{"x": 1e-5}], "nan": [math.nan]})
def test_written_as_python_writes_it(fields):
    assert json_bytes(fields) == json_by_python(fields)


@pytest.mark.thorough
@settings(max_examples=60)
@given(objects, st.booleans(), st.sampled_from([None, 0, 4]), st.sampled_from([(",", ":"), (" ,\t", "\r: ")]))
def test_read_as_python_reads_it(fields, ascii_only, indent, separators):
    text = json.dumps(fields, ensure_ascii=ascii_only, indent=indent, separators=separators)
    raw = text.encode("utf-8", "surrogatepass")
    assert repr(read_json(raw)) == repr(fields_by_python(raw))


@pytest.mark.thorough
@settings(max_examples=50)
@given(st.lists(tokens, max_size=3), st.lists(tokens, max_size=3))
@example([], ["-0", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e400"])
@example([], ["9223372036854774784.0", "1e-400", "-0.0"])
def test_numbers_are_read_as_python_reads_them(inside, beside):
    members = [f'"{i}": {token}' for i, token in enumerate([f"[{', '.join(inside)}]", *beside])]
    raw = f"{{{', '.join(members)}}}".encode()
    assert repr(read_json(raw)) == repr(fields_by_python(raw))


@pytest.mark.thorough
@settings(max_examples=60)
@given(objects, st.data())
def test_damaged_ones_are_judged_as_python_judges_them(fields, data):
    raw = bytearray(json.dumps(fields).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"{", b"}", b"[", b",", b'"', b"\\", b"0", b"-", b".", b"e", b"NaN", b"\0", b"\xff"])
        )
    assert repr(read_json(bytes(raw))) == repr(fields_by_python(bytes(raw)))


def test_other_encodings_and_repeated_names():
    for encoding in ("utf-8-sig", "utf-16", "utf-32-be"):
        assert read_json('{"caption": "é"}'.encode(encoding)) == ({"caption": "é"}, None)
    assert list(read_json(b'{"a": 1e-9, "b": 2, "a": 3}')[0].items()) == [("a", 3), ("b", 2)]


@pytest.mark.parametrize(("depth", "fault"), [(98, None), (99, None), (100, "nested more than 100 deep")])
def test_depth(depth, fault):
    for opened, closed in (("[", "]"), ('{"a": ', "}")):
        inner = opened * depth + ("1" if opened != "[" else "") + closed * depth
        assert read_json(f'{{"a": {inner}}}'.encode())[1] == fault
    assert read_json(f'{{"a": "{"{[" * 200}"}}'.encode())[1] is None


# ---------------------------------------------------------------- fields that are put into a text
NAMES = ("uid", "sha256", "captions", "words", "é", "a b")
spaces = st.sampled_from(["", "", " ", "\n    ", "\t", "\r\n "])
escape = lambda name: "".join(f"\\u{ord(c):04x}" for c in name)  # noqa: E731
spellings = st.sampled_from([s for n in NAMES for s in (n, n, escape(n), f"\\u{ord(n[0]):04X}{n[1:]}")])
keys = st.one_of(spellings, st.sampled_from(["z", "", "UID", "uid ", '\\"uid', 'uid\\"', "\\ud800", "写", "\\/", "}"]))
literals = st.sampled_from(
    [
        "null", "NaN", "-Infinity", "1e400", "1E5", "-0", "0.10", "9" * 400, "2.50e-7", "true", "[]", "{}", '""',
        '"\\u00e9\\/\\\\"', '"é\\ud800 }"', '"{\\"uid\\": 1}"', '"x\\"uid"', '"uid"', '"sha256"', '["uid", "sha256"]',
        '{"uid": "x", "sha256": {"sha256": []}}', '{ "uid" :NaN , "uid":1}', '"ab"', '"\\u0061b"', '"\\\\u0075"',
    ]
)  # fmt: skip
members = st.tuples(spaces, keys, spaces, spaces, literals, spaces)
put = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(st.sampled_from(["ab", "f" * 64, None, 7, 0.5, math.inf, {"original": "é", "uid": []}]), texts),
    min_size=1,
)


def build(members, values, added, around):
    """The text of an object, with other values where there are some, and more fields right behind its last value, or its brace."""
    parts, last = [], ""
    for before, key, after, between, literal, last in members:
        name = json.loads(f'"{key}"')
        value = json_bytes(values[name]).decode() if name in values else literal
        parts.append(f'{before}"{key}"{after}:{between}{value}{last}')
    if added:
        inside = ",".join(parts).removesuffix(last)
        more = ", ".join(f"{json_bytes(name).decode()}: {json_bytes(value).decode()}" for name, value in added.items())
        return f"{around[0]}{{{inside}{', ' if parts else ''}{more}{last}}}{around[1]}"
    return f"{around[0]}{{{','.join(parts)}}}{around[1]}"


@settings(max_examples=150)
@given(st.lists(members, max_size=6), put, st.tuples(spaces, spaces), st.sampled_from(["utf-8", "utf-8-sig"]))
@example(
    [("", "\\u0075id", "", " ", '"x"', ""), (" ", "n", "", "", '{"uid": "x"}', "")], {"uid": "ab"}, ("", ""), "utf-8"
)
@example([("", "uid", "", " ", '"x"', ""), (" ", "uid", "", " ", "null", "")], {"uid": "ab"}, ("", ""), "utf-8")
@example([("", "n", "", " ", '{"uid": 1}', ""), ("", "uid", "", "", '"y"', "")], {"uid": "ab"}, ("", ""), "utf-8")
def test_no_other_byte_changes(members, values, around, encoding):
    """The oracle is the text put together from the pieces that it is made of."""
    raw = build(members, {}, {}, around).encode(encoding, "surrogatepass")
    fields, fault = read_json(raw)
    assert fault is None
    same = {name for name, value in values.items() if isinstance(value, str) and fields.get(name) == value}
    replaced = {name: value for name, value in values.items() if name in fields and name not in same}
    added = {name: value for name, value in values.items() if name not in fields}
    found = put_fields(raw, fields, {name: json_bytes(value) for name, value in values.items()})
    assert found == build(members, replaced, added, around).encode(encoding, "surrogatepass")
    again, fault = read_json(found)
    expected = fields | {name: json.loads(json_bytes(value)) for name, value in values.items()}
    assert fault is None and repr(again) == repr(expected)


def test_what_is_written_anew():
    """What is no UTF-8 text of an object, or has fields that JSON lacks."""
    assert put_fields(b"", {"x": math.nan}, {"uid": b'"u"'}) == b'{"x": null, "uid": "u"}'
    assert put_fields('{"x":1}'.encode("utf-16"), {"x": 1}, {"uid": b'"u"'}) == b'{"x": 1, "uid": "u"}'
