"""The exact threshold of "the best fraction f" over distributed data, by radix histograms.

In: a numeric column in any number of parts. Out: the key (uint64, ordered as the values are) of descending[int(N·f)],
DataComp's cut, where N counts the values that are neither null nor NaN; keeping what is at least that value keeps
int(N·f) + 1 rows plus ties, or all where there are no more. Each pass over the keys finds 16 bits from a summed
histogram of 65,536 counters: two rounds for columns of at most 32 bits, as most are, or four, and 512 KiB a part,
instead of a sort or a sketch with an error.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base.numeric.arrays import I64, U64, Mask

DIGIT_BITS = 16


def key_bits(kind: pa.DataType) -> int:
    """Return how many bits order keys of a column of this type need: 32 or 64."""
    return 32 if kind.bit_width <= 32 else 64


def order_keys(values: pa.Array, bits: int = 64) -> tuple[U64, Mask]:
    """Map numbers to keys that compare as the numbers do (uint64[rows]; 0 for null and NaN), and tell which are valid.

    One map per kind and number of bits (see `key_bits`), so parts of a column may differ in width: floats (as float64
    or float32, without rounding; −0.0 is 0.0), signed integers, unsigned integers, booleans.

    Raises:
        TypeError: the column is of another type.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    is_float = _is_float(values.type)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    # numpy has no nulls: a column with some would come out as float64, which rounds large integers.
    numbers = values.fill_null(False if pa.types.is_boolean(values.type) else 0).to_numpy(zero_copy_only=False)
    if is_float:
        floats, unsigned = (np.float32, np.uint32) if bits == 32 else (np.float64, np.uint64)
        numbers = numbers.astype(floats)
        valid = valid & ~np.isnan(numbers)
        pattern: npt.NDArray[Any] = (numbers + floats(0)).view(unsigned)
        sign = unsigned(1 << (bits - 1))
        keys = np.where(pattern & sign, ~pattern, pattern | sign).astype(np.uint64)
    elif pa.types.is_signed_integer(values.type):
        keys = numbers.astype(np.int64).view(np.uint64) + np.uint64(1 << (bits - 1))
    else:
        keys = numbers.astype(np.uint64)
    return np.where(valid, keys, np.uint64(0)), valid


def value_of(key: int, kind: pa.DataType) -> float | int | bool:
    """Return the number that `order_keys` of a column of type `kind`, in as many bits as it needs, maps to `key`."""
    bits = key_bits(kind)
    sign = 1 << (bits - 1)
    if _is_float(kind):
        pattern = key ^ sign if key & sign else key ^ ((1 << bits) - 1)
        return float(np.uint32(pattern).view(np.float32) if bits == 32 else np.uint64(pattern).view(np.float64))
    if pa.types.is_signed_integer(kind):
        return key - sign
    return bool(key) if pa.types.is_boolean(kind) else key


@dataclass(frozen=True)
class Radix:
    """The search for the key of descending[int(N·f)], or of the `rows`-th largest, between passes that count.

    Each round, every part counts its keys' next digit (`histogram`), the counts are added up, and `narrow` takes the
    digit that holds the wanted rank. A round finds `digit` bits of the key.
    """

    fraction: float  # f, in (0, 1]
    width: int = 64  # bits of a key
    prefix: int = 0  # the leading bits found so far, as an integer
    bits: int = 0  # how many
    rank: int = 0  # how many keys with this prefix are larger than the wanted one; set by the first round
    total: int | None = None  # the number of keys, set by the first round
    digit: int = DIGIT_BITS
    rows: int | None = None  # in place of a fraction: how many of the largest

    @property
    def solved(self) -> bool:
        """Whether no pass is needed any more."""
        return self.bits == self.width or self.total == 0

    @property
    def key(self) -> int | None:
        """The threshold's key; None without values, so that nothing passes. Raises ValueError before it is solved."""
        if not self.solved:
            raise ValueError(f"only {self.bits} of {self.width} bits are known")
        return self.prefix if self.total else None

    def histogram(self, keys: U64) -> I64:
        """Count the next digit of a part's valid keys with the prefix: int64[2^digit], or fewer of the last bits."""
        if self.bits:
            keys = keys[keys >> np.uint64(self.width - self.bits) == np.uint64(self.prefix)]
        digits = (keys >> np.uint64(self.width - self.bits - self._next)) & np.uint64((1 << self._next) - 1)
        return np.bincount(digits.astype(np.int64), minlength=1 << self._next).astype(np.int64)

    @property
    def _next(self) -> int:
        """How many bits the next round finds; after the last one, where nothing is counted, any number."""
        return min(self.digit, self.width - self.bits) or self.digit

    def narrow(self, histogram: I64, base: int | None = None) -> Self:
        """Return the state after a round, by the sum of all parts' histograms; ValueError where it is of other data.

        `base` is N where it is another number than that of the keys.
        """
        total = int(histogram.sum()) if self.total is None else self.total
        if total == 0:
            return replace(self, total=0)
        rank = self.rank
        if self.total is None:  # float multiplication, truncated, as DataComp's `int(len(x) * f)` does
            n = total if base is None else base
            rank = min(int(n * self.fraction) if self.rows is None else self.rows - 1, total - 1)
        at_least = np.cumsum(histogram[::-1])
        digit = int(np.searchsorted(at_least, rank, side="right"))
        if digit == len(histogram):
            raise ValueError(f"rank {rank} is not among the {int(at_least[-1])} keys counted: other data than before")
        above = int(at_least[digit - 1]) if digit else 0
        prefix = self.prefix << self._next | (len(histogram) - 1 - digit)
        return replace(self, prefix=prefix, bits=self.bits + self._next, rank=rank - above, total=total)


def threshold_mask(keys: U64, valid: Mask, key: int | None) -> Mask:
    """Return which rows are at least the threshold (bool[rows]): none for key None, and never an invalid one."""
    return np.zeros(len(keys), bool) if key is None else valid & (keys >= np.uint64(key))


def _is_float(kind: pa.DataType) -> bool:
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"{kind} has no order keys; accepted: floating, integer and boolean columns")
    return bool(pa.types.is_floating(kind))
