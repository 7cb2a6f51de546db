"""The exact threshold of "the best fraction f" over distributed data, by radix histograms.

In: a numeric column in any number of parts. Out: the key (uint64, ordered as the values are) of descending[int(N·f)],
DataComp's cut, where N counts the values that are neither null nor NaN; keeping what is at least that value keeps
int(N·f) + 1 rows plus ties. Four passes over 64-bit keys each find 16 bits from a summed histogram of 65,536 counters:
four rounds and 512 KiB a part, instead of a sort or a sketch with an error. Nothing here is approximate.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from curate.numeric.arrays import I64, U64, Mask

DIGIT_BITS = 16
KEY_BITS = 64

_SIGN = np.uint64(1 << 63)


def order_keys(values: pa.Array) -> tuple[U64, Mask]:
    """Map numbers to keys that compare as the numbers do (uint64[rows]; 0 for null and NaN), and tell which are valid.

    One map per kind, so parts of a column may differ in width: floats (as float64, which holds every narrower one;
    −0.0 is 0.0), signed integers, unsigned integers, booleans. Nothing is rounded.

    Raises:
        TypeError: the column is of another type.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    floating = _is_float(values.type)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    # numpy has no nulls: a column with some would come out as float64, which rounds large integers.
    numbers = values.fill_null(False if pa.types.is_boolean(values.type) else 0).to_numpy(zero_copy_only=False)
    if floating:
        numbers = numbers.astype(np.float64)
        valid = valid & ~np.isnan(numbers)
        bits = (numbers + 0.0).view(np.uint64)
        keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    elif pa.types.is_signed_integer(values.type):
        keys = numbers.astype(np.int64).view(np.uint64) ^ _SIGN
    else:
        keys = numbers.astype(np.uint64)
    return np.where(valid, keys, np.uint64(0)), valid


def value_of(key: int, kind: pa.DataType) -> float | int | bool:
    """Return the number that `order_keys` of a column of type `kind` maps to `key`."""
    if _is_float(kind):
        bits = key ^ (1 << 63) if key >> 63 else key ^ ((1 << 64) - 1)
        return float(np.uint64(bits).view(np.float64))
    if pa.types.is_signed_integer(kind):
        return key - (1 << 63)
    return bool(key) if pa.types.is_boolean(kind) else key


@dataclass(frozen=True)
class Radix:
    """The search for the key of descending[int(N·f)], between passes that count.

    Each round, every part counts its keys' next digit (`histogram`), the counts are added up, and `narrow` takes the
    digit that holds the wanted rank. Four rounds find the key.
    """

    fraction: float  # f, in (0, 1)
    prefix: int = 0  # the leading bits found so far, as an integer
    bits: int = 0  # how many
    rank: int = 0  # how many keys with this prefix are larger than the wanted one; set by the first round
    total: int | None = None  # N, set by the first round

    @property
    def solved(self) -> bool:
        """Whether no pass is needed any more."""
        return self.bits == KEY_BITS or self.total == 0

    @property
    def key(self) -> int | None:
        """The threshold's key; None without values, so that nothing passes. Raises ValueError before it is solved."""
        if not self.solved:
            raise ValueError(f"only {self.bits} of {KEY_BITS} bits are known")
        return self.prefix if self.total else None

    def histogram(self, keys: U64) -> I64:
        """Count the next digit of one part's valid keys that begin with the prefix: int64[65536]."""
        if self.bits:
            keys = keys[keys >> np.uint64(KEY_BITS - self.bits) == np.uint64(self.prefix)]
        digits = (keys >> np.uint64(KEY_BITS - self.bits - DIGIT_BITS)) & np.uint64((1 << DIGIT_BITS) - 1)
        return np.bincount(digits.astype(np.int64), minlength=1 << DIGIT_BITS).astype(np.int64)

    def narrow(self, histogram: I64) -> Self:
        """Return the state after a round, by the sum of all parts' histograms; ValueError where it is of other data."""
        total = int(histogram.sum()) if self.total is None else self.total
        if total == 0:
            return replace(self, total=0)
        # Float multiplication, truncated, as DataComp's `int(len(x) * f)` does.
        rank = int(total * self.fraction) if self.total is None else self.rank
        at_least = np.cumsum(histogram[::-1])
        place = int(np.searchsorted(at_least, rank, side="right"))
        if place == len(histogram):
            raise ValueError(f"rank {rank} is not among the {int(at_least[-1])} keys counted: other data than before")
        above = int(at_least[place - 1]) if place else 0
        digit = len(histogram) - 1 - place
        prefix = self.prefix << DIGIT_BITS | digit
        return replace(self, prefix=prefix, bits=self.bits + DIGIT_BITS, rank=rank - above, total=total)


def threshold_mask(keys: U64, valid: Mask, key: int | None) -> Mask:
    """Return which rows are at least the threshold (bool[rows]): none for key None, and never an invalid one."""
    if key is None:
        return np.zeros(len(keys), bool)
    return valid & (keys >= np.uint64(key))


def _is_float(kind: pa.DataType) -> bool:
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"{kind} has no order keys; accepted: floating, integer and boolean columns")
    return bool(pa.types.is_floating(kind))
