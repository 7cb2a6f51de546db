"""Checks SQL expressions in a recipe against the available columns, before anything runs.

An expression must be scalar and deterministic. Subqueries, aggregates, windows, parameters, functions such as random()
or now(), and unknown columns are refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

import duckdb
import pyarrow as pa

from curate.base.errors import RecipeError, UnknownColumn
from curate.base.process import memory_limited
from curate.base.registry import Registry
from curate.base.wording import did_you_mean, one_line
from curate.expressions.evaluate import connect, query, query_type

_STATISTICS = ".decide.statistics"
STATISTICS = Registry[Any](
    "statistic", f"{_STATISTICS}.registry:KINDS", "curate.statistics", f"{_STATISTICS}.statistic:Statistic"
)
"""Functions for derived columns that need the values of many rows."""
_CLAUSES = ("where_clause", "having", "sample", "qualify", "group_expressions", "group_sets")
_SHOWN, _MAX_DEPTH = 1000, 500  # maximum characters of an expression in messages, and maximum depth of parentheses
_MEMORY, _ROWS = 1 << 28, 2048  # maximum bytes for this number of rows, which is a vector in DuckDB
_TRIED = ((1, _ROWS), (100, _ROWS), (10_000, 100))  # numbers to try, each with a number of rows
_REFUSED = ("SUBQUERY", "WINDOW", "PARAMETER", "STAR", "DEFAULT", "POSITIONAL_REFERENCE")


@dataclass(frozen=True)
class CheckedExpression:
    """A checked expression: its SQL, its columns, and its SQL type."""

    sql: str
    columns: tuple[str, ...]
    kind: str


def is_too_deep(sql: str) -> bool:
    """Return whether parentheses are nested so deeply that DuckDB's parser would take minutes or gigabytes."""
    depths = accumulate((mark == "(") - (mark == ")") for mark in sql)
    return sql.count("(") > _MAX_DEPTH and max(depths) > _MAX_DEPTH


