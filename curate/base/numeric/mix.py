"""The mixing of 64-bit numbers, by which draws, samples and buckets are made of hashes: the same on every machine."""

import numpy as np
from numba import njit

from curate.base.numeric.arrays import U64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ by the golden ratio, odd: the step of splitmix64


@njit(nogil=True, cache=True)
def mix64(z: U64) -> U64:
    """Apply splitmix64's finaliser (Steele, Lea, Flood 2014; constants of Stafford's Mix13) to a uint64 or an array."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
