"""The interface of statistics: SQL functions of a number that depend on many rows, such as zscore(x).

A statistic is fitted on each unit, the summaries are merged, and their parameters are applied to each row. The caller
selects the rows; all have a finite x, and rows without one get NULL. Summaries must merge exactly, in any order and
grouping: counts, minima and maxima, sums of integers (`ExactSums` sums floating-point numbers exactly).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from curate.base.numeric.arrays import F64

_MANTISSA = 53
_SCALE = 1074 + _MANTISSA  # Σx is in units of 2^-_SCALE, Σx² in units of its square


class Statistic(ABC):
    """A statistic; it has no state."""

    key: ClassVar[str]  # the name of the function
    # Whether it is applied to each row's rank (the number of rows up to its x), not to x; then `apply` also gets `rows`
    of_ranks: ClassVar[bool] = False

    @abstractmethod
    def fit(self, values: F64) -> Any:
        """Return a summary of a unit's values (float64[n], finite; n may be 0). Summaries are merged by `+`."""

    @abstractmethod
    def parameters(self, summary: Any) -> Mapping[str, float]:
        """Return the parameters from the summary of all units, by their names in run.json."""

    @abstractmethod
    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        """Return the statistic of each value (float64[n]); NaN stays."""


@dataclass(frozen=True)
class ExactSums:
    """The number of values, and the exact sums of values and squares, which do not depend on order or grouping.

    A float64 is an integer times a power of two: a part's integers are summed by exponent, as Python integers, and then
    in fixed point.
    """

    rows: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, values: F64) -> Self:
        """Return the sums of finite values."""
        if not len(values):
            return cls()
        fractions, exponents = np.frexp(values)
        mantissas = (fractions * 2.0**_MANTISSA).astype(np.int64)
        order = np.argsort(exponents, kind="stable")
        distinct, starts = np.unique(exponents[order], return_index=True)
        total = squares = 0
        for exponent, part in zip(distinct.tolist(), np.split(mantissas[order], starts[1:]), strict=True):
            integers, shift = part.astype(object), exponent - _MANTISSA + _SCALE
            total += int(integers.sum()) << shift
            squares += int(integers @ integers) << 2 * shift
        return cls(len(values), total, squares)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.rows + other.rows, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        return self.total / (self.rows << _SCALE)

    @property
    def standard_deviation(self) -> float:
        """√(Σ(x − mean)² / rows), with a square root that is exact to 2⁻⁶⁴; there must be values."""
        variance = self.rows * self.squares - self.total**2  # in units of (2^-_SCALE / rows)²
        return math.isqrt(variance << 128) / (self.rows << _SCALE + 64)
