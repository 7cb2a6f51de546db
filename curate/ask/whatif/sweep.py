"""Sweep a number in a run's recipe over a range, with the yield at each value; or search the value for a target size.

In: an open run, overrides, a `SweptNumber`. Out: one `Point` per value. All points share one computation. For a number
in balance, it finds the survivors; for a number in a rule, it finds the possible duplicates. The plot shows expected
rows over values, with two standard errors of the draws: SVG, PNG or HTML, drawn offline and self-contained.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from curate.ask.report.charts import KINDS, fill_spec, write_chart
from curate.ask.whatif.surviving import DecidedRows, FinishedRun, all_repeats, choose, count_verdicts, find_survivors
from curate.ask.whatif.swept_number import SEARCHED, SweptNumber
from curate.base import schema, stages
from curate.base.errors import RecipeError, RunError
from curate.decide.draw.balance import LimitsChoice
from curate.decide.draw.selection import Choice
from curate.recipe.recipe import Recipe

_ROWS, _NUMBER = pa.int64(), pa.float64()
POINTS = schema.define(
    *schema.define(value=_NUMBER, expected=_NUMBER, error=_NUMBER),
    *schema.define(survivors=_ROWS, dropped=_ROWS, duplicate=_ROWS, tail_share=_NUMBER, t=_ROWS),
)
_STEPS = 60  # in a search: enough to halve any range down to adjacent values


class Point(NamedTuple):
    """The yield at one value."""

    value: float  # the swept number
    expected: float | None  # the expected number of kept rows; None if the value is out of reach
    error: float | None  # one standard error of the number that a run draws
    survivors: int  # rows left when balancing begins
    dropped: int | None  # rows that the number's rule drops; None if it is not in a rule
    duplicate: int  # rows dropped as duplicates
    tail_share: float | None  # see `Expectation.tail`; None without balance
    t: int | None  # of balance, from the recipe or solved; None without balance
    fault: str = ""  # why the value is out of reach


def sweep(run: FinishedRun, overrides: Sequence[str], number: SweptNumber, points: int = 12) -> Iterator[Point]:
    """Yield the points of a sweep as they are computed. Checks all recipes first, and raises RecipeError."""
    values = number.values(points)
    recipes = [run.changed([*overrides, number.override(value)]) for value in values]
    if number.rule is None:  # the survivors are the same, so one pass gives all values
        yield from _points(values, find_survivors(run, recipes[0]), recipes, None)
        return
    repeats = all_repeats(run, recipes[0])
    for value, recipe in zip(values, recipes, strict=True):
        yield _points([value], find_survivors(run, recipe, repeats), [recipe], number.rule)[0]


def search(run: FinishedRun, overrides: Sequence[str], number: SweptNumber, rows: int) -> str:
    """Return the override with the largest expected size up to the target, to within a row if possible.

    Raises:
        RecipeError: balance solves for a size, a sample is at most the target, or the recipe is wrong with some value.
        RunError: all values in the range give more.
    """
    base = run.changed(overrides)
    if number.rule is None or number.listed:
        raise RecipeError(f"--by {number.key}: no value to search; {SEARCHED}")
    if base.balance and base.balance.rows is not None:  # without it, every point can be reached
        reason = f"balance.rows is {base.balance.rows:,}, so t adapts to each value and the size stays the same"
        raise RecipeError(f"{reason}; accepted: --by with --set balance.t=… or --set balance=null")
    if base.sample:
        name, size_of_it = next(iter(base.selector.sizes_in(base.sample).items()))
        if size_of_it <= rows:
            reason = f"sample.{name} is {size_of_it:,}, so no value of {number.key} keeps more"
            raise RecipeError(f"{reason}; accepted: --by with --set sample=null")
    pool = sum(len(state.verdicts) for state in run.states)
    if number.is_whole and number.key.endswith(".rows"):
        number = replace(number, high=max(number.low, min(number.high, pool)))
    repeats = all_repeats(run, run.changed([*overrides, number.override(number.low)]))

    def size(value: float) -> float:
        recipe = run.changed([*overrides, number.override(value)])
        return _points([value], find_survivors(run, recipe, repeats), [recipe], number.rule)[0].expected or 0.0

    return number.override(find_value(size, number, rows))


def find_value(size: Callable[[float], float], number: SweptNumber, rows: int) -> float:
    """Return the value with the largest size up to `rows`, by Brent's method between the ends.

    If deduplication and draws make sizes rise and fall, another value may be nearer. Raises RunError if both ends give
    more.
    """
    from scipy.optimize import brentq  # imported late: slow to load

    sizes: dict[float, float] = {}

    def excess(value: float) -> float:
        value = number.rounded(value)
        if value not in sizes:
            sizes[value] = size(value)
        return 0.0 if rows - 1 < sizes[value] <= rows else sizes[value] - rows

    ends = excess(number.low), excess(number.high)
    if min(ends) > 0:
        value = min(sizes, key=sizes.__getitem__)
        minimum = f"{number.override(value)} is expected to give {sizes[value]:,.0f} rows"
        raise RunError(f"--rows {rows:,} is out of reach: even {minimum}")
    if ends[0] * ends[1] < 0:
        width = 0.5 if number.is_whole else 1e-9 * (number.high - number.low)
        brentq(excess, number.low, number.high, xtol=width, maxiter=_STEPS, disp=False)
    return max((value for value in sizes if sizes[value] <= rows), key=sizes.__getitem__)


def points_table(points: Sequence[Point]) -> pa.Table:
    """Return points as a table (POINTS); the columns are the attributes of `Point`."""
    return pa.Table.from_pylist([point._asdict() for point in points], POINTS)


def _points(values: list[float], survivors: DecidedRows, recipes: list[Recipe], rule: str | None) -> list[Point]:
    counts = count_verdicts(survivors.states, survivors.recipe)
    surviving = counts[stages.KEPT]
    choices: list[tuple[Choice | None, str]] = []  # and why a target is out of reach
    for recipe in recipes:
        try:
            choices.append((choose(survivors, recipe), ""))
        except RunError as out_of_reach:
            choices.append((None, str(out_of_reach)))
    reached = [choice for choice, _ in choices if choice is not None]
    sizes = iter(recipes[0].selector.sizes(reached, survivors.rows) if reached else ())
    points = []
    for value, (choice, problem) in zip(values, choices, strict=True):
        every = (None, None) if problem else (float(surviving), 0.0)
        rows, error = every if choice is None else next(sizes)
        dropped = None if rule is None else counts[rule]
        share = choice.tail_share if isinstance(choice, LimitsChoice) else None
        t = None if choice is None else choice.values.get("t")
        points.append(Point(value, rows, error, surviving, dropped, counts[stages.DUPLICATE], share, t, problem))
    return points


def check_plot(path: str) -> None:
    """Raise RecipeError if the suffix of a plot's file is unknown, or its folder does not exist."""
    if not path.lower().endswith(tuple(f".{kind}" for kind in KINDS)):
        raise RecipeError(f"--plot {path}: accepted: a name that ends in {', '.join('.' + kind for kind in KINDS)}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise RecipeError(f"--plot {path}: no folder {os.path.dirname(path)}; accepted: a file in an existing folder")


def write_plot(path: str, points: Sequence[Point], number: SweptNumber, kept: int) -> None:
    """Write the chart of a sweep; `kept`: the rows that the run kept. Raises like `check_plot`, or OSError."""
    check_plot(path)
    write_chart(path, sweep_chart(points, number, kept))


def sweep_chart(points: Sequence[Point], number: SweptNumber, kept: int) -> dict[str, Any]:
    """Return the Vega-Lite spec: expected rows with their band, survivors above, and the run's kept rows, dashed."""
    text = f"{number.key}={number.before}…{number.after}" if number.before or number.after else number.key
    title = re.sub("<(?=[/!a-zA-Z])", "<\u200b", text)  # in HTML, the spec is in a script, which a tag could end
    return fill_spec("sweep", points=points, title=title, is_logarithmic=number.logarithmic, kept=kept)