def parse_sql(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Return how DuckDB parses statements. Raises RecursionError if they are nested too deeply."""
    if is_too_deep(sql):
        raise RecursionError
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree: dict[str, Any] = json.loads(text)
    return tree


def parse_expression(where: str, sql: str, accepted: str) -> dict[str, Any]:
    """Return how DuckDB parses the statement `SELECT (sql)`. Raises RecipeError, which begins with `where`."""
    try:
        tree = parse_sql(connect(), f"SELECT ({sql}\n)")
    except RecursionError:
        raise RecipeError(f"{where[:200]}… is nested too deeply; accepted: {accepted}") from None
    if tree["error"]:
        raise RecipeError(f"{where} is not a SQL expression: {tree['error_message']}")
    return tree


def walk_tree(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a parse tree, including the tree itself, in the order of the text."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
        waiting += reversed([*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else [])


def check_count(key: str, sql: str, columns: pa.Schema) -> CheckedExpression:
    """Return a checked expression for a number of repeats, which must be an integer. Raises as `check_expression`."""
    checked = check_expression(key, sql, columns)
    if not checked.kind.endswith("INT") and checked.kind != "INTEGER":
        accepted = "an integer, such as CASE WHEN words < 10 THEN 4 ELSE 1 END"
        raise RecipeError(f"{key}: {sql!r} is of type {checked.kind}; accepted: {accepted}")
    return checked


@lru_cache(8192)  # a run checks each expression twice, and a sweep checks it for every setting
def check_expression(key: str, sql: str, columns: pa.Schema, shown: str = "") -> CheckedExpression:
    """Return an expression, checked against the available columns. Messages show `shown`. Raises RecipeError."""
    where = f"{key}: {shown or sql!r}"
    where = where if len(where) <= _SHOWN else f"{where[:_SHOWN]}…"
    tree = parse_expression(where, sql, "several rules, or fewer operators")
    node = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    plain = node.get("type") == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY" and not node["modifiers"]
    has_clauses = any(node.get(clause) for clause in _CLAUSES) or node.get("cte_map", {}).get("map")
    if not plain or len(node["select_list"]) != 1 or node["select_list"][0]["alias"] or has_clauses:
        raise RecipeError(f"{where} is not one SQL expression")
    parts = [part for part in walk_tree(node["select_list"][0]) if "class" in part]
    used = _check_parts(key, where, parts, columns)
    read = pa.schema([columns.field(name) for name in used or columns.names[:1]])
    try:
        with memory_limited(_MEMORY):  # a constant alone may need more, such as range(1000000000)
            kind = _find_type(sql, read, any(part["class"] == "CAST" for part in parts))
            values = [_values(read, "word " * 20, number, rows) for number, rows in _TRIED]
            query(f"SELECT count(TRY(({sql}\n))) FROM batch", pa.concat_tables(values))
    except (duckdb.OutOfMemoryException, MemoryError):
        error = f"takes over {_MEMORY >> 20} MiB for {_ROWS:,} rows"
        raise RecipeError(f"{where}: {error}; accepted: shorter lists and texts") from None
    except duckdb.Error as error:
        raise RecipeError(f"{where}: {one_line(error)}") from None
    return CheckedExpression(sql, used, kind)


def find_column(key: str, name: str, columns: pa.Schema, quoted: str = "") -> str:
    """Return the name of a column, whose case may differ. Raises UnknownColumn; `quoted`: it was in double quotes."""
    by_lower: dict[str, str] = {column.lower(): column for column in columns.names}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    hint = f"if it is text, write it in single quotes: '{quoted}'; " if quoted else did_you_mean(name, columns.names)
    if set("()*/+") & set(name):
        hint = f"to use an expression, name it under derive: {{mean: {name!r}}}, and write mean; "
    raise UnknownColumn(f"{key}: no column {name!r}; {hint}columns: {', '.join(columns.names)}", name)


def _check_parts(key: str, where: str, parts: list[dict[str, Any]], columns: pa.Schema) -> tuple[str, ...]:
    """Return the columns that an expression uses. Raises RecipeError if a part of it is not accepted."""
    lambdas = [ref for part in parts if part["class"] == "LAMBDA" for ref in walk_tree(part["lhs"])]
    parameters = {ref["column_names"][-1] for ref in lambdas if "column_names" in ref} - set(columns.names)
    names = (part["column_names"][-1] for part in parts if part["class"] == "COLUMN_REF")
    quoted = next((name for name in names if f'"{name}"' in where and name not in columns.names), "")
    used = []
    for part in parts:
        kind = part["class"]
        if kind == "COLUMN_REF" and part["column_names"][-1] not in parameters:
            used.append(find_column(key, part["column_names"][-1], columns, quoted))
        elif kind == "FUNCTION":
            arguments = len(part.get("arguments", part.get("children", [])))
            _check_function(key, where, part["function_name"].lower(), arguments)
        elif kind in _REFUSED:
            refused = f"a {kind.lower().replace('_', ' ')} is not accepted"
            raise RecipeError(f"{where}: {refused}; a rule is a scalar expression over one row")
    return tuple(dict.fromkeys(used))


def _values(columns: pa.Schema, text: str | None, number: int | None, rows: int) -> pa.Table:
    """Return equal rows for a trial: a text in all text columns, a number in numeric columns, null in others."""

    def value(kind: Any) -> Any:
        item: Any = text if pa.types.is_string(kind) or pa.types.is_large_string(kind) else number
        try:
            return pa.repeat(pa.scalar(item), rows).cast(kind, safe=False)
        except pa.ArrowException:  # a list, a date …: DuckDB does not cast these implicitly
            return pa.nulls(rows, kind)

    return pa.table({f.name: value(f.type) for f in columns})


def _find_type(sql: str, columns: pa.Schema, has_cast: bool) -> str:
    """Return the SQL type of an expression. It is tried on a row of nulls and, if it has no cast, on rows with values.

    Raises duckdb.Error if it cannot be bound, or if a constant or a column has a type that is wrong in every pool.
    """
    nulls = _values(columns, None, None, 1)
    if not has_cast:
        try:
            return query_type(sql, pa.concat_tables([nulls, _values(columns, "a", 1, 1)]))
        except (duckdb.ConversionException, duckdb.OutOfMemoryException):
            raise
        except duckdb.Error:  # perhaps only because of the value, such as the logarithm of 0
            pass
    return query_type(sql, nulls)


def _check_function(key: str, where: str, name: str, arguments: int) -> None:
    kind = "a rule" if key.startswith("rules.") else key
    if reason := STATISTICS.broken.get(name):
        raise RecipeError(f"{where}: {reason}")
    if name in STATISTICS.kinds():
        remedy = f"name its result, as in derive: {{place: {name}(COLUMN)}}, and write place instead"
        raise RecipeError(f"{where}: {kind} reads one row, but {name}() needs many rows; {remedy}")
    aggregate, consistent, macro, clock = _describe_function(name)
    if aggregate:
        hint = "; to keep the best fraction, use {top: f, of: column}" if kind == "a rule" else ""
        raise RecipeError(f"{where}: {name}() is an aggregate, but {kind} reads one row{hint}")
    if clock or (aggregate is not None and not consistent and not macro) or (name == "age" and arguments == 1):
        raise RecipeError(f"{where}: {name}() may differ from call to call; {kind} must be deterministic")


@cache
def _describe_function(name: str) -> tuple[bool | None, ...]:
    """Return whether a function is an aggregate (None: unknown), deterministic, a macro, and about time."""
    sql = (
        "SELECT bool_or(function_type = 'aggregate'), bool_or(stability = 'CONSISTENT'), "
        "bool_or(function_type = 'macro'), bool_or(macro_definition LIKE '%current_timestamp%') "
        "FROM duckdb_functions() WHERE function_name = ?"
    )
    [row] = connect().execute(sql, [name]).fetchall()
    return tuple(row)
