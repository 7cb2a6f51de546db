"""The expected size of what balancing keeps: Σπ over the survivors, exact, with the spread of the draws.

In: `Survivors`. Out: π of each survivor (float64), its sum rounded to 2⁻³² as a run sums it, and one standard error of the
number of rows that a run draws, √Σπ(1−π), since rows are drawn independently.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curate.decide import balance
from curate.process import in_threads
from curate.recipe.rules import Balance
from curate.whatif.survivors import DecidedRows

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expectation:
    """What balancing keeps.

    Attributes:
        t: rows that an entry may have; None without balance.
        rows: the expected number of kept rows.
        error: one standard error of the number that a run draws.
        tail: of the survivors' matches, the share of entries that at most t of them match; None without matches.
        tail_kept: that share among the matches of kept rows, expected.
        inclusion: of each unit, π of its survivors (float64).
    """

    t: int | None
    rows: float
    error: float
    tail: float | None
    tail_kept: float | None
    inclusion: list[F64]


def solve_t(survivors: DecidedRows, wished: Balance | None) -> int | None:
    """The t of the recipe, or the largest whose expected size is at most the wished rows; None without balance.

    Raises:
        RunError: even t = 1 is expected to keep more.
    """
    if wished is None:
        return None
    if wished.t is not None:
        return wished.t
    bracket = balance.Bracket.start(survivors.counts, wished.rows or 0)
    while not bracket.solved:
        points = bracket.points()
        bracket = bracket.narrow(points, _sizes(survivors, points))
    return bracket.t


def expect(survivors: DecidedRows, t: int | None) -> Expectation:
    """What balancing with t keeps; all survivors if t is None."""
    counts = survivors.counts
    if t is None:
        inclusion = [np.ones(int(b.alive.sum())) for b in survivors.ballots]
        return Expectation(None, float(sum(map(len, inclusion))), 0.0, None, None, inclusion)
    p = balance.probabilities(counts, t)
    inclusion = list(in_threads(lambda matches: balance.inclusion(matches, p), survivors.matches))
    fixed = [balance.fixed_point(pi) for pi in inclusion]
    rows = sum(int(part.sum()) for part in fixed) / balance.ONE
    variance = sum(float((pi * (1 - pi)).sum()) for pi in inclusion)
    sums = in_threads(
        lambda pair: balance.entry_sums(pair[0], pair[1], len(counts)).astype(np.float64),
        zip(survivors.matches, fixed, strict=True),
    )
    kept = sum(sums, np.zeros(len(counts)))
    error = float(np.sqrt(variance))
    return Expectation(t, rows, error, tail_share(survivors, t), _share(kept, counts <= t), inclusion)


def expect_sizes(survivors: DecidedRows, ts: list[int]) -> list[tuple[float, float]]:
    """What `expect` gives as rows and error, for several t in one pass over the survivors."""
    points = np.array(ts, np.int64)
    parts = in_threads(lambda matches: balance.spread(matches, survivors.counts, points), survivors.matches)
    errors = np.sqrt(sum(parts, np.zeros(len(ts))))
    return [(n / balance.ONE, float(error)) for n, error in zip(_sizes(survivors, points), errors, strict=True)]


def _sizes(survivors: DecidedRows, ts: balance.I64) -> list[int]:
    """Σπ for each t in fixed point, as Python integers: a sum over units may pass 2⁶⁴."""
    parts = in_threads(lambda matches: balance.expected_rows(matches, survivors.counts, ts), survivors.matches)
    return [int(n) for n in sum((part.astype(object) for part in parts), np.zeros(len(ts), object))]


def tail_share(survivors: DecidedRows, t: int | None) -> float | None:
    """Of the survivors' matches, the share of entries that at most t of them match; None without balance."""
    return None if t is None else _share(survivors.counts, survivors.counts <= t)


def _share(weights: npt.NDArray, chosen: npt.NDArray[np.bool_]) -> float | None:
    total = float(weights.sum())
    return float(weights[chosen].sum()) / total if total else None
