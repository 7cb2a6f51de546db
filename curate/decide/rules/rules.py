"""Rules: SQL expressions over the measured columns, in order; a row is dropped by the first rule that it fails.

A rule must be a scalar, deterministic, boolean expression: subqueries, aggregates, windows, parameters and functions such
as random() or now() are refused before the run, and so is a column that is not measured. NULL fails; an error on one
row's value (a cast, say) is NULL. Rules run in DuckDB on Arrow tables with external access off and settings locked.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from curate.base.errors import RecipeError, UnknownColumn
from curate.base.numeric.arrays import I16, I32
from curate.base.wording import did_you_mean, one_line
from curate.decide.rules.top import is_groupable
from curate.recipe.deciding import DEDUP, Top
from curate.recipe.recipe import Recipe

QUANTILE = "quantile"
FUNCTIONS = ("zscore", "minmax", QUANTILE)  # of derived columns: they look at many rows
_MOST_PREPARED = 1000  # of a thread: a run has a few, a search for settings some for each of them
_local = threading.local()  # `connection`, and `prepared` by the query and the columns that it sees


@dataclass(frozen=True)
class Rule:
    """A checked rule: its name, what it is (SQL, DEDUP, or the best rows), and the columns that it reads."""

    name: str
    spec: str | Top
    columns: tuple[str, ...]


def connect() -> Any:
    """Return this thread's DuckDB connection: in memory, one thread, no access to files, settings locked, UTC."""
    if not hasattr(_local, "connection"):
        _local.connection = duckdb.connect(":memory:")
        _local.connection.execute(
            "SET threads=1; SET TimeZone='UTC'; SET python_enable_replacements=false; SET enable_external_access=false; "
            "SET lock_configuration=true"
        )
        _local.prepared = {}
    return _local.connection


def parse_sql(connection: Any, sql: str) -> dict[str, Any]:
    """Return statements as DuckDB parses them. Raises RecursionError where they are nested too deeply."""
    [(text,)] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree: dict[str, Any] = json.loads(text)
    return tree


