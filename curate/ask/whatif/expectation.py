"""The expected size of what balancing keeps: Σπ over the survivors, exact, with the standard error of the draws.

In: `DecidedRows`. Out: π of each survivor (float64), its sum rounded to 2⁻³² as a run sums it, and one standard error of
the number of rows that a run draws, √Σπ(1−π), since rows are drawn independently.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.ask.whatif.survivors import DecidedRows
from curate.base.numeric.arrays import F64, I64
from curate.base.process import in_threads
from curate.decide.draw import balance, bracket
from curate.decide.draw.bracket import Solution
from curate.decide.draw.schemes.scheme import stack_limits
from curate.decide.unit_matches import expected_rows
from curate.recipe.deciding import Balance
from curate.recipe.recipe import Recipe


@dataclass(frozen=True)
class Expectation:
    """What balancing keeps."""

    t: int | None  # None without balance
    rows: float  # the expected number of kept rows
    error: float  # one standard error of the number that a run draws
    tail: float | None  # share of the counts by which is balanced that entries below their limit have; None without any
    whole: (
        float | None
    )  # share of the survivors' matches that entries with at most their limit have, of which all rows stay
    whole_kept: float | None  # that share among the matches of kept rows, expected
    inclusion: list[F64]  # of each unit, π of its survivors (float64)


def solve_t(survivors: DecidedRows, target: Balance | None) -> Solution | None:
    """Return t of the recipe, or the one of the target's share of the tail or number of rows, see `Balance`; None without balance.

    Raises RunError where even t = 1 is expected to keep more.
    """
    if target is None:
        return None
    if target.t is not None:
        return Solution(target.t)
    if target.tail_share is not None:
        return Solution(balance.tail_share_t(survivors.balancing, target.tail_share))
    assert survivors.settings.scheme is not None
    highest = survivors.settings.scheme.highest(survivors.balancing, survivors.settings.entries.table)
    return bracket.solve_t(highest, target.rows or 0, lambda ts: _sizes(survivors, ts))


def sample_rows(recipe: Recipe, survivors: int) -> int:
    """Return how many of the rows that are left without balance the recipe keeps."""
    return survivors if recipe.sample is None else min(recipe.sample.rows, survivors)


def expect(survivors: DecidedRows, t: int | None) -> Expectation:
    """Return what balancing with t keeps; all survivors if t is None."""
    counts, limits = survivors.balancing, survivors.settings.limits(t, survivors.balancing)
    if limits is None:
        alive = [int(state.alive.sum()) for state in survivors.states]
        taken = sample_rows(survivors.recipe, sum(alive))
        inclusion = [np.full(n, taken / max(1, sum(alive))) for n in alive]
        return Expectation(None, float(taken), 0.0, None, None, None, inclusion)
    p = balance.probabilities(counts, limits)
    inclusion = list(in_threads(lambda matches: balance.inclusion_probability(matches, p), survivors.matches))
    fixed = [balance.fixed_point(pi) for pi in inclusion]
    rows = sum(int(part.sum()) for part in fixed) / balance.ONE
    variance = sum(float((pi * (1 - pi)).sum()) for pi in inclusion)
    sums = in_threads(
        lambda pair: balance.entry_sums(pair[0], pair[1], len(counts)).astype(np.float64),
        zip(survivors.matches, fixed, strict=True),
    )
    kept = sum(sums, np.zeros(len(counts)))
    error = float(np.sqrt(variance))
    whole, whole_kept = (_share(weights, counts <= limits) for weights in (survivors.counts, kept))
    return Expectation(t, rows, error, tail_share(survivors, t), whole, whole_kept, inclusion)


def expect_sizes(survivors: DecidedRows, ts: list[int]) -> list[tuple[float, float]]:
    """Return what `expect` gives as rows and error, for several t in one pass over the survivors."""
    settings, counts = survivors.settings, survivors.balancing
    assert settings.scheme is not None
    order = np.argsort(ts)
    points = np.array(ts, np.int64)[order]
    stacks = list(stack_limits(settings.scheme, points, counts, settings.entries.table))
    parts = in_threads(
        lambda matches: np.concatenate([balance.variances(matches, counts, limits) for limits in stacks]),
        survivors.matches,
    )
    errors = np.sqrt(sum(parts, np.zeros(len(ts))))
    found = {
        int(t): (n / balance.ONE, float(e)) for t, n, e in zip(points, _sizes(survivors, points), errors, strict=True)
    }
    return [found[t] for t in ts]


def _sizes(survivors: DecidedRows, ts: I64) -> list[int]:
    """Return Σπ for each t (ascending) in fixed point, as Python integers: a sum over units may pass 2⁶⁴."""
    settings, counts = survivors.settings, survivors.balancing
    parts = in_threads(lambda matches: expected_rows(settings, matches, counts, ts).astype(object), survivors.matches)
    return [int(n) for n in sum(parts, np.zeros(len(ts), object))]


def tail_share(survivors: DecidedRows, t: int | None) -> float | None:
    """Return the share of entries below their limit in the counts by which is balanced, as `balance.tail_share` has it; None without balance."""
    counts = survivors.balancing
    limits = survivors.settings.limits(t, counts)
    return None if limits is None else _share(counts, counts < limits)


def _share(weights: npt.NDArray, chosen: npt.NDArray[np.bool_]) -> float | None:
    total = float(weights.sum())
    return float(weights[chosen].sum()) / total if total else None
