"""Products of rows in float64, summed in the order of dimensions: the same on every processor and with every library."""

import numpy as np
from numba import njit

from curate.numeric.arrays import F32, F64


@njit(nogil=True, cache=True)
def squares(points: F32 | F64) -> F64:
    """Return a·a of each row (float64[n])."""
    out = np.empty(len(points))
    for i in range(len(points)):
        out[i] = dot(points[i], points[i])
    return out


@njit(nogil=True, cache=True)
def dot(a: F32 | F64, b: F32 | F64) -> float:
    """Return a·b, exact for what was float16."""
    total = 0.0
    for k in range(len(a)):
        total += np.float64(a[k]) * np.float64(b[k])
    return total
