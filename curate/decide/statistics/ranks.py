"""Ranks: of each value of a pool, how many rows have at most this value, exactly, over distributed data."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import F64, I64, U64, Mask
from curate.base.numeric.quantiles import DIGIT_BITS, order_keys


def count_digits(values: F64) -> I64:
    """Count values by the first digit of their keys (int64[65536])."""
    return np.bincount(_digits(rank_keys(values)), minlength=1 << DIGIT_BITS).astype(np.int64)


def rank_keys(values: F64) -> U64:
    """Return keys (uint64) of finite values, in their order."""
    return order_keys(pa.array(values))[0]


def split_keys(values: F64, reached: Mask) -> Iterator[tuple[int, U64, I64]]:
    """Yield by first digit the distinct keys of a unit's values (NaN: none), and how many rows of each `reached`."""
    known = ~np.isnan(values)
    keys, places = np.unique(rank_keys(values[known]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, reached[known].astype(np.int64))
    digits = _digits(keys)
    for digit in np.unique(digits).tolist():
        chosen = slice(*np.searchsorted(digits, [digit, digit + 1]))
        yield digit, keys[chosen], counts[chosen]


def count_up_to(parts: Sequence[tuple[U64, I64]]) -> list[I64]:
    """Return, of each part's keys, how many rows of all parts have at most that key."""
    keys, places = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, np.concatenate([part for _, part in parts]))
    return np.split(np.cumsum(counts)[places], np.cumsum([len(part) for part, _ in parts])[:-1])


def ranks_of(values: F64, up_to: I64) -> I64:
    """Return of each row how many have at most its value, by those of its `split_keys` in order; −1 without a value."""
    ranks = np.full(len(values), -1, np.int64)
    known = ~np.isnan(values)
    ranks[known] = up_to[np.unique(rank_keys(values[known]), return_inverse=True)[1]]
    return ranks


def _digits(keys: U64) -> I64:
    return (keys >> np.uint64(64 - DIGIT_BITS)).astype(np.int64)
