"""Turn fields in the samples' JSON into columns: find a pool's fields and their types, and read their values.

A column has the type that most of its values have, in the whole pool, kept or not. So all shards have the same columns.
A value with another type is null in the column, and stays in the JSON.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
from pyarrow import types

JsonType = Literal["float", "int", "text", "bool"]
# For each field, the number of values by type (a JsonType or `null`). Lists, objects, and names unfit for columns do
# not count.
FieldCounts = Counter[tuple[str, str]]

TYPES: dict[JsonType, pa.DataType] = {"float": pa.float64(), "int": pa.int64(), "text": pa.string(), "bool": pa.bool_()}
KINDS: dict[type, JsonType] = {float: "float", int: "int", str: "text", bool: "bool"}
MAX_FIELDS = 200  # this many fields become columns: those with the most values
_MAX_NAME = 100  # characters
_DTYPES = {float: "float64", int: "int64", str: "string", bool: "bool"}
_MAX_COUNTED = 100_000  # pairs of name and type; if there are more, only the most frequent ones are still counted
_MAX_NAMES = 10_000  # per object; the fields of a larger object are not counted, and stay in its JSON
_ARROW_KINDS: dict[str, Any] = {"": types.is_nested, "int": types.is_integer, "float": types.is_floating}
_ARROW_KINDS.update(null=types.is_null, bool=types.is_boolean)
_KINDS_OF = {kind: name for name, kind in TYPES.items()}


def _is_column(name: str) -> bool:
    """Return whether a field may become a column: its name is short, printable, and not reserved (`__key__`)."""
    return len(name) <= _MAX_NAME and name.isprintable() and bool(name.strip()) and not name.startswith("__")


class FieldCounter:
    """Counts the values of fields in the objects of one file, in their order."""

    def __init__(self) -> None:
        self._counts: FieldCounts = Counter()

    def add(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items() if len(fields) <= _MAX_NAMES else ():
            key = name, "null" if value is None else KINDS.get(type(value), "")
            if key in self._counts or (key[1] and _is_column(name)):
                self._counts[key] += 1
        if len(self._counts) > _MAX_COUNTED:
            self._counts = self.counts

    @property
    def counts(self) -> FieldCounts:
        """Return the counts for the fields that have the most values."""
        frequent = set(_most_frequent(self._counts)[:MAX_FIELDS])
        return Counter({key: n for key, n in self._counts.items() if key[0] in frequent})


def _most_frequent(counts: FieldCounts) -> list[str]:
    totals: Counter[str] = Counter()
    for (name, _), often in counts.items():
        totals[name] += often
    return sorted(totals, key=lambda name: (-totals[name], name))


def find_field_columns(counts: FieldCounts, reserved: Collection[str]) -> pa.Schema:
    """Return the columns for a pool's fields, by name, except reserved names and names that differ only in case.

    A column has the type of most of the field's values. Numbers are floats if any of them is a float.
    """
    used = {name.lower() for name in reserved}
    columns: dict[str, pa.DataType] = {}
    for name in _most_frequent(counts):
        if name.lower() not in used:
            used.add(name.lower())
            numbers: JsonType = "float" if counts[name, "float"] else "int"
            often: dict[JsonType, int] = {"text": counts[name, "text"]}
            often |= {numbers: counts[name, "float"] + counts[name, "int"], "bool": counts[name, "bool"]}
            columns[name] = TYPES[max(often, key=often.__getitem__)]  # if two types are equally frequent, the first
    return pa.schema([(name, columns[name]) for name in sorted(list(columns)[:MAX_FIELDS])])


def field_values(objects: Sequence[Mapping[str, Any]], columns: pa.Schema) -> list[pa.Array]:
    """Return the values in these columns from `find_field_columns`, for rows with these fields."""
    return [pa.array([as_type(_KINDS_OF[f.type], fields.get(f.name)) for fields in objects], f.type) for f in columns]


def as_type(kind: JsonType, value: Any) -> Any:
    """Return a JSON value in this type; None if it has another type. A whole number is accepted as a float."""
    value_kind = KINDS.get(type(value))
    if kind == "float" and value_kind == "int":
        return float(value) if abs(value) < 2**1000 else None
    if kind == "int" and value_kind == "float" and value.is_integer():
        value, value_kind = int(value), "int"
    if value_kind != kind or (kind == "int" and not -(2**63) <= value < 2**63):
        return None
    return value.encode(errors="replace").decode() if kind == "text" else value  # JSON can contain lone surrogates


def find_dtype(values: Collection[Any]) -> Any:
    """Return the common type of JSON values, as `datasets` writes it: [type] for lists, {name: type} for objects.

    It is `mixed` if no type can represent all values or names, and `json` if only JSON can represent the integers.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {dict}:
        objects = [value for value in values if value is not None]
        few = list(dict.fromkeys(chain.from_iterable(objects)))[: MAX_FIELDS + 1]
        return _typed({name: find_dtype([fields.get(name) for fields in objects]) for name in few})
    if kinds == {list}:
        return merge_dtypes(["null"], [find_dtype(list(chain.from_iterable(filter(None, values))))])
    # Floats cannot represent all of them, and uint64 accepts larger ones
    is_large = int in kinds and any(type(value) is int and abs(value) > 2**53 for value in values)
    dtypes = ["json" if is_large and kind is int else _DTYPES.get(kind, "mixed") for kind in kinds]
    return reduce(merge_dtypes, dtypes, "null")


def merge_dtypes(a: Any, b: Any) -> Any:
    """Return the common type of two types (see `find_dtype`); `mixed` if there is none for some part."""
    if a == b or "null" in (a, b):
        return b if a == "null" else a
    if type(a) is type(b) is dict:
        return _typed({name: merge_dtypes(a.get(name, "null"), b.get(name, "null")) for name in a | b})
    if type(a) is type(b) is list:
        inner = merge_dtypes(a[0], b[0])
        return "mixed" if inner == "mixed" else [inner]
    wider = b if a == "int64" else a
    return wider if "int64" in (a, b) and wider in ("json", "float64") else "mixed"


def _typed(fields: dict[str, Any]) -> Any:
    """Return the type of an object; `mixed` if a field has no type, or if names are too many or unfit for columns."""
    are_columns = len(fields) <= MAX_FIELDS and "".join(fields).isprintable() and "_type" not in fields
    return fields if are_columns and "mixed" not in fields.values() else "mixed"


def count_columns(columns: Iterable[pa.Field], rows: int) -> FieldCounts:
    """Return the counts for a table's columns, by their types in JSON, where dates and decimals are text."""
    counts: FieldCounts = Counter()
    for column in columns:
        kind = next((name for name, test in _ARROW_KINDS.items() if test(column.type)), "text")
        if kind and _is_column(column.name):
            counts[column.name, kind] += rows
    return counts
