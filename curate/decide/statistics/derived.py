"""Columns that a recipe derives: SQL over other columns, in which zscore(x), minmax(x) and quantile(x) look at many rows.

They look at the rows that reach the first rule that uses the column, or else deduplication, and whose x is a finite number; where
it is not, they are NULL. Summaries of units add up exactly, in any order: sums of integers (see `curate.decide.statistics.exact_sums`), the
least and the greatest value, counts. Formulas, over those rows (the definitions of scikit-learn's scalers, and SQL's cume_dist):

    zscore(x)    (x − mean) / standard deviation, that of the population; 0 where all are equal
    minmax(x)    (x − least) / (greatest − least); 0 where all are equal
    quantile(x)  the share of rows with at most this value
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.base.numeric.quantiles import DIGIT_BITS, order_keys
from curate.decide.statistics.exact_sums import ExactSums
from curate.expressions.check import FUNCTIONS, QUANTILE, check_expression, parse_sql, walk_tree
from curate.expressions.evaluate import compute, connect
from curate.store.tables import UnitTables

_STATISTIC = "curate_statistic_"  # what stands for a statistic in the expression around it
_TYPES = {"BOOLEAN": pa.bool_(), "VARCHAR": pa.string()}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_FLOATS = ("FLOAT", "DOUBLE", "UBIGINT", "HUGEINT", "UHUGEINT")


@dataclass(frozen=True)
class Statistic:
    """One of FUNCTIONS, of an expression."""

    function: str
    sql: str


@dataclass(frozen=True)
class Derived:
    """A column: an expression over others and over statistics, which it calls curate_statistic_0 and so on."""

    name: str
    sql: str
    statistics: tuple[Statistic, ...]
    columns: tuple[str, ...]  # that it reads, derived ones included
    kind: pa.DataType


def check_derived(derive: Mapping[str, str], columns: pa.Schema) -> dict[str, Derived]:
    """Return the columns in order, each checked against `columns` and those before it. Raises RecipeError."""
    found: dict[str, Derived] = {}
    fixed = (*schema.SAMPLES.names, *schema.DECISIONS.names, *schema.SIDES.names)
    taken = {name.lower() for name in (*columns.names, *fixed)}
    taken |= {
        f"{name.removesuffix('_score')}score" for name in taken if name.endswith("_score")
    }  # view `measured` has them
    for name, sql in derive.items():
        if name in taken:
            raise RecipeError(f"derive.{name}: there is a column {name} already; accepted: another name")
        found[name] = _check(name, sql, columns)
        columns = columns.append(pa.field(name, found[name].kind))
    return found


def _check(name: str, sql: str, columns: pa.Schema) -> Derived:
    key = f"derive.{name}"
    try:
        tree = parse_sql(connect(), f"SELECT ({sql}\n)")
    except RecursionError:
        raise RecipeError(f"{key}: {sql[:200]!r}… is nested too deeply; accepted: several columns") from None
    if tree["error"]:
        raise RecipeError(f"{key}: {sql!r} is not a SQL expression: {tree['error_message']}")
    statistics: list[Statistic] = []
    read: list[str] = []
    for call in [part for part in walk_tree(tree) if _called(part) in FUNCTIONS]:
        arguments = [
            argument.get("expression", argument) for argument in call.get("arguments", call.get("children", []))
        ]
        inner = [part for argument in arguments for part in walk_tree(argument) if _called(part) in FUNCTIONS]
        if len(arguments) != 1 or inner:
            raise RecipeError(
                f"{key}: {_called(call)}() takes one argument, which must not contain {', '.join(FUNCTIONS)}"
            )
        argument = _deparse(arguments[0])
        checked = check_expression(key, argument, columns, repr(sql))
        if (kind := checked.kind) == "VARCHAR" or not (_arrow_type(kind)):
            raise RecipeError(f"{key}: {_called(call)}() needs a number; {argument} is {kind}")
        read += checked.columns
        statistic = Statistic(str(_called(call)), argument)
        statistics += [statistic] if statistic not in statistics else []
        stands = f"{_STATISTIC}{statistics.index(statistic)}"
        call.clear()
        call |= {
            "class": "COLUMN_REF",
            "type": "COLUMN_REF",
            "alias": "",
            "query_location": 0,
            "column_names": [stands],
        }
    outer = _deparse(tree["statements"][0]["node"]["select_list"][0]) if statistics else sql
    seen = pa.schema([*columns, *(pa.field(f"{_STATISTIC}{i}", pa.float64()) for i in range(len(statistics)))])
    checked = check_expression(key, outer, seen, repr(sql))
    if (made := _arrow_type(checked.kind)) is None:
        raise RecipeError(f"{key}: {sql!r} is of type {checked.kind}; accepted: numbers, text and booleans")
    read += [column for column in checked.columns if not column.startswith(_STATISTIC)]
    return Derived(name, outer, tuple(statistics), tuple(dict.fromkeys(read)), made)


def _called(part: dict[str, Any]) -> str | None:
    return str(part["function_name"]).lower() if part.get("class") == "FUNCTION" else None


def _deparse(expression: dict[str, Any]) -> str:
    """Return a parsed expression as SQL."""
    tree = parse_sql(connect(), "SELECT 1")
    tree["statements"][0]["node"]["select_list"] = [expression]
    [(text,)] = connect().execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text).removeprefix("SELECT ")


def _arrow_type(kind: str) -> pa.DataType | None:
    if kind in _INTEGERS:
        return pa.int64()
    return pa.float64() if kind in _FLOATS or kind.startswith("DECIMAL") else _TYPES.get(kind)


# ---- statistics


@dataclass(frozen=True)
class Scale:
    """A statistic as it was found: it is (x − shift) / width; of `quantile`, x is a row's rank."""

    function: str
    sql: str  # of x
    rows: int  # that it looked at
    shift: float = 0.0
    width: float = 0.0
    greatest: float = 0.0  # of `minmax`, for run.json

    def apply(self, values: F64) -> F64:
        """Return it for some values; NaN stays."""
        return (values - self.shift) / self.width if self.width else np.where(np.isnan(values), np.nan, 0.0)

    @property
    def parameters(self) -> dict[str, float]:
        """Return what it is computed by, by its names in run.json."""
        if self.function == "zscore":
            return {"mean": self.shift, "standard_deviation": self.width}
        return {"least": self.shift, "greatest": self.greatest} if self.function == "minmax" else {}


