"""The expected size of what a selection keeps among the rows left, with the standard error of the draws.

In: `DecidedRows`, and a recipe's selection. Out: π of each row left (float64), and what the selection derives from it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from curate.ask.whatif.survivors import DecidedRows
from curate.base.numeric.arrays import F64
from curate.base.process import in_threads
from curate.decide.draw.entry_sums import sparse_sums
from curate.decide.draw.inclusion import fixed_point
from curate.decide.draw.selection import Choice, texts_error
from curate.decide.select_rows import count_repeats
from curate.recipe.recipe import Recipe
from curate.run.in_process import InProcessUnits


class Expectation(NamedTuple):
    """What a selection keeps."""

    choice: Choice | None  # None where all rows that are left are kept
    rows: float  # the expected number of kept rows
    error: float  # one standard error of the number that a run draws
    inclusion: list[F64]  # of each unit, π of its rows left (float64)
    shares: Mapping[str, float | None]  # see `Choice.shares`

    @property
    def values(self) -> Mapping[str, Any]:
        """Numbers of the choice, see `Choice.values`."""
        return self.choice.values if self.choice else {}

    @property
    def is_uniform(self) -> bool:
        """Whether each row left has the same probability, and the number of rows is exact."""
        return self.choice is None or self.choice.is_uniform


def choose(survivors: DecidedRows, recipe: Recipe) -> Choice | None:
    """Return what a recipe's selection chooses among the rows left. Raises RunError as `Selection.choose`."""
    if recipe.selection is None:
        return None
    units = InProcessUnits(survivors.states, survivors.context)
    counts = units.get("Counts", np.asarray, survivors.counts) if recipe.match else None
    choice: Choice = units.value(recipe.selector.choose(units, recipe.selection[1], survivors.selection_run, counts))
    return choice


def expect(survivors: DecidedRows, choice: Choice | None) -> Expectation:
    """Return what a choice keeps."""
    if choice is None:
        alive = [len(rows) for rows in survivors.rows]
        return Expectation(None, float(sum(alive)), 0.0, [np.ones(n) for n in alive], {})
    inclusion = list(in_threads(choice.inclusion, survivors.rows))
    rows, error = choice.expected(inclusion)
    error = error if survivors.settings.one_per is None else texts_error(survivors.rows, inclusion)
    if not survivors.recipe.match:
        return Expectation(choice, rows, error, inclusion, choice.shares(survivors.counts, survivors.counts))
    kept = np.zeros(len(survivors.counts))
    pairs = zip(survivors.rows, inclusion, strict=True)
    for part in in_threads(lambda pair: sparse_sums(pair[0].matches, [fixed_point(pair[1])], len(kept)), pairs):
        kept[part.entries] += part.values[0]
    return Expectation(choice, rows, error, inclusion, choice.shares(survivors.counts, kept))


def count_copies(survivors: DecidedRows, expectation: Expectation) -> float:
    """Return how long uids.npy is expected to be: a row is there as often as it repeats."""
    settings, choice, total = survivors.settings, expectation.choice, 0.0
    for state, rows, inclusion in zip(survivors.states, survivors.rows, expectation.inclusion, strict=True):
        if settings.repeat is not None:
            probability = np.zeros(len(state.verdicts))
            probability[state.left] = inclusion
            counts = survivors.counts if survivors.recipe.match else None
            repeats = count_repeats(settings.tables(state.unit), state, settings, counts, probability)
            total += float(repeats @ probability)
        elif choice is not None and (times := choice.repeats(choice.draws(rows))) is not None:
            total += float(times.sum())
        else:
            return expectation.rows
    return total
