"""The interface that every statistic implements: a function of a number in SQL that looks at many rows, as zscore(x).

It is fitted on each unit, the summaries are merged, and their parameters applied to each row. Who uses it says which
rows it looks at; they come with a finite x, and rows without one get NULL. Summaries must merge exactly, in any order
and grouping: counts, least and greatest values, sums of integers (`exact_sums` adds up floating numbers exactly).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from curate.base.numeric.arrays import F64


class Statistic(ABC):
    """One statistic; it has no state."""

    key: ClassVar[str]  # the name of the function
    # Whether it is applied to each row's rank (how many rows have at most its x), not to x; `apply` then has `rows` too
    of_ranks: ClassVar[bool] = False

    @abstractmethod
    def fit(self, values: F64) -> Any:
        """Return a summary of a unit's values (float64[n], finite; n may be 0). Summaries are merged by `+`."""

    @abstractmethod
    def parameters(self, summary: Any) -> Mapping[str, float]:
        """Return the numbers that it is computed by, of all units' summary, by names that run.json has."""

    @abstractmethod
    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        """Return the statistic of each value (float64[n]); NaN stays."""
