"""Deciding over all units, in order: rules, deduplication, later rules, then the selection among the rows left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.decide.apply_rules import RuleSteps
from curate.decide.deduplicate import deduplicate
from curate.decide.select_rows import choose, count_matches, count_survivors, draw_rows, pool_counts
from curate.decide.settings import DecideSettings
from curate.run.context import RunContext
from curate.run.units import Answer, Units


@dataclass(frozen=True)
class Decided:
    """What all units answered while their rows were decided; None where the recipe does not need it."""

    thresholds: Sequence[Answer]  # of each top rule: (rule, TopSearch)
    scales: Sequence[Answer]  # of each segment with derived columns: {(column, place): Scale}
    recalls: Mapping[int, Answer]  # of each pass by nearness, by its place: int64[2], the sum of `Nearness.recall`
    large: Answer  # a list of (rows, uid): the largest groups of duplicates, with their representatives
    pool: Answer | None = None  # int64[entries], matching rows of the pool
    survivors: Answer | None = None  # int64[entries], matching rows left
    choice: Answer | None = None  # the selection's Choice
    sums: Answer | None = None  # int64[2, entries], expected (fixed point) and kept rows


def decide_rows(
    units: Units, settings: DecideSettings, context: RunContext, unread: Answer, n_buckets: int = 1
) -> Decided:
    """Decide all rows, and write `decisions` of each unit.

    `unread` are the files of all units that could not be read; `n_buckets`, of hashes in deduplication, has no
    influence on the result.
    """
    rules = RuleSteps(units, settings)
    rules.apply()
    matches = count_matches(units, settings) if context.recipe.match else None
    recalls, large = deduplicate(units, settings, n_buckets)
    rules.apply_later()
    pool = survivors = None
    if matches is not None:
        pool = units.get("Counts: pool", pool_counts, matches)
        survivors = count_survivors(units, settings, matches)
    choice = choose(units, settings, survivors)
    sums = draw_rows(units, settings, unread, choice, survivors)
    return Decided(rules.thresholds, rules.scales, recalls, large, pool, survivors, choice, sums)
