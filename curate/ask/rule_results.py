"""Results of a run's rules for single rows, for explanations and for cards on pages.

In: a run and the positions of rows. Out: each row of `verdicts`, and a `RuleResult` for each rule. All rules are
evaluated again, so that those after the first failed one also have a result.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from curate.ask.opened import OpenRun
from curate.base import schema, stages
from curate.decide.rules.rules import Rule, check_rules, rule_values
from curate.recipe.deciding import Top
from curate.store.facts import RuleFacts, RunFacts

Position = tuple[int, int]  # unit and row: a row's key in the tables
# Selects the rows at `positions`, a parameter made by `at_positions`.
AT = "SEMI JOIN (SELECT unnest($positions::STRUCT(unit INT, row INT)[], recursive := true)) USING (unit, row)"
# Columns that rules cannot use.
UNSEEN = ("unit", "row", "offset", "status", "error", *schema.DECISIONS.names[len(schema.ALIGNED) :])
UNSEEN += (schema.REPEATS.name, schema.DUPLICATE_COSINE.name)
PASSED, FAILED, NOT_REACHED = "passed", "failed", "not reached"
_VALUE = 40  # characters of a value shown with a rule
_TEXT = 300  # characters of any other text
_COMPARISON = re.compile(r"\s*\w+\s*(>=|<=|>|<)\s*(-?\d+\.?\d*)\s*")
_OPPOSITE = {">=": "<", ">": "<=", "<=": ">", "<": ">="}


class RuleResult(NamedTuple):
    """A rule's result for a row."""

    name: str
    state: str  # PASSED, FAILED (the first one, which drops the row), or NOT_REACHED
    passes: bool | None  # None for NULL, which fails
    text: str  # the rule, with its threshold if it has one
    values: dict[str, str]  # values of the columns that the rule reads
    short: str  # a failure in short, such as clip_score 0.12 < 0.21
    is_dedup: bool  # whether it is the deduplication step


def at_positions(positions: Iterable[Position]) -> list[dict[str, int]]:
    """Return positions as the query parameter of AT."""
    return [{"unit": unit, "row": row} for unit, row in positions]


def evaluate_rows(run: OpenRun, positions: Iterable[Position]) -> Iterator[tuple[dict[str, Any], list[RuleResult]]]:
    """Yield the rows of `verdicts` at these positions, by unit and row, with the results of all rules."""
    rows = run.table(f"SELECT * FROM verdicts {AT} ORDER BY unit, row", positions=at_positions(positions))
    seen = rows.select([column for column in rows.column_names if column not in UNSEEN])
    expressed = {rule.name: rule.expression if rule.sql or rule.dedup else None for rule in run.facts.rules}
    specs = {rule.name: expressed[rule.name] or Top.model_validate(rule.best) for rule in run.facts.rules}
    rules = check_rules(specs, seen.schema)
    for row, values in zip(rows.to_pylist(), rule_values(rules, seen), strict=True):
        yield row, _results(run.facts, rules, row, values)


def show_value(value: object, most: int = _TEXT) -> str:
    """Return a value in a row as text, cut after `most` characters."""
    text = "NULL" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _results(run: RunFacts, rules: list[Rule], row: dict[str, Any], values: dict[str, bool | None]) -> list[RuleResult]:
    names = [rule.name for rule in rules]
    # How many rules the row passed: all, unless a rule or deduplication dropped it, or it could not be read.
    dedup = next((position for position, fact in enumerate(run.rules) if fact.dedup), len(names))
    ended = {stages.FAILED: -1, **dict.fromkeys((stages.UNMATCHED, stages.CONTAMINATED, stages.DUPLICATE), dedup)}
    ended |= {name: position for position, name in enumerate(names)}
    passed = ended.get(row["rule"], len(names))
    results = []
    for position, (rule, fact) in enumerate(zip(rules, run.rules, strict=True)):
        state = PASSED if position < passed else FAILED if position == passed else NOT_REACHED
        shown = {name: show_value(row[name], _VALUE) for name in rule.columns}
        if isinstance(rule.spec, Top):
            passes, text, short = _of_top(fact, rule, row, shown)
        elif fact.dedup:
            passes = row["rule"] != stages.DUPLICATE
            text = {PASSED: "no duplicate", FAILED: row["rule"], NOT_REACHED: "deduplication"}[state]
            short = text
        else:
            passes, text = values[rule.name], " ".join(rule.spec.split())
            short = _of_sql(text, shown, row[rule.columns[0]] if rule.columns else None)
        results.append(RuleResult(rule.name, state, passes, text, shown, short, bool(fact.dedup)))
    return results


def _of_top(fact: RuleFacts, rule: Rule, row: dict[str, Any], shown: dict[str, str]) -> tuple[bool | None, str, str]:
    """Return whether a top rule keeps the row, its text, and a short text for a failure; add the value to `shown`."""
    value, *group = (row[name] for name in rule.columns)
    threshold = fact.threshold_of(*group)
    passes = None if value is None else threshold is not None and value >= threshold
    if value is not None:
        shown[rule.columns[0]] = fact.show(value)  # in as many digits as the threshold, which it may equal
    reached = "which no row reached" if threshold is None else f"threshold {fact.show(threshold)}"
    text = f"{fact.expression}, {reached}"
    short = f"{rule.columns[0]} {shown[rule.columns[0]]}"
    if value is None or threshold is None:
        return passes, text, f"{short}; {text}"
    return passes, text, f"{short} < {fact.show(threshold)}"


def _of_sql(sql: str, shown: dict[str, str], value: Any) -> str:
    """Return a short text for a failure: the negated comparison if there is one, otherwise the values and the rule.

    `value` is the value of the first column.
    """
    if (match := _COMPARISON.fullmatch(sql)) and isinstance(value, int | float):
        short = f"{value:.4g}" if float(f"{value:.4g}") != float(match[2]) else str(value)
        return f"{next(iter(shown))} {short} {_OPPOSITE[match[1]]} {match[2]}"
    values = [f"{name} {text}" for name, text in shown.items() if name not in ("caption", "url")]
    return "; ".join([*filter(None, [", ".join(values)]), f"needs {sql}"])
