"""Sums integers over the rows that match each metadata entry. The sums of units can be added.

In: `matches`, a list of entry ids per row (list<int32>; null and empty lists have no match), and integer weights of
rows. Out: sums by entry. The sums of a part of the rows have only the entries that occur.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curate.base.numeric.arrays import I32, I64

_SPARSE = 16  # if fewer than 1 in this many entries occur, they are sorted instead of counted in a full vector


def list_entries(matches: pa.ListArray, n: int) -> tuple[I64, I32]:
    """Return offsets (int64[rows + 1]) and ids (int32) of a possibly sliced list array; a null row counts as empty."""
    if isinstance(matches, pa.ChunkedArray):
        matches = matches.combine_chunks()
    if matches.null_count:
        matches = pc.if_else(matches.is_valid(), matches, pa.scalar([], matches.type))
    offsets = matches.offsets.to_numpy().astype(np.int64)  # of the slice
    values = matches.values.slice(offsets[0], offsets[-1] - offsets[0])
    entries = (values if values.type == pa.int32() else values.cast(pa.int32())).to_numpy()
    offsets -= offsets[0]
    # The kernels use these ids as indices without a check.
    if len(entries) and (entries.min() < 0 or entries.max() >= n):
        raise ValueError(f"entry ids are in [{entries.min()}, {entries.max()}], but there are {n} entries")
    return offsets, entries


def own_entries(matches: pa.ListArray, n: int) -> tuple[pa.ListArray, I32]:
    """Return matches as indices into the entries (of n) that occur, and these entries (int32, ascending)."""
    offsets, entries = list_entries(matches, n)
    occurring, numbers = np.unique(entries, return_inverse=True)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers, pa.int32())), occurring


class SparseSums(NamedTuple):
    """Sums over some rows by entry, only for entries that one of the rows matches."""

    entries: I32  # [k], ascending
    values: npt.NDArray  # [k] or, of several weights, [weights, k], of the weights' type
    size: int  # the number of entries

    def dense(self, n: int) -> npt.NDArray:
        out = np.zeros((*self.values.shape[:-1], n), self.values.dtype)
        out[..., self.entries] = self.values
        return out


class EntryVector(np.ndarray[Any, np.dtype[Any]]):
    """Numbers for all entries, pickled without zeros if few are nonzero."""

    @classmethod
    def of(cls, numbers: npt.NDArray) -> Self:
        return np.asarray(numbers).view(cls)

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain = np.asarray(self)
        nonzero = np.flatnonzero(plain)
        if len(nonzero) > plain.size // 4:
            return EntryVector.of, (plain,)
        return _from_sparse, (plain.shape, plain.dtype, nonzero, plain.ravel()[nonzero])


def _from_sparse(shape: tuple[int, ...], kind: np.dtype, nonzero: I64, values: npt.NDArray) -> EntryVector:
    out = np.zeros(shape, kind)
    out.ravel()[nonzero] = values
    return EntryVector.of(out)


def sparse_sums(matches: pa.ListArray, weights: Sequence[npt.NDArray[np.int64 | np.uint64]], n: int) -> SparseSums:
    """For each of n entries, sum the integer weights (all int64 or all uint64[rows]) of the rows that match it."""
    offsets, entries = list_entries(matches, n)
    summands = np.stack(weights, axis=1).view(np.int64)  # wraps around like uint64
    if len(entries) * _SPARSE > n:
        matched, sums = _entry_sums(offsets, entries, summands, n)
    else:
        matched, numbers = np.unique(entries, return_inverse=True)
        _, sums = _entry_sums(offsets, numbers.astype(np.int32), summands, len(matched))
    return SparseSums(matched.astype(np.int32, copy=False), sums.view(weights[0].dtype), n)


def sparse_counts(matches: pa.ListArray, n: int) -> SparseSums:
    """Count the rows that match each of n entries."""
    sums = sparse_sums(matches, [np.ones(len(matches), np.int64)], n)
    return SparseSums(sums.entries, sums.values[0], n)


@njit(nogil=True, cache=True)
def _entry_sums(offsets: I64, entries: I32, weights: I64, n: int) -> tuple[I32, I64]:
    """Return the entries of n that occur, ascending, and their sums of weights (int64[rows, k]): int64[k, entries]."""
    sums, occurs = np.zeros((n, weights.shape[1]), np.int64), np.zeros(n, np.bool_)
    for row in range(len(weights)):
        for i in range(offsets[row], offsets[row + 1]):
            e = entries[i]
            occurs[e] = True
            for j in range(weights.shape[1]):
                sums[e, j] += weights[row, j]
    matched = np.flatnonzero(occurs).astype(np.int32)
    out = np.empty((weights.shape[1], len(matched)), np.int64)
    for i in range(len(matched)):
        for j in range(weights.shape[1]):
            out[j, i] = sums[matched[i], j]
    return matched, out
