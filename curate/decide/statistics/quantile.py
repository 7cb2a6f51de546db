"""quantile(x): the share of rows with at most this value (SQL's cume_dist). Ranks are counted exactly: see `ranks`."""

from collections.abc import Mapping

import numpy as np

from curate.base.numeric.arrays import F64
from curate.decide.statistics.statistic import Statistic, scaled


class Quantile(Statistic):
    """The share of rows with at most the value."""

    key, of_ranks = "quantile", True

    def fit(self, values: F64) -> np.int64:
        """Return the number of values."""
        return np.int64(len(values))

    def parameters(self, summary: np.int64) -> Mapping[str, float]:
        """Return nothing: `apply` gets the number of rows anyway."""
        return {}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        """Return the share of each rank."""
        return scaled(values, 0.0, parameters["rows"])
