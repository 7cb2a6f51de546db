"""What pages of Parquet hold, unpacked, by compiled loops: the longest text of a dictionary, and the sum of deltas.

Deltas (DELTA_BINARY_PACKED) are lengths of texts. Arrow makes room for as many as they claim to be, and decodes them
all, before it looks at how many values the page has.
"""

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def longest_text(data: Any) -> Any:
    """Return the bytes of the longest text of those that are one after another, each behind its length (uint32)."""
    longest: Any = 0
    at: Any = 0
    while at + 4 <= len(data):
        length = np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16
        length |= np.int64(data[at + 3]) << 24
        at += 4 + length
        longest = max(longest, length)
    return longest


@njit(nogil=True, cache=True)
def _number(data: Any, at: Any) -> Any:
    """Return the number at a place of bytes (ULEB128), and the place behind it: behind the end where there is none."""
    value: Any = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        value |= (np.int64(data[at]) & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    return value, len(data) + 1


@njit(nogil=True, cache=True)
def _wrapped(value: Any) -> Any:
    return ((value + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)


@njit(nogil=True, cache=True)
def sum_deltas(data: Any, at: Any, highest: Any) -> Any:
    """Return how many numbers (int32) are at a place, the sum of those over 0, and the place behind them.

    Of bytes that are none, or more than `highest` numbers, -1, 0 and 0.
    """
    block, at = _number(data, at)
    parts, at = _number(data, at)
    count, at = _number(data, at)
    first, at = _number(data, at)
    if at > len(data) or count > highest or parts < 1 or block < parts:
        return -1, 0, 0
    value = (first >> 1) ^ -(first & 1)
    total: Any = max(value, 0) if count else 0
    left = count - 1
    while left > 0:
        least, at = _number(data, at)
        least = (least >> 1) ^ -(least & 1)
        widths, at = at, at + parts
        if at > len(data):
            return -1, 0, 0
        for part in range(parts):
            width, bit = np.int64(data[widths + part]), at * 8
            if left <= 0:
                break
            at += block // parts * width // 8
            if width > 32 or at > len(data):
                return -1, 0, 0
            for _ in range(min(left, block // parts)):
                delta: Any = 0
                for place in range(width):
                    delta |= (np.int64(data[bit >> 3]) >> (bit & 7) & 1) << place
                    bit += 1
                value = _wrapped(value + least + delta)
                total += max(value, 0)
            left -= block // parts
    return count, total, at
