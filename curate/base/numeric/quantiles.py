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
class RadixSearch:
    """The search for one key in each of several groups: the one that `wanted` smaller ones come before.

    Between passes that count: each round, every part counts the next digit of its keys that may still be the one
    (`count`), the counts are added up, and `narrow` takes the digit that holds the wanted rank.
    """

    wanted: I64  # [groups]
    width: int = 64  # bits of a key
    digit: int = DIGIT_BITS  # bits that a round finds, or fewer of the last ones
    rows: I64 | None = None  # [groups], how many keys there are; None before the first round
    bits: int = 0  # how many bits of the keys are known
    prefix: Any = 0  # uint64[groups], these bits
    before: Any = 0  # int64[groups], keys whose first bits are smaller
    left: int = 0  # keys that begin with these bits, in groups with more keys than wanted

    @property
    def _next(self) -> int:
        return min(self.digit, self.width - self.bits)

    def may_be(self, keys: U64, groups: I64) -> Mask:
        """Return which keys (uint64[n]) may still be their group's (int64[n], −1: in none): bool[n]."""
        if self.rows is None:
            return np.asarray(groups >= 0)
        begins = keys >> np.uint64(self.width - self.bits) == np.append(self.prefix, np.uint64(0))[groups]
        return np.asarray(begins & np.append(self.rows > self.wanted, False)[groups])

    def count(self, keys: U64, groups: I64) -> I64:
        """Count the next digit of a part's keys, as of `may_be`, by group: int64[groups << bits of the digit]."""
        chosen = self.may_be(keys, groups)
        digits = keys[chosen] >> np.uint64(self.width - self.bits - self._next) & np.uint64((1 << self._next) - 1)
        counters = (groups[chosen] << self._next) + digits.astype(np.int64)
        return np.bincount(counters, minlength=len(self.wanted) << self._next).astype(np.int64)

    def narrow(self, counts: I64) -> Self:
        """Return the state after a round, by the sum of all parts' counts; ValueError where it is of other data."""
        table = np.asarray(counts).reshape(len(self.wanted), 1 << self._next)
        rows = table.sum(axis=1) if self.rows is None else self.rows
        up_to = np.reshape(self.before, (-1, 1)) + np.cumsum(table, axis=1)
        if ((up_to[:, -1] <= self.wanted) & (rows > self.wanted)).any():
            raise ValueError("fewer keys are counted than in the round before: other data than before")
        digit = np.argmax(up_to > self.wanted[:, np.newaxis], axis=1)
        at = np.arange(len(rows)), digit
        return replace(
            self,
            rows=rows,
            bits=self.bits + self._next,
            prefix=self.prefix << np.uint64(self._next) | digit.astype(np.uint64),
            before=up_to[at] - table[at],
            left=int(table[at][rows > self.wanted].sum()),
        )


def _is_float(kind: pa.DataType) -> bool:
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"{kind} has no order keys; accepted: floating, integer and boolean columns")
    return bool(pa.types.is_floating(kind))