def walk_tree(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a parse tree, itself included, in the order of the text."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
        waiting += reversed([*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else [])


def named_columns(recipe: Recipe) -> frozenset[str]:
    """Return the names in a recipe's expressions that may be of columns, in lower case; of those that cannot be parsed, none."""
    expressions = [rule for rule in recipe.rules.values() if isinstance(rule, str) and rule != DEDUP] + list(
        recipe.derive.values()
    )
    tops = [rule for rule in recipe.rules.values() if isinstance(rule, Top)]
    named = [name for name in (recipe.dedup.prefer, *(top.of for top in tops), *(top.by for top in tops)) if name]
    named += [*(recipe.output.columns or ()), *recipe.output.json_columns]
    expressions += [recipe.output.repeat] if recipe.output.repeat else []
    if recipe.captions:
        expressions += [one.section.per_row for one in recipe.captions.tasks if isinstance(one.section.per_row, str)]
    for sql in expressions:
        try:
            tree = parse_sql(connect(), f"SELECT ({sql}\n)")
        except RecursionError:  # reported when it is checked
            continue
        named += [name for part in walk_tree(tree) for name in part.get("column_names", ())]
    return frozenset(name.lower() for name in named)


def check_rules(rules: Mapping[str, str | Top], columns: pa.Schema) -> list[Rule]:
    """Return the rules in order, checked against the columns that they will see. Raises RecipeError."""

    def check(name: str, spec: str | Top) -> Rule:
        if isinstance(spec, Top):
            return _check_top(name, spec, columns)
        return Rule(name, DEDUP, ()) if spec == DEDUP else _check_rule(f"rules.{name}", spec, columns)

    return [check(name, spec) for name, spec in rules.items()]


def check_count(key: str, sql: str, columns: pa.Schema) -> Rule:
    """Return a checked expression that gives a number of times: an integer. Raises RecipeError, as `check_rules`."""
    rule, kind = check_expression(key, sql, columns)
    if not kind.endswith("INT") and kind != "INTEGER":
        accepted = "an integer, such as CASE WHEN words < 10 THEN 4 ELSE 1 END"
        raise RecipeError(f"{key}: {sql!r} is of type {kind}; accepted: {accepted}")
    return rule


def first_failed(rules: tuple[Rule, ...], table: pa.Table) -> I16:
    """Return for each row the position of the first of `rules` that it fails, or -1."""
    if not rules or not len(table):
        return np.full(len(table), -1, np.int16)
    cases = " ".join(f"WHEN NOT coalesce(TRY(({rule.spec}\n)), false) THEN {i}" for i, rule in enumerate(rules))
    return np.asarray(_answer(f"(CASE {cases} ELSE -1 END)::SMALLINT", table))


def count_values(rule: Rule, table: pa.Table, highest: int) -> I32:
    """Return what an expression of `check_count` gives for each row, 0 to `highest`; 0 where it is NULL or fails."""
    if not len(table):
        return np.zeros(0, np.int32)
    return np.asarray(
        _answer(f"greatest(0, least({highest}, coalesce(TRY(({rule.spec}\n)), 0)))::INTEGER", table), np.int32
    )


def compute(sql: str, kind: pa.DataType, table: pa.Table) -> pa.ChunkedArray:
    """Return what a checked expression gives for each row of a table, as an array of a type; null where it is NULL or fails."""
    connection = connect()
    connection.register("batch", table)
    try:
        found = connection.sql(f"SELECT TRY(({sql}\n)) AS answer FROM batch").to_arrow_table()
    finally:
        connection.unregister("batch")
    return found["answer"].cast(kind)


def rule_values(rules: list[Rule], table: pa.Table) -> list[dict[str, bool | None]]:
    """Return for each row of a small table, what each SQL rule says: True, False, or None for NULL."""
    sql = [rule for rule in rules if isinstance(rule.spec, str) and rule.spec != DEDUP]
    exprs = ", ".join(f'TRY(({rule.spec}\n)) AS "{rule.name}"' for rule in sql)
    if not exprs:
        return [{} for _ in range(len(table))]
    found = _query(f"SELECT {exprs} FROM batch", table)
    rows = zip(*(values.tolist() for values in found.values()), strict=True)
    return [dict(zip(found, row, strict=True)) for row in rows]


def _query(sql: str, table: pa.Table) -> dict[str, Any]:
    """Return the columns of the answer to a query of a table, which it calls `batch`; NULLs are masked."""
    connection = connect()
    connection.register("batch", table)
    try:
        return dict(connection.execute(sql).fetchnumpy())
    finally:
        connection.unregister("batch")


class _Prepared:
    """An expression over tables with the same columns, which this thread's connection prepared once, since that costs as much as to run it."""

    def __init__(self, sql: str, columns: pa.Schema, number: int) -> None:
        self._name, self._given = f"prepared_{number}", f"given_{number}"
        self._table = self._nothing = columns.empty_table()
        connect().register(self._given, self)
        connect().execute(f"PREPARE {self._name} AS SELECT {sql} AS answer FROM {self._given}")

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the rows of the table that is asked about, whenever DuckDB reads what was registered."""
        return self._table.__arrow_c_stream__(requested_schema)

    def answer(self, table: pa.Table) -> Any:
        """Return what the expression gives for each row."""
        self._table = table
        try:
            return connect().execute(f"EXECUTE {self._name}").fetchnumpy()["answer"]
        finally:
            self._table = self._nothing


def _answer(sql: str, table: pa.Table) -> Any:
    """Return what an expression gives for each row of a table; NULLs are masked."""
    connect()
    of = sql, table.schema
    if of not in _local.prepared:
        if len(_local.prepared) >= _MOST_PREPARED:  # they go with their connection
            del _local.connection
            connect()
        _local.prepared[of] = _Prepared(sql, table.schema, len(_local.prepared))
    return _local.prepared[of].answer(table)


def _check_top(name: str, spec: Top, columns: pa.Schema) -> Rule:
    column = _column(f"rules.{name}", spec.of, columns)
    kind = columns.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise RecipeError(f"rules.{name}: top needs a numeric column; {spec.of!r} is {kind}")
    if spec.by is None:
        return Rule(name, spec, (column,))
    by = _column(f"rules.{name}", spec.by, columns)
    if not is_groupable(kind := columns.field(by).type):
        raise RecipeError(f"rules.{name}: by needs a column of text, integers or booleans; {spec.by!r} is {kind}")
    return Rule(name, spec, (column, by))


def _check_rule(key: str, sql: str, columns: pa.Schema) -> Rule:
    rule, kind = check_expression(key, sql, columns)
    if kind != "BOOLEAN":
        raise RecipeError(f"{key}: {sql!r} is of type {kind}; a rule is true or false, such as words > 2")
    return rule


@lru_cache(1000)  # a run asks twice, a search for settings for each of them
def check_expression(key: str, sql: str, columns: pa.Schema, shown: str = "") -> tuple[Rule, str]:
    """Return an expression, checked against the columns that it sees, and its type in SQL. Raises RecipeError.

    `shown` is what messages show in place of it.
    """
    where = f"{key}: {shown or sql!r}"
    try:
        tree = parse_sql(connect(), f"SELECT ({sql}\n)")
    except RecursionError:
        raise RecipeError(f"{where[:200]}… is nested too deeply; accepted: several rules, or fewer operators") from None
    if tree["error"]:
        raise RecipeError(f"{where} is not a SQL expression: {tree['error_message']}")
    node = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    plain = node.get("type") == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY" and not node["modifiers"]
    if not plain or len(node["select_list"]) != 1 or node["select_list"][0]["alias"] or _has_clauses(node):
        raise RecipeError(f"{where} is not one SQL expression")
    used = []
    parts = [part for part in walk_tree(node["select_list"][0]) if "class" in part]
    lambdas = [ref for part in parts if part["class"] == "LAMBDA" for ref in walk_tree(part["lhs"])]
    parameters = {ref["column_names"][-1] for ref in lambdas if "column_names" in ref} - set(columns.names)
    for part in parts:
        kind = part["class"]
        if kind == "COLUMN_REF" and part["column_names"][-1] not in parameters:
            used.append(_column(key, part["column_names"][-1], columns))
        elif kind == "FUNCTION":
            _check_function(
                key, where, part["function_name"].lower(), len(part.get("arguments", part.get("children", [])))
            )
        elif kind in ("SUBQUERY", "WINDOW", "PARAMETER", "STAR", "DEFAULT", "POSITIONAL_REFERENCE"):
            raise RecipeError(
                f"{where}: a {kind.lower().replace('_', ' ')} is not accepted; a rule is a scalar expression over one row"
            )
    try:
        _query(f"SELECT ({sql}\n) AS rule FROM batch", _nulls(columns))
        kind = _query(f"DESCRIBE SELECT TRY(({sql}\n)) AS rule FROM batch", _nulls(columns))["column_type"][0]
        if not any(part["class"] == "CAST" for part in parts):
            _try_values(sql, columns)
    except duckdb.Error as error:
        raise RecipeError(f"{where}: {one_line(error)}") from None
    return Rule(key.rpartition(".")[2], sql, tuple(dict.fromkeys(used))), str(kind)


def _nulls(columns: pa.Schema) -> pa.Table:
    """Return one row of nulls, which finds what cannot be bound, and constants of a wrong type, whatever a pool holds."""
    return pa.table({field.name: pa.nulls(1, field.type) for field in columns})


def _try_values(sql: str, columns: pa.Schema) -> None:
    """Try a rule without a cast on one row of values. Raises duckdb.ConversionException where DuckDB would cast."""

    def value(kind: pa.DataType) -> pa.Array:
        try:
            return pa.array(["a" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else 1]).cast(kind)
        except pa.ArrowException:  # a list, a date …: nothing that DuckDB would cast unasked
            return pa.nulls(1, kind)

    try:
        _query(f"SELECT ({sql}\n) AS rule FROM batch", pa.table({f.name: value(f.type) for f in columns}))
    except duckdb.ConversionException:
        raise
    except duckdb.Error:  # the value itself, as in a logarithm of 0: a row that fails, not a rule that is wrong
        return


def _has_clauses(node: dict[str, Any]) -> bool:
    clauses = ("where_clause", "having", "sample", "qualify", "group_expressions", "group_sets")
    return any(node.get(clause) for clause in clauses) or bool(node.get("cte_map", {}).get("map"))


def _column(key: str, name: str, columns: pa.Schema) -> str:
    by_lower: dict[str, str] = {known.lower(): known for known in columns.names}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    language = "measure: {language: {}}"
    needs = {"language": language, "language_score": language, "phash": "measure: {image: {phash: true}}"}
    hint = did_you_mean(name, columns.names)
    if name.lower() in needs:
        hint = f"it is measured by {needs[name.lower()]}; "
    raise UnknownColumn(f"{key}: no column {name!r}; {hint}columns: {', '.join(columns.names)}", name)


def _check_function(key: str, where: str, name: str, arguments: int) -> None:
    kind = "a rule" if key.startswith("rules.") else key
    if name in FUNCTIONS:
        remedy = f"name it under derive, such as derive: {{place: {name}(COLUMN)}}, and use place here"
        raise RecipeError(f"{where}: {kind} looks at one row, and {name}() at many; {remedy}")
    sql = (
        "SELECT bool_or(function_type = 'aggregate'), bool_or(stability = 'CONSISTENT'), bool_or(function_type = 'macro'), "
        "bool_or(macro_definition LIKE '%current_timestamp%') FROM duckdb_functions() WHERE function_name = ?"
    )
    aggregate, consistent, macro, clock = connect().execute(sql, [name]).fetchall()[0]
    if aggregate:
        hint = " (for a best fraction use {top: f, of: column})" if kind == "a rule" else ""
        raise RecipeError(f"{where}: {name}() is an aggregate; {kind} looks at one row{hint}")
    if clock or (aggregate is not None and not consistent and not macro) or (name == "age" and arguments == 1):
        raise RecipeError(f"{where}: {name}() may differ from call to call; {kind} must be deterministic")
