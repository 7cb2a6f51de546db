"""Fields of jsons as columns: most values decide the type, and the order of files does not matter."""

import json
import math
from collections import Counter
from functools import reduce

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.read.field_types import (
    MAX_FIELDS,
    FieldCounter,
    count_columns,
    field_values,
    find_dtype,
    find_field_columns,
    merge_dtypes,
)

NAMES = {float: "number", int: "number", str: "text", bool: "bool"}
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(["", "a", "é", "\ud800"]),
    st.just([1]), st.just({"a": 1}),
)  # fmt: skip
objects = st.lists(
    st.dictionaries(st.sampled_from(["a", "A", "b", "url", "__key__", "\n", " ", "\ud800"]), values), max_size=30
)


def count(many):
    counter = FieldCounter()
    for fields in many:
        counter.add(fields)
    return counter.counts


def expected_type(found):
    """By the definition: the most frequent type; on a tie, text, then numbers."""
    kinds = Counter(NAMES[type(value)] for value in found if type(value) in NAMES)
    best = max(("text", "number", "bool"), key=lambda kind: kinds[kind])
    number = pa.float64() if any(type(value) is float for value in found) else pa.int64()
    return {"text": pa.string(), "number": number, "bool": pa.bool_()}[best]


def expected_value(value, kind):
    if kind == pa.string():
        return value.encode(errors="replace").decode() if isinstance(value, str) else None
    if kind == pa.bool_():
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == pa.float64():
        return float(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


@given(objects, st.integers(1, 5))
def test_columns_are_those_of_the_definition(many, files):
    counts = Counter()
    for i in range(files):
        counts.update(count(many[i::files]))
    columns = find_field_columns(counts, ["URL"])
    there = {}
    for fields in many:
        for name, value in fields.items():
            if not isinstance(value, (list, dict)):
                there.setdefault(name, []).append(value)
    names = {name: len(found) for name, found in there.items() if name in ("a", "A", "b")}
    if {"a", "A"} <= names.keys():  # to SQL they are one: that with more values, of equals the first
        names.pop(min(("A", "a"), key=lambda name: (names[name], name != "a")))
    assert columns.names == sorted(names)
    table = field_values(many, columns)
    for field, column in zip(columns, table, strict=True):
        assert field.type == column.type == expected_type(there[field.name])
        wanted = [expected_value(fields.get(field.name), field.type) for fields in many]
        assert repr(column.to_pylist()) == repr(wanted)


def test_a_strangers_names_push_out_no_others():
    many = [{"nsfw": "NO", "license": None}] * 5
    many += [{f"{i:04d}": 1, f"{row}{i}": 2} for row in range(3) for i in range(3000)]
    found = count(many)
    assert len({name for name, _ in found}) == MAX_FIELDS
    columns = find_field_columns(found, [])
    assert len(columns) == MAX_FIELDS and {"nsfw", "license"} <= set(columns.names)
    assert find_field_columns(count([{"x" * 101: 1, "x\0": 1, "": 1}]), []).names == []


def test_columns_of_parquet_count_as_jsons_of_their_values():
    for value in (True, 1, 0.5, "x", None):
        table = pa.table({"a": [value] * 3})
        assert count_columns(table.schema, 3) == count(json.loads(json.dumps(table.to_pylist())))
    assert count_columns(pa.schema([("a", pa.list_(pa.int8())), ("d", pa.date32())]), 2) == {("d", "text"): 2}


def arrow_type(dtype):
    """A type of `find_dtype`, as `datasets` makes it; `json` is for integers of up to 64 bits here."""
    if isinstance(dtype, dict):
        return pa.struct([(name, arrow_type(inner)) for name, inner in dtype.items()])
    if isinstance(dtype, list):
        return pa.list_(arrow_type(dtype[0]))
    return pa.type_for_alias(dtype.replace("json", "uint64"))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.sampled_from(["", "x"]), st.just(2**63)
)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner)
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), nested), min_size=1, max_size=4), st.randoms())
def test_a_type_of_jsons_holds_all_their_values(many, order):
    dtype = find_dtype(many)
    shuffled = order.sample(many, len(many))
    assert find_dtype(shuffled) == reduce(merge_dtypes, ([find_dtype([fields]) for fields in shuffled])) == dtype
    if dtype == "mixed" or "json" in repr(dtype):
        return
    back = pa.array(many, arrow_type(dtype)).to_pylist()
    assert repr(back) == repr([filled(fields, dtype) for fields in many])


def filled(value, dtype):
    """A value with null for each field that is missing, and numbers of one kind."""
    if isinstance(dtype, dict) and value is not None:
        return {name: filled(value.get(name), inner) for name, inner in dtype.items()}
    if isinstance(dtype, list) and value is not None:
        return [filled(item, dtype[0]) for item in value]
    return float(value) if dtype == "float64" and value is not None else value


TYPES = [
    ([{"a": 1}, {"a": 0.5}, {"b": None}], {"a": "float64", "b": "null"}), ([{"a": 2**63}, {"a": 1}], {"a": "json"}),
    ([{"a": [1, None]}, {"a": []}], {"a": ["int64"]}), ([{"a": "1"}, {"a": 1}], "mixed"), ([{"a": [True, 1]}], "mixed"),
    ([{"a": {"x": True}}, {"a": {"y": "z"}}], {"a": {"x": "bool", "y": "string"}}), ([{"a": [{"b": 1}, 1]}], "mixed"),
    ([{"a": 2**53 + 1}, {"a": 0.5}], "mixed"),  # which datasets would not make a float
    ([{"_type": "Value"}], "mixed"),  # which datasets takes for a type
    ([{"a\0": 1}], "mixed"), ([{f"{row}-{i}": 1 for i in range(150)} for row in range(2)], "mixed"),
]  # fmt: skip


def test_types_of_jsons():
    for several, dtype in TYPES:
        assert find_dtype(several) == reduce(merge_dtypes, [find_dtype([fields]) for fields in several]) == dtype


def test_infinities_stay():
    [column] = field_values([{"a": math.inf}, {"a": 2**2000}, {"a": 1}], pa.schema([("a", pa.float64())]))
    assert column.to_pylist() == [math.inf, None, 1.0]


def test_few_names_are_held_at_a_time():
    """60 objects of 400,000 names each, no two alike, took 6 GB; names beyond a limit are not counted."""
    counter = FieldCounter()
    for i in range(30):
        counter.add({f"{i}_{j}": 1 for j in range(10_000)})
        assert len(counter._counts) <= 110_000
    assert count([{f"{j}": 1 for j in range(10_001)}, {"a": 1}]) == {("a", "int"): 1}