@dataclass(frozen=True)
class Moments:
    """What `zscore` needs of a part."""

    sums: ExactSums

    def __add__(self, other: Self) -> Self:
        """Return that of both parts."""
        return type(self)(self.sums + other.sums)

    def scale(self, statistic: Statistic) -> Scale:
        """Return the statistic, of all parts."""
        shift, width = (self.sums.mean, self.sums.standard_deviation) if self.sums.rows else (0.0, 0.0)
        return Scale(statistic.function, statistic.sql, self.sums.rows, shift, width)


@dataclass(frozen=True)
class Extent:
    """What `minmax` needs of a part."""

    rows: int
    least: float
    greatest: float

    def __add__(self, other: Self) -> Self:
        """Return that of both parts."""
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        return type(self)(self.rows + other.rows, least, greatest)

    def scale(self, statistic: Statistic) -> Scale:
        """Return the statistic, of all parts."""
        shift, width = (self.least, self.greatest - self.least) if self.rows else (0.0, 0.0)
        return Scale(statistic.function, statistic.sql, self.rows, shift, width, self.greatest if self.rows else 0.0)


@dataclass(frozen=True)
class Digits:
    """What `quantile` needs of a part: its rows by the first digit of their keys (int64[65536])."""

    counts: I64

    def __add__(self, other: Self) -> Self:
        """Return that of both parts."""
        return type(self)(self.counts + other.counts)

    def scale(self, statistic: Statistic) -> Scale:
        """Return the statistic, of all parts."""
        rows = int(self.counts.sum())
        return Scale(statistic.function, statistic.sql, rows, 0.0, float(rows))

    @property
    def below(self) -> I64:
        """The rows with a smaller digit than each (int64[65536])."""
        return np.cumsum(self.counts) - self.counts


Summary = Moments | Extent | Digits


