"""The statistics: to add one, add a class to this file, or to its own, and list it in KINDS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.base.numeric.arrays import F64
from curate.decide.statistics.statistic import ExactSums, Statistic


class ZScore(Statistic):
    """zscore(x): (x - mean) / standard deviation (the population's), as scikit-learn's StandardScaler."""

    key = "zscore"

    def fit(self, values: F64) -> ExactSums:
        return ExactSums.of(values)

    def parameters(self, summary: ExactSums) -> Mapping[str, float]:
        mean, deviation = (summary.mean, summary.standard_deviation) if summary.rows else (0.0, 0.0)
        return {"mean": mean, "standard_deviation": deviation}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        return _scaled(values, parameters["mean"], parameters["standard_deviation"])


@dataclass(frozen=True)
class Extent:
    """The minimum and maximum of values; infinity and minus infinity without values."""

    least: float
    greatest: float

    def __add__(self, other: Self) -> Self:
        return type(self)(min(self.least, other.least), max(self.greatest, other.greatest))


class MinMax(Statistic):
    """minmax(x): (x − least) / (greatest − least), as scikit-learn's MinMaxScaler."""

    key = "minmax"

    def fit(self, values: F64) -> Extent:
        return Extent(float(np.min(values, initial=np.inf)), float(np.max(values, initial=-np.inf)))

    def parameters(self, summary: Extent) -> Mapping[str, float]:
        least, greatest = (summary.least, summary.greatest) if summary.least <= summary.greatest else (0.0, 0.0)
        return {"least": least, "greatest": greatest}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        return _scaled(values, parameters["least"], parameters["greatest"] - parameters["least"])


class Quantile(Statistic):
    """quantile(x): the share of rows up to this value (SQL's cume_dist). Ranks are exact: see `derived`."""

    key, of_ranks = "quantile", True

    def fit(self, values: F64) -> np.int64:
        return np.int64(len(values))

    def parameters(self, summary: np.int64) -> Mapping[str, float]:
        return {}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        return _scaled(values, 0.0, parameters["rows"])


def _scaled(values: F64, shift: float, width: float) -> F64:
    """Return (values − shift) / width, 0 where all are equal; NaN stays."""
    return (values - shift) / width if width else np.where(np.isnan(values), np.nan, 0.0)


KINDS: tuple[Statistic, ...] = (ZScore(), MinMax(), Quantile())
