"""Fields of jsons as columns: the types that most values have, whatever the files and their order."""

import json
import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pool.decode.field_types import (
    MAX_FIELDS,
    FieldCounter,
    FieldCounts,
    count_columns,
    field_values,
    find_field_columns,
)

NAMES = {float: "number", int: "number", str: "text", bool: "bool"}
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(["", "a", "é", "\ud800"]),
    st.just([1]), st.just({"a": 1}),
)  # fmt: skip
objects = st.lists(
    st.dictionaries(st.sampled_from(["a", "A", "b", "url", "__key__", "\n", " ", "\ud800"]), values), max_size=30
)


def count(many: list[dict[str, Any]]) -> FieldCounts:
    counter = FieldCounter()
    for fields in many:
        counter.add(fields)
    return counter.counts


def expected_type(found: list[Any]) -> pa.DataType:
    """By the definition: what most values are, of equals text, then numbers."""
    kinds = Counter(NAMES[type(value)] for value in found if type(value) in NAMES)
    best = max(("text", "number", "bool"), key=lambda kind: kinds[kind])
    number = pa.float64() if any(type(value) is float for value in found) else pa.int64()
    return {"text": pa.string(), "number": number, "bool": pa.bool_()}[best]


def expected_value(value: Any, kind: pa.DataType) -> Any:
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
def test_columns_are_those_of_the_definition(many: list[dict[str, Any]], files: int) -> None:
    counts: FieldCounts = Counter()
    for i in range(files):
        counts.update(count(many[i::files]))
    columns = find_field_columns(counts, ["URL"])
    there: dict[str, list[Any]] = {}
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


def test_one_strange_value_changes_no_type() -> None:
    many: list[dict[str, Any]] = [{"similarity": 0.25, "n": 1, "nsfw": "NO", "nothing": None} for _ in range(100)]
    many += [{"similarity": "high", "n": 2.0, "nsfw": 1}]
    columns = find_field_columns(count(many), [])
    assert columns == pa.schema(
        [("n", pa.float64()), ("nothing", pa.string()), ("nsfw", pa.string()), ("similarity", pa.float64())]
    )
    assert [column[100].as_py() for column in field_values(many, columns)] == [2.0, None, None, None]


def test_a_strangers_names_push_out_no_others() -> None:
    many: list[dict[str, Any]] = [{"nsfw": "NO", "license": None}] * 3
    many += [{f"{i:04d}": 1, f"{row}{i}": 2} for row in range(3) for i in range(3000)]
    found = count(many)
    assert len({name for name, _ in found}) == MAX_FIELDS
    columns = find_field_columns(found, [])
    assert len(columns) == MAX_FIELDS and {"nsfw", "license"} <= set(columns.names)
    assert find_field_columns(count([{"x" * 101: 1, "x\0": 1, "": 1}]), []).names == []


@pytest.mark.parametrize("value", [True, 1, 0.5, "x", None])
def test_columns_of_parquet_count_as_jsons_of_their_values(value: Any) -> None:
    table = pa.table({"a": [value] * 3})
    assert count_columns(table.schema, 3) == count(json.loads(json.dumps(table.to_pylist())))
    assert count_columns(pa.schema([("a", pa.list_(pa.int8())), ("d", pa.date32())]), 2) == {("d", "text"): 2}


def test_infinities_stay() -> None:
    [column] = field_values([{"a": math.inf}, {"a": 2**2000}, {"a": 1}], pa.schema([("a", pa.float64())]))
    assert column.to_pylist() == [math.inf, None, 1.0]
