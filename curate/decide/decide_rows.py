"""Deciding over all units, in order: rules, deduplication, later rules, then the selection among the rows left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.base.numeric.arrays import I64
from curate.decide.apply_rules import RuleAnswers, apply_later_rules, apply_rules
from curate.decide.deduplicate import deduplicate
from curate.decide.draw.selection import Choice
from curate.decide.other_texts import drop_other_texts
from curate.decide.select_rows import choose, count_matches, count_survivors, draw_rows
from curate.decide.settings import DecideSettings
from curate.run.units import Answer, Units


@dataclass(frozen=True)
class Decided:
    """What all units answered while their rows were decided; None where the recipe does not need it."""

    rules: RuleAnswers
    recalls: Sequence[I64]  # of each pass by nearness: int64[2], the sum of `Nearness.recall`
    large: Sequence[tuple[int, str]]  # the largest groups of duplicates: rows, and their representative's uid
    pool: I64 | None  # [entries], matching rows of the pool, before any rule
    survivors: I64 | None  # [entries], matching rows when the selection begins
    choice: Choice | None  # of the selection; None where all rows that are left are kept
    sums: I64 | None  # [2, entries], expected (fixed point) and kept rows


def decide_rows(
    units: Units, settings: DecideSettings, unread: Answer[list[str]], n_buckets: int = 1
) -> tuple[Answer[Decided], Answer[I64] | None]:
    """Decide all rows, and write `decisions` of each unit; return also `Decided.survivors` alone.

    `unread` are the files of all units that could not be read; `n_buckets` has no influence on the result.
    """
    rules = apply_rules(units, settings)
    matches = count_matches(units, settings) if settings.matching else None
    recalls, large = deduplicate(units, settings, n_buckets)
    rules = apply_later_rules(units, settings, rules)
    survivors = None if matches is None else count_survivors(units, settings, matches)
    drop_other_texts(units, settings, n_buckets)
    choice = choose(units, settings, survivors)
    sums = draw_rows(units, settings, unread, choice, survivors)
    entries = {"matches": matches, "survivors": survivors, "sums": sums}
    others = {"rules": rules, "large": large, "choice": choice}
    return units.get("Decide: results", _decided, *recalls, **others, **entries), survivors


def _decided(*recalls: I64, rules: RuleAnswers | None, matches: I64 | None, **answers: Any) -> Decided:
    return Decided(rules or RuleAnswers(), recalls, pool=None if matches is None else matches[0], **answers)