def summarise(function: str, values: F64) -> Summary:
    """Return what a function needs of a part's values, which are finite."""
    if function == "zscore":
        return Moments(ExactSums.of(values))
    if function == "minmax":
        return Extent(len(values), float(np.min(values, initial=np.inf)), float(np.max(values, initial=-np.inf)))
    return Digits(np.bincount(_digits(rank_keys(values)), minlength=1 << DIGIT_BITS).astype(np.int64))


@dataclass(frozen=True)
class DerivedValues:
    """What a unit knows of a column with statistics."""

    scales: tuple[Scale, ...]
    ranks: Mapping[int, I64] = field(
        default_factory=dict
    )  # of quantiles by their place: of each row the rows with at most its value, or −1


def read_columns(
    tables: UnitTables, derived: Mapping[str, Derived], known: Mapping[str, DerivedValues], names: Sequence[str]
) -> pa.Table:
    """Return columns of a unit, measured and derived ones; `known` are those with statistics, as far as they are used."""
    needed = needed_columns(derived, names)
    read = dict.fromkeys(
        c for c in (*names, *(c for name in needed for c in derived[name].columns)) if c not in derived
    )
    table = tables.read_measured(list(read) or ["row"])
    for name in needed:
        column, seen = derived[name], table
        for place, statistic in enumerate(column.statistics):
            values = known[name].scales[place].apply(_before_scale(statistic, place, known[name], table))
            seen = seen.append_column(f"{_STATISTIC}{place}", pa.array(values, mask=np.isnan(values)))
        table = table.append_column(name, compute(column.sql, column.kind, seen))
    return table


def _before_scale(statistic: Statistic, place: int, known: DerivedValues, table: pa.Table) -> F64:
    if statistic.function != QUANTILE:
        return argument_values(statistic, table)
    ranks = known.ranks[place].astype(np.float64)
    return np.where(ranks < 0, np.nan, ranks)


def argument_values(statistic: Statistic, table: pa.Table) -> F64:
    """Return x of each row (float64); NaN where it is no finite number."""
    values = pc.fill_null(compute(statistic.sql, pa.float64(), table), np.nan).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def needed_columns(derived: Mapping[str, Derived], names: Sequence[str]) -> list[str]:
    """Return the derived columns among some, and those that they are made of, in the order of the recipe."""
    needed: set[str] = set()
    waiting = [name for name in names if name in derived]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += [column for column in derived[name].columns if column in derived and column not in needed]
    return [name for name in derived if name in needed]


# ---- ranks: of each value of a pool, the rows with at most this value


def rank_keys(values: F64) -> U64:
    """Return keys (uint64) of finite values, in their order."""
    return order_keys(pa.array(values))[0]


def split_keys(values: F64, reached: Mask) -> Iterator[tuple[int, U64, I64]]:
    """Yield, by the first digit of their keys, a unit's distinct keys, and how many rows of each reached the column.

    `values` (float64[rows]) are NaN where there is none.
    """
    keys, counts = distinct_keys(values, reached)
    digits = _digits(keys)
    for digit in np.unique(digits).tolist():
        chosen = slice(*np.searchsorted(digits, [digit, digit + 1]))
        yield digit, keys[chosen], counts[chosen]


def distinct_keys(values: F64, reached: Mask) -> tuple[U64, I64]:
    """Return the distinct keys of a unit's values, ascending, and how many rows of each reached the column (int64)."""
    known = ~np.isnan(values)
    keys, places = np.unique(rank_keys(values[known]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, reached[known].astype(np.int64))
    return keys, counts


def count_up_to(parts: Sequence[tuple[U64, I64]]) -> list[I64]:
    """Return, of each part's keys, how many rows of all parts have at most that key."""
    keys, places = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, np.concatenate([part for _, part in parts]))
    up_to = np.cumsum(counts)[places]
    return np.split(up_to, np.cumsum([len(part) for part, _ in parts])[:-1])


def ranks_of(values: F64, up_to: I64) -> I64:
    """Return of each row the rows with at most its value; −1 where it has none. `up_to` are of `distinct_keys`, in order."""
    ranks = np.full(len(values), -1, np.int64)
    known = ~np.isnan(values)
    ranks[known] = up_to[np.unique(rank_keys(values[known]), return_inverse=True)[1]]
    return ranks


def _digits(keys: U64) -> I64:
    return (keys >> np.uint64(64 - DIGIT_BITS)).astype(np.int64)
