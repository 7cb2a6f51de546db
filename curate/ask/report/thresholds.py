"""Find thresholds of rules that can be drawn: of rules in SQL that compare a column with a number, and of top rules.

A rule is read as DuckDB parses it: of conditions joined by AND each that compares a column, `least(a, b)`,
`greatest(a, b)` or the ratio of sides (`aspect`) with a number. All else, such as OR, cannot be drawn.
"""

from collections.abc import Iterator
from typing import Any

from curate.ask.opened import OpenRun
from curate.expressions.check import parse_sql, walk_tree
from curate.store.facts import RuleFacts

ASPECT, MIN_SIDE = "aspect", "min_side"  # the longer side by the shorter one; the shorter one
_CUTS = ("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO")


def drawn_thresholds(run: OpenRun) -> dict[str, list[tuple[str, float]]]:
    """Return column → the rules that have a threshold on it, with its value."""
    thresholds: dict[str, list[tuple[str, float]]] = {}
    for rule in run.facts.rules:
        if rule.of and rule.threshold is not None:
            shown = float(rule.show(rule.threshold))
            thresholds.setdefault(_measured_name(run, rule.of), []).append((rule.name, shown))
        elif rule.sql:
            for part in _conjuncts(_parse(run, rule.sql)):
                for column, value in _comparisons(part):
                    thresholds.setdefault(_measured_name(run, column), []).append((rule.name, value))
    return thresholds


def rule_columns(run: OpenRun, rule: RuleFacts) -> list[str]:
    """Return the columns that a rule reads, in the order of its text."""
    if rule.of:
        return [_measured_name(run, rule.of)]
    return list(dict.fromkeys(_measured_name(run, name) for name in _columns(_parse(run, rule.sql or "true"))))


def _measured_name(run: OpenRun, column: str) -> str:
    """Return a column's name as it was measured: a rule may write Width."""
    return run.column_names.get(column.lower(), column)


def _comparisons(node: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what a condition compares with numbers, and these."""
    sides = []
    if node.get("class") == "BETWEEN":
        sides = [(node["input"], node["lower"]), (node["input"], node["upper"])]
    elif node.get("class") == "COMPARISON" and node["type"] in _CUTS:
        sides = [(node["left"], node["right"]), (node["right"], node["left"])]
    for measured, constant in sides:
        literal = constant.get("literal") or {}
        if literal.get("kind") in ("INTEGER", "NUMERIC"):
            yield from ((name, float(literal["text"])) for name in _measures(measured))


def _parse(run: OpenRun, sql: str) -> dict[str, Any]:
    """Return the condition as DuckDB parses it; {} where it is none."""
    try:
        tree = parse_sql(run.connection, f"SELECT 1 WHERE ({sql}\n)")
    except RecursionError:  # a rule may be a sum of hundreds of terms, each within the one before
        return {}
    if tree["error"] or len(tree["statements"]) != 1:
        return {}
    return tree["statements"][0]["node"].get("where_clause") or {}


def _conjuncts(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    elif node:
        yield node


def _columns(tree: dict[str, Any]) -> list[str]:
    return [node["column_names"][-1] for node in walk_tree(tree) if node.get("class") == "COLUMN_REF"]


def _measures(node: dict[str, Any]) -> Iterator[str]:
    """Yield the columns that an expression measures: both of least and greatest, of sides `min_side`, `aspect` too."""
    name, arguments = _called(node)
    if node.get("class") == "COLUMN_REF":
        yield node["column_names"][-1]
    elif name in ("least", "greatest"):
        names = [part["column_names"][-1] for part in arguments if part.get("class") == "COLUMN_REF"]
        is_shorter = name == "least" and sorted(map(str.lower, names)) == ["height", "width"]
        yield from [*names, MIN_SIDE] if is_shorter else names
    elif name == "/" and [_called(part)[0] for part in arguments] == ["greatest", "least"]:
        yield from [ASPECT] if {name.lower() for name in _columns(node)} == {"width", "height"} else []


def _called(node: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Return the function that an expression calls, and its arguments."""
    arguments = [argument["expression"] for argument in node.get("arguments", ())]
    return str(node.get("function_name", "")).lower(), arguments
