"""The exact threshold for "the best fraction f" over distributed data, found with radix histograms.

In: a numeric column in any number of parts. Out: the threshold's key, a uint64 in the order of the values. The
threshold is descending[int(N·f)], as in DataComp, where N is the number of values that are neither null nor NaN. At
least int(N·f) + 1 rows have this value or a larger one: more if there are ties, and all rows if there are fewer.

Each pass over the keys finds 16 bits of the key from a summed histogram with 65,536 counters. Columns of at most 32
bits need two passes, others four. Each part needs 512 KiB. Neither a sort nor an inexact sketch is needed.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base.numeric.arrays import I64, U64, Mask

DIGIT_BITS = 16


def key_bits(kind: pa.DataType) -> int:
    """Return the number of bits in the order keys for a column of this type: 32 or 64."""
    return 32 if kind.bit_width <= 32 else 64


def order_keys(values: pa.Array, bits: int = 64) -> tuple[U64, Mask]:
    """Map numbers to keys that have the same order (uint64[rows]; 0 for null and NaN).

    Also return which rows are valid. Each kind of numbers and number of bits (see `key_bits`) has its own map, so the
    parts of a column may differ in width. The kinds are floats (as float64 or float32, without rounding; −0.0 is 0.0),
    signed integers, unsigned integers, and booleans.

    Raises:
        TypeError: the column has another type.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    is_float = _is_float(values.type)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    # numpy has no nulls: a column with nulls becomes float64, which rounds large integers.
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
    """Return the number that `order_keys` maps to `key`, for a column of type `kind` and its number of bits."""
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
    """Searches, in each of several groups, for the key that has `wanted` smaller keys.

    In each round, every part counts the next digit of the keys that are still candidates (`count`). The counts are
    added up, and `narrow` chooses the digit with the wanted rank.
    """

    wanted: I64  # [groups]
    width: int = 64  # number of bits in a key
    digit: int = DIGIT_BITS  # number of bits found per round; fewer in the last round
    rows: I64 | None = None  # [groups], number of keys; None before the first round
    bits: int = 0  # the number of known leading bits
    prefix: Any = 0  # uint64[groups], the known bits
    before: Any = 0  # int64[groups], the number of keys with smaller leading bits
    left: int = 0  # keys that begin with the known bits, in groups with more keys than wanted

    @property
    def _next(self) -> int:
        return min(self.digit, self.width - self.bits)

    def may_be(self, keys: U64, groups: I64) -> Mask:
        """Return which keys (uint64[n]) are still candidates for their groups (int64[n], −1: no group): bool[n]."""
        if self.rows is None:
            return np.asarray(groups >= 0)
        begins = keys >> np.uint64(self.width - self.bits) == np.append(self.prefix, np.uint64(0))[groups]
        return np.asarray(begins & np.append(self.rows > self.wanted, False)[groups])

    def count(self, keys: U64, groups: I64) -> I64:
        """Count the next digit of a part's keys that `may_be` accepts, by group: int64[groups << bits of the digit]."""
        chosen = self.may_be(keys, groups)
        digits = keys[chosen] >> np.uint64(self.width - self.bits - self._next) & np.uint64((1 << self._next) - 1)
        counters = (groups[chosen] << self._next) + digits.astype(np.int64)
        return np.bincount(counters, minlength=len(self.wanted) << self._next).astype(np.int64)

    def narrow(self, counts: I64) -> Self:
        """Return the state after a round, from the summed counts.

        Raises ValueError if the counts are from other data.
        """
        table = np.asarray(counts).reshape(len(self.wanted), 1 << self._next)
        rows = table.sum(axis=1) if self.rows is None else self.rows
        up_to = np.reshape(self.before, (-1, 1)) + np.cumsum(table, axis=1)
        if ((up_to[:, -1] <= self.wanted) & (rows > self.wanted)).any():
            raise ValueError("there are fewer keys than in the round before: the data changed")
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
