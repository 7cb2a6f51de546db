"""Deciding over all units, in its order: rules, deduplication, later rules, then the last choice among the rows left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.decide.apply_rules import Rules
from curate.decide.deduplicate import deduplicate
from curate.decide.draw.balance import EntryVector
from curate.decide.other_counts import read_counts
from curate.decide.select_rows import count_matches, count_survivors, cut_sample, draw_rows, pool_counts, solve_t
from curate.decide.settings import DecideSettings
from curate.run.context import RunContext
from curate.run.units import Answer, Units


@dataclass(frozen=True)
class Decided:
    """What all units were asked while their rows were decided; None where the recipe does not need it."""

    thresholds: Sequence[Answer]  # of each top rule (rule, TopSearch)
    scales: Sequence[Answer]  # of derived columns, of each segment {(column, place): Scale}
    recalls: Mapping[int, Answer]  # of each pass by nearness, by its place, int64[2]: see `Nearness.recall`
    large: Answer  # a list of (rows, uid): the largest groups of duplicates
    pool: Answer | None = None  # int64[entries], matching rows of the pool
    survivors: Answer | None = None  # int64[entries], matching rows left
    counts: Answer | None = None  # int64[entries], by which entries are balanced: `survivors`, or those of another run
    solution: Answer | None = None  # Solution: t
    sums: Answer | None = None  # int64[2, entries], expected (fixed point) and kept rows


def decide_rows(
    units: Units, settings: DecideSettings, context: RunContext, unread: Answer, n_buckets: int = 1
) -> Decided:
    """Decide all rows, and write `decisions` of each unit.

    `unread` are files that could not be read, of all units; `n_buckets`, of hashes in deduplication, has no influence on the result.
    """
    rules = Rules(units, settings)
    rules.apply()
    matches = count_matches(units, settings) if context.recipe.match else None
    duplicates = deduplicate(units, settings, n_buckets)
    rules.apply_later()
    pool = survivors = counts = solution = None
    if matches is not None:
        pool = units.get("Counts: pool", pool_counts, matches)
        survivors = counts = count_survivors(units, settings, matches)
        if (others := read_counts(context.recipe, context.metadata_key)) is not None:
            counts = units.get("Counts: given", others.view, EntryVector)
        solution = solve_t(units, settings, counts)
    sums = draw_rows(units, settings, unread, counts, solution, cut_sample(units, settings))
    return Decided(
        rules.thresholds, rules.scales, duplicates.recalls, duplicates.large, pool, survivors, counts, solution, sums
    )
