"""Logarithm, exponential and mixing of hashes for float64, with the same bits as result on every machine.

The logarithm and exponential of numpy and C libraries differ in the last digit between processors and versions, so a
draw that compares such numbers could differ too. The functions here use only operations that IEEE requires to be
rounded exactly. Their error is about 2 ulp.
"""

import math

import numpy as np
from numba import njit

from curate.base.numeric.arrays import F64, U64

_LN2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 0.693147182464599609375, -1.904654299957767878541823e-9  # with 24 bits, so k·high is exact
_HALF = 0.7071067811865476  # √½
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio, and odd: the step of splitmix64


@njit(nogil=True, cache=True)
def mix64(z: U64) -> U64:
    """Apply splitmix64's finalizer (Steele, Lea, Flood 2014; constants of Stafford's Mix13) to a uint64 or an array."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def log(x: float) -> float:
    """Return the natural logarithm of a positive finite number, as 2·artanh((m − 1) / (m + 1)) of its mantissa m."""
    m, e = math.frexp(x)
    if m < _HALF:
        m, e = 2.0 * m, e - 1
    s = (m - 1.0) / (m + 1.0)
    z, series = s * s, 0.0
    for k in range(11, -1, -1):
        series = series * z + 1.0 / (2 * k + 1)
    return e * _LN2_HIGH + (e * _LN2_LOW + 2.0 * s * series)


@njit(nogil=True, cache=True)
def exp(x: float) -> float:
    """Return e to the power of a number: 0 for numbers below −700, and infinity for numbers above 700."""
    if x < -700.0 or x > 700.0:
        return 0.0 if x < 0 else math.inf
    k = math.floor(x / _LN2 + 0.5)
    r, series = (x - k * _LN2_HIGH) - k * _LN2_LOW, 1.0
    for n in range(14, 0, -1):
        series = 1.0 + series * r / n
    return math.ldexp(series, int(k))


@njit(nogil=True, cache=True)
def unit(bits: U64) -> float:
    """Return a number in (0, 1) from 64 random bits, at least 2⁻⁵³ away from 0 and 1."""
    return (np.float64(bits >> np.uint64(12)) + 0.5) * 2.0**-52


@njit(nogil=True, cache=True)
def exponentials(bits: U64) -> F64:
    """Return exponentially distributed numbers −log(u), one for each group of 64 random bits (float64[n])."""
    out = np.empty(len(bits))
    for i in range(len(bits)):
        out[i] = -log(unit(bits[i]))
    return out


@njit(nogil=True, cache=True)
def one_minus_exp(x: F64) -> F64:
    """Return 1 − e⁻ˣ for each number x, which must be at least 0 (float64[n])."""
    out = np.empty(len(x))
    for i in range(len(x)):
        if x[i] < 0.5:
            series = 1.0
            for n in range(16, 1, -1):
                series = 1.0 - series * x[i] / n
            out[i] = x[i] * series
        else:
            out[i] = 1.0 - exp(-x[i])
    return out
