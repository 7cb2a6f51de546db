"""minmax(x): (x − least) / (greatest − least); 0 where all are equal (scikit-learn's MinMaxScaler)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.base.numeric.arrays import F64
from curate.decide.statistics.statistic import Statistic, scaled


@dataclass(frozen=True)
class Extent:
    """The least and the greatest of some values: infinite, and the other way round, of none."""

    least: float
    greatest: float

    def __add__(self, other: Self) -> Self:
        """Return that of both parts."""
        return type(self)(min(self.least, other.least), max(self.greatest, other.greatest))


class MinMax(Statistic):
    """The place between the least and the greatest value."""

    key = "minmax"

    def fit(self, values: F64) -> Extent:
        """Return the extent of the values."""
        return Extent(float(np.min(values, initial=np.inf)), float(np.max(values, initial=-np.inf)))

    def parameters(self, summary: Extent) -> Mapping[str, float]:
        """Return the least and the greatest value."""
        if summary.least > summary.greatest:
            return {"least": 0.0, "greatest": 0.0}
        return {"least": summary.least, "greatest": summary.greatest}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        """Return the place of each value, 0 to 1."""
        return scaled(values, parameters["least"], parameters["greatest"] - parameters["least"])
