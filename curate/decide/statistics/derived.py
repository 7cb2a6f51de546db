"""Derived columns: SQL over other columns, with statistics such as zscore(x) over many rows.

A statistic covers the rows whose x is finite and that reach the first rule that uses the column (or deduplication, if
no rule uses it). For other rows it is NULL. The summaries of units add up exactly. The rank of a value is the number of
rows in the pool up to this value.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from curate.base import schema
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64, I64, U64, Mask, whole
from curate.base.numeric.quantiles import DIGIT_BITS, order_keys
from curate.decide.statistics.statistic import Statistic
from curate.expressions.check import STATISTICS, check_expression, parse_expression, parse_sql, walk_tree
from curate.expressions.evaluate import compute, connect
from curate.read.columns import score_column
from curate.store.tables import UnitTables

_STATISTIC = "curate_statistic_"  # stands for a statistic in the surrounding expression
_TYPES: dict[str, pa.DataType] = {"BOOLEAN": pa.bool_(), "VARCHAR": pa.string()}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_FLOATS = ("FLOAT", "DOUBLE", "UBIGINT", "HUGEINT", "UHUGEINT")


At = tuple[str, int]  # the position of a statistic: a derived column, and an index in it


class StatisticCall(NamedTuple):
    """A call of a statistic in an expression."""

    function: str
    sql: str  # of x

    @property
    def statistic(self) -> Statistic:
        statistic: Statistic = STATISTICS.find(self.function)
        return statistic


class Derived(NamedTuple):
    """A derived column: an expression over other columns and over statistics, named curate_statistic_0 and so on."""

    name: str
    sql: str
    statistics: tuple[StatisticCall, ...]
    columns: tuple[str, ...]  # that it reads, including derived ones
    kind: pa.DataType


def check_derived(derive: Mapping[str, str], columns: pa.Schema) -> dict[str, Derived]:
    """Return the columns in order, each checked against `columns` and those before it. Raises RecipeError."""
    derived: dict[str, Derived] = {}
    fixed = (*schema.SAMPLES.names, *schema.DECISIONS.names, *schema.SIDES.names)
    used = {name.lower() for name in (*columns.names, *fixed)}
    used |= {f"{name.removesuffix('_score')}score" for name in used if name.endswith("_score")}  # of view `measured`
    for name, sql in derive.items():
        if name in used:
            raise RecipeError(f"derive.{name}: a column {name} already exists; accepted: another name")
        derived[name] = _check(name, sql, columns)
        columns = columns.append(pa.field(name, derived[name].kind))
    return derived


def _check(name: str, sql: str, columns: pa.Schema) -> Derived:
    key = f"derive.{name}"
    tree = parse_expression(f"{key}: {sql!r}", sql, "several columns")
    functions = STATISTICS.kinds()
    statistics: list[StatisticCall] = []
    read: list[str] = []
    for call in [part for part in walk_tree(tree) if _called(part) in functions]:
        function = str(_called(call))
        arguments = [part.get("expression", part) for part in call.get("arguments", call.get("children", []))]
        inner = [part for argument in arguments for part in walk_tree(argument) if _called(part) in functions]
        if len(arguments) != 1 or inner:
            accepted = f"takes one argument, which must not contain {', '.join(functions)}"
            raise RecipeError(f"{key}: {function}() {accepted}")
        argument = _deparse(arguments[0])
        checked = check_expression(key, argument, columns, sql)
        if (kind := checked.kind) == "VARCHAR" or not _arrow_type(kind):
            raise RecipeError(f"{key}: {function}() needs a number; {argument} is {kind}")
        read += checked.columns
        statistic = StatisticCall(function, argument)
        statistics += [statistic] if statistic not in statistics else []
        column = [f"{_STATISTIC}{statistics.index(statistic)}"]
        call.clear()
        call |= {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0, "column_names": column}
    outer = _deparse(tree["statements"][0]["node"]["select_list"][0]) if statistics else sql
    seen = pa.schema([*columns, *(pa.field(f"{_STATISTIC}{i}", pa.float64()) for i in range(len(statistics)))])
    checked = check_expression(key, outer, seen, sql)
    if (arrow_type := _arrow_type(checked.kind)) is None:
        raise RecipeError(f"{key}: {sql!r} is of type {checked.kind}; accepted: numbers, text, and booleans")
    read += [name for name in checked.columns if not name.startswith(_STATISTIC)]
    return Derived(name, outer, tuple(statistics), tuple(dict.fromkeys(read)), arrow_type)


def _called(part: dict[str, Any]) -> str | None:
    return str(part["function_name"]).lower() if part.get("class") == "FUNCTION" else None


def _deparse(expression: dict[str, Any]) -> str:
    tree = parse_sql(connect(), "SELECT 1")
    tree["statements"][0]["node"]["select_list"] = [expression]
    [(text,)] = connect().execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text).removeprefix("SELECT ")


def _arrow_type(kind: str) -> pa.DataType | None:
    if kind in _INTEGERS:
        return pa.int64()
    return pa.float64() if kind in _FLOATS or kind.startswith("DECIMAL") else _TYPES.get(kind)


@dataclass(frozen=True)
class Fitted:
    """A statistic, with its summary of some rows."""

    call: StatisticCall
    summary: Any
    rows: int  # their number
    digits: I64 | None = None  # for ranks: rows by the first digit of their keys, int64[65536]
    ranks: I64 | None = None  # for ranks, in a unit: the number of rows up to each row's value, or −1

    @classmethod
    def of(cls, call: StatisticCall, values: F64) -> Self:
        digits = None
        if call.statistic.of_ranks:
            digits = np.bincount(_digits(rank_keys(values)), minlength=1 << DIGIT_BITS).astype(np.int64)
        return cls(call, call.statistic.fit(values), len(values), digits)

    def __add__(self, other: Self) -> Self:
        digits = None if self.digits is None or other.digits is None else self.digits + other.digits
        return replace(self, summary=self.summary + other.summary, rows=self.rows + other.rows, digits=digits)

    @property
    def parameters(self) -> Mapping[str, float]:
        return self.call.statistic.parameters(self.summary)

    def apply(self, values: F64) -> F64:
        return np.asarray(self.call.statistic.apply(values, {"rows": float(self.rows), **self.parameters}), np.float64)


Fits = Mapping[At, Fitted]


def read_columns(tables: UnitTables, derived: Mapping[str, Derived], fitted: Fits, names: Sequence[str]) -> pa.Table:
    """Return measured and derived columns of a unit; `fitted` are the statistics of the derived ones."""
    needed = needed_columns(derived, names)
    inputs = [column for name in needed for column in derived[name].columns]
    measured = [name for name in dict.fromkeys([*names, *inputs]) if name not in derived]
    table = tables.read_measured(measured or ["row"])
    for name in needed:
        column, seen = derived[name], table
        for i, statistic in enumerate(column.statistics):
            ranks = fitted[name, i].ranks
            values = argument_values(statistic, table) if ranks is None else np.where(ranks < 0, np.nan, ranks)
            values = fitted[name, i].apply(values)
            seen = seen.append_column(f"{_STATISTIC}{i}", pa.array(values, mask=~np.isfinite(values)))
        table = table.append_column(name, score_column(whole(compute(column.sql, column.kind, seen)), column.kind))
    return table


def argument_values(statistic: StatisticCall, table: pa.Table) -> F64:
    """Return x of each row (float64); NaN if it is not finite."""
    values = compute(statistic.sql, pa.float64(), table).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def needed_columns(derived: Mapping[str, Derived], names: Sequence[str]) -> list[str]:
    """Return the derived columns among some columns, and those they depend on, in the order of the recipe."""
    needed = set(names)
    for name in reversed([*derived]):  # columns depend only on earlier ones
        if name in needed:
            needed.update(derived[name].columns)
    return [name for name in derived if name in needed]


def rank_keys(values: F64) -> U64:
    """Return keys (uint64) of finite values, in their order."""
    return order_keys(pa.array(values))[0]


def split_keys(values: F64, reached: Mask) -> Iterator[tuple[int, U64, I64]]:
    """Yield a unit's distinct keys by their first digit, and the number of `reached` rows of each. NaN has no key."""
    has_value = ~np.isnan(values)
    keys, numbers = np.unique(rank_keys(values[has_value]), return_inverse=True)
    counts = np.bincount(numbers[reached[has_value]], minlength=len(keys)).astype(np.int64)
    digits = _digits(keys)
    for digit in np.unique(digits).tolist():
        chosen = slice(*np.searchsorted(digits, [digit, digit + 1]))
        yield digit, keys[chosen], counts[chosen]


def count_up_to(parts: Sequence[tuple[U64, I64]]) -> list[I64]:
    """Return for each part's keys the number of rows in all parts up to that key."""
    keys, numbers = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, numbers, np.concatenate([part for _, part in parts]))
    return np.split(np.cumsum(counts)[numbers], np.cumsum([len(part) for part, _ in parts])[:-1])


def ranks_of(values: F64, up_to: I64) -> I64:
    """Return the rank of each row's value, from the ranks of its `split_keys` in order; −1 without a value."""
    ranks = np.full(len(values), -1, np.int64)
    has_value = ~np.isnan(values)
    ranks[has_value] = up_to[np.unique(rank_keys(values[has_value]), return_inverse=True)[1]]
    return ranks


def _digits(keys: U64) -> I64:
    return (keys >> np.uint64(64 - DIGIT_BITS)).astype(np.int64)
