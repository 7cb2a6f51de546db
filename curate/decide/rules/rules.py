"""Rules: SQL expressions over the measured columns, in order; the first rule that a row fails drops it.

A rule must be a scalar, deterministic, boolean expression: `curate.expressions` checks and evaluates it. NULL fails; an
error in a row, for example in a cast, is NULL.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import I16
from curate.expressions.check import check_expression, find_column, parse_sql, walk_tree
from curate.expressions.evaluate import connect, evaluate, query
from curate.recipe.deciding import DEDUP, Top
from curate.recipe.recipe import Recipe


class Rule(NamedTuple):
    """A checked rule: its name, its content (SQL, DEDUP, or the best rows), and its columns."""

    name: str
    spec: str | Top
    columns: tuple[str, ...]


def named_columns(recipe: Recipe) -> frozenset[str]:
    """Return the lowercase names in those expressions of a recipe that can be parsed. Some may be columns."""
    tops = [rule for rule in recipe.rules.values() if isinstance(rule, Top)]
    named = [recipe.dedup.prefer, *(name for top in tops for name in (top.of, top.by))]
    named += [*(recipe.output.columns or ()), *recipe.output.json_columns]
    if recipe.selection:
        named += recipe.selector.columns(recipe.selection[1])
    for sql in recipe.expressions:
        try:
            tree = parse_sql(connect(), f"SELECT ({sql}\n)")
        except RecursionError:  # reported by the check
            continue
        named += [name for part in walk_tree(tree) for name in part.get("column_names", ())]
    return frozenset(name.lower() for name in named if name)


def check_rules(rules: Mapping[str, str | Top], columns: pa.Schema) -> list[Rule]:
    """Return the rules in order, checked against the available columns. Raises RecipeError."""

    def check(name: str, spec: str | Top) -> Rule:
        if isinstance(spec, Top):
            return _check_top(name, spec, columns)
        if spec == DEDUP:
            return Rule(name, DEDUP, ())
        checked = check_expression(f"rules.{name}", spec, columns)
        if checked.kind != "BOOLEAN":
            wrong = f"{spec!r} is of type {checked.kind}; a rule must be true or false, such as words > 2"
            raise RecipeError(f"rules.{name}: {wrong}")
        return Rule(name, spec, checked.columns)

    return [check(name, spec) for name, spec in rules.items()]


def first_failed(rules: tuple[Rule, ...], table: pa.Table) -> I16:
    """Return the position of the first of `rules` that each row fails, or -1."""
    if not rules or not len(table):
        return np.full(len(table), -1, np.int16)
    cases = " ".join(f"WHEN NOT coalesce(TRY(({rule.spec}\n)), false) THEN {i}" for i, rule in enumerate(rules))
    return np.asarray(evaluate(f"(CASE {cases} ELSE -1 END)::SMALLINT", table))


def rule_values(rules: list[Rule], table: pa.Table) -> list[dict[str, bool | None]]:
    """Return the result of each SQL rule for each row of a small table: True, False, or None for NULL."""
    sql = [rule for rule in rules if isinstance(rule.spec, str) and rule.spec != DEDUP]
    exprs = ", ".join(f"TRY(({rule.spec}\n)) AS rule_{i}" for i, rule in enumerate(sql))  # rule names can be anything
    if not exprs:
        return [{} for _ in range(len(table))]
    columns = query(f"SELECT {exprs} FROM batch", table)
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip((rule.name for rule in sql), row, strict=True)) for row in rows]


def _check_top(name: str, spec: Top, columns: pa.Schema) -> Rule:
    column = find_column(f"rules.{name}", spec.of, columns)
    kind = columns.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise RecipeError(f"rules.{name}: top needs a numeric column; {spec.of!r} is {kind}")
    if spec.by is None:
        return Rule(name, spec, (column,))
    by = find_column(f"rules.{name}", spec.by, columns)
    kind = columns.field(by).type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise RecipeError(f"rules.{name}: by needs a column of text, integers, or booleans; {spec.by!r} is {kind}")
    return Rule(name, spec, (column, by))
