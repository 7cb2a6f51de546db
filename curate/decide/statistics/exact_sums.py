"""Sums of floating point numbers without rounding, so that they are the same in any order and any parts.

A float64 is an integer times a power of two: a part's integers are summed by exponent, as Python integers, and then in
fixed point. Trades some hundred nanoseconds a value for results that do not depend on how a pool is cut.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.base.numeric.arrays import F64

_MANTISSA = 53
_SCALE = 1074 + _MANTISSA  # Σx is in units of 2^-_SCALE, Σx² in units of its square


@dataclass(frozen=True)
class ExactSums:
    """The number of values, their sum and that of their squares."""

    rows: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, values: F64) -> Self:
        """Return those of finite values."""
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
        """√(Σ(x − mean)² / rows), of a square root that is exact to 2⁻⁶⁴; there must be values."""
        variance = self.rows * self.squares - self.total**2  # in units of (2^-_SCALE / rows)²
        return math.isqrt(variance << 128) / (self.rows << _SCALE + 64)
