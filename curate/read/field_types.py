"""Fields of the json of samples as columns: which there are in a pool, of what types, and their values in some rows.

A column has the kind of most of its values in the whole pool, whatever is kept of it, so that all shards have the same
columns. A value of another kind is null there, and stays in the json.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import Any, Literal

import pyarrow as pa
from pyarrow import types

JsonType = Literal["float", "int", "text", "bool"]
# How many values a field has of a kind: a JsonType or `null`; not of lists, objects and names that can be no columns.
FieldCounts = Counter[tuple[str, str]]

TYPES: dict[JsonType, pa.DataType] = {"float": pa.float64(), "int": pa.int64(), "text": pa.string(), "bool": pa.bool_()}
KINDS: dict[type, JsonType] = {float: "float", int: "int", str: "text", bool: "bool"}
MAX_FIELDS = 200  # those with the most values become columns
_MAX_NAME = 100  # characters
_DTYPES = {float: "float64", int: "int64", str: "string", bool: "bool"}
_MAX_COUNTED = 100_000  # names and kinds, of which the most frequent are counted on
_MAX_NAMES = 10_000  # of an object: of a larger one none is counted, and all stay in its json
_ARROW_KINDS: dict[str, Any] = {"": types.is_nested, "int": types.is_integer, "float": types.is_floating}
_ARROW_KINDS.update(null=types.is_null, bool=types.is_boolean)
_KINDS_OF = {kind: name for name, kind in TYPES.items()}


def _is_column(name: str) -> bool:
    """Return whether a field may be a column: its name is short, can be shown, and is no reader's own (`__key__`)."""
    return len(name) <= _MAX_NAME and name.isprintable() and bool(name.strip()) and not name.startswith("__")


class FieldCounter:
    """Counts the values of fields, object by object: those of one file, in order."""

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
        """Return the counts of the fields with the most values."""
        frequent = set(_most_frequent(self._counts)[:MAX_FIELDS])
        return Counter({key: n for key, n in self._counts.items() if key[0] in frequent})


def _most_frequent(counts: FieldCounts) -> list[str]:
    totals: Counter[str] = Counter()
    for (name, _), often in counts.items():
        totals[name] += often
    return sorted(totals, key=lambda name: (-totals[name], name))


def find_field_columns(counts: FieldCounts, reserved: Collection[str]) -> pa.Schema:
    """Return the columns of a pool's fields, by name; none whose name, but for case, is reserved or that of another.

    A column has the kind that most values of its field have; a number is a float where one is.
    """
    used = {name.lower() for name in reserved}
    columns: dict[str, pa.DataType] = {}
    for name in _most_frequent(counts):
        if name.lower() not in used:
            used.add(name.lower())
            numbers: JsonType = "float" if counts[name, "float"] else "int"
            often: dict[JsonType, int] = {"text": counts[name, "text"]}
            often |= {numbers: counts[name, "float"] + counts[name, "int"], "bool": counts[name, "bool"]}
            columns[name] = TYPES[max(often, key=often.__getitem__)]  # the first of equals
    return pa.schema([(name, columns[name]) for name in sorted(list(columns)[:MAX_FIELDS])])


def field_values(objects: Sequence[Mapping[str, Any]], columns: pa.Schema) -> list[pa.Array]:
    """Return the values of these columns, of those of `find_field_columns`, in the fields of some rows."""
    return [pa.array([as_type(_KINDS_OF[f.type], fields.get(f.name)) for fields in objects], f.type) for f in columns]


def as_type(kind: JsonType, value: Any) -> Any:
    """Return a value of a json as this type; None of another type. Whole numbers are of both kinds of numbers."""
    value_kind = KINDS.get(type(value))
    if kind == "float" and value_kind == "int":
        return float(value) if abs(value) < 2**1000 else None
    if kind == "int" and value_kind == "float" and value.is_integer():
        value, value_kind = int(value), "int"
    if value_kind != kind or (kind == "int" and not -(2**63) <= value < 2**63):
        return None
    return value.encode(errors="replace").decode() if kind == "text" else value  # lone surrogates, which JSON can spell


def find_dtype(values: Collection[Any]) -> Any:
    """Return the one type of values of jsons, as `datasets` names it; of lists [type], of objects {name: type}.

    It is `mixed` where values or names are such that no type keeps all of them; `json` keeps integers alone.
    """
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {dict}:
        objects = [value for value in values if value is not None]
        few = list(dict.fromkeys(chain.from_iterable(objects)))[: MAX_FIELDS + 1]
        return _typed({name: find_dtype([fields.get(name) for fields in objects]) for name in few})
    if kinds == {list}:
        return merge_dtypes(["null"], [find_dtype(list(chain.from_iterable(filter(None, values))))])
    # Floats skip some, and uint64 has more
    is_large = int in kinds and any(type(value) is int and abs(value) > 2**53 for value in values)
    dtypes = ["json" if is_large and kind is int else _DTYPES.get(kind, "mixed") for kind in kinds]
    return reduce(merge_dtypes, dtypes, "null")


def merge_dtypes(a: Any, b: Any) -> Any:
    """Return the type that values of both types have (see `find_dtype`); `mixed` where a part has none."""
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
    """Return the type of an object; `mixed` where a field has none, or names are too many or no columns."""
    are_columns = len(fields) <= MAX_FIELDS and "".join(fields).isprintable() and "_type" not in fields
    return fields if are_columns and "mixed" not in fields.values() else "mixed"


def count_columns(columns: Iterable[pa.Field], rows: int) -> FieldCounts:
    """Return the counts of a table's columns, as they would be written in jsons: dates and decimals as text."""
    counts: FieldCounts = Counter()
    for column in columns:
        kind = next((name for name, test in _ARROW_KINDS.items() if test(column.type)), "text")
        if kind and _is_column(column.name):
            counts[column.name, kind] += rows
    return counts
