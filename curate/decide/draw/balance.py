"""Balancing: a limit of rows for each entry, and the deterministic draw that enforces it (MetaCLIP).

In: `matches`, a list of ascending entry ids a row (null and empty lists are rows without a match), `counts` (int64[n]),
the rows that match each entry, and `limits`, the rows that each entry may have: int64[n], or int64[1] where all entries
have the same, each at least 1 (`schemes` return them). Out: per row the probability π of being kept (float64), a `draw`
(float64, kept iff below 1), and expected sizes. Source: "Demystifying CLIP Data" (arXiv 2309.16671), section 3.3:
p[e] = limit[e] / max(count[e], limit[e]); a row stays if any of its entries' independent draws succeeds:
π = 1 − ∏(1 − p[e]).

Draws are hashes of (uid, entry's string, seed), so they do not depend on sharding, order or retries, and the kept sets
nest as limits grow. Integers decide: a draw compares a 64-bit hash with ⌊limit·2⁶⁴ / count⌋, a size is a sum of π
rounded to 2⁻³². Both trade a little arithmetic for results that are equal on every machine and for every partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curate.base import ids
from curate.base.numeric.arrays import F64, I32, I64, U64, Mask
from curate.base.numeric.mix import GOLDEN, mix64

ONE = 1 << 32  # a probability of 1 in fixed point

_SPARSE = 16  # where entries are fewer than 1 in so many, they are sorted, and there is no vector of all
_BELOW_ONE = float(np.nextafter(1.0, 0.0))
_TWO52_BITS = np.float64(2.0**52).view(np.uint64)


def probabilities(counts: I64, limits: I64) -> F64:
    """Return p = limit / max(count, limit) of each entry (float64[n]): 1 in the tail, of entries up to their limit."""
    return np.asarray(_checked(limits, len(counts)) / np.maximum(counts, limits).astype(np.float64), np.float64)


def limits_of(p: F64, counts: I64) -> I64:
    """Return limits (int64[n]) that give these `probabilities` and the same draws: of the tail, its counts."""
    return np.maximum(1, np.rint(p * counts)).astype(np.int64)


def tail_shares(counts: I64) -> tuple[I64, F64]:
    """Return the distinct counts, ascending and without 0, and of each the share of smaller ones in the sum of all."""
    distinct, entries = np.unique(counts[counts > 0], return_counts=True)
    sums = distinct * entries
    return distinct, (np.cumsum(sums) - sums) / max(1, int(sums.sum()))


def tail_share_t(counts: I64, share: float) -> int:
    """Return the count whose share in `tail_shares` is nearest to `share`, the first of equals; 1 without counts.

    As MetaCLIP 2 takes t from the share that English has ("Meta CLIP 2", arXiv 2507.22062), zero counts left out.
    """
    distinct, shares = tail_shares(counts)
    return int(distinct[np.argmin(np.abs(shares - share))]) if len(distinct) else 1


def draw(
    uids: pa.Array, matches: pa.ListArray, counts: I64, limits: I64, keys: U64, seed: int, earlier: F64 | None = None
) -> F64:
    """Draw each row: the smallest u/p over its entries, where u is a hash of (uid, entry, seed) in [0, 1).

    Where a run before this one drew the row, that probability is part of the hash: else u would be known to be small.

    Args:
        uids: string[rows] of 32 hex digits; the low 64 bits take part.
        matches, counts, limits: as the module says.
        keys: uint64[n], `curate.base.ids.entry_keys` of the entries.
        seed: any integer, taken modulo 2⁶⁴.
        earlier: float64[rows], the probability with which the row came into the pool; NaN and 1: it was not drawn;
            None: no row was.

    Returns:
        float64[rows], below 1 iff some matched entry has count ≤ limit or u < ⌊limit·2⁶⁴ / count⌋ in exact integers
        (where rounding differs, the value is moved to the side of 1 that the integers say); +inf without a match.

    Raises:
        ValueError: a limit < 1, an id is not in [0, n), or lengths differ.
    """
    counts = np.asarray(counts, np.int64)
    offsets, entries = _lists(matches, len(counts))
    units, keys = ids.uid_halves(uids)[1], np.asarray(keys, np.uint64)
    if len(units) != len(offsets) - 1 or len(keys) != len(counts):
        raise ValueError(f"{len(units)} uids for {len(offsets) - 1} rows, {len(keys)} keys for {len(counts)} counts")
    if earlier is not None:
        was_drawn = ~(np.isnan(earlier) | (earlier == 1))
        units = np.where(was_drawn, units ^ mix64(np.asarray(earlier, np.float64).view(np.uint64)), units)
    limits = _checked(limits, len(counts))
    return np.asarray(_draw(units, offsets, entries, counts, limits, keys, np.uint64(seed % (1 << 64))))


def entry_draws(
    uid: str, entries: Sequence[str], p: F64, counts: I64 | None, t: int | None, seed: int, earlier: float | None
) -> list[float]:
    """Return u/p of each entry of a row alone, as `draw` has them.

    `counts` are None where they are of another run: then they follow from p = t / max(count, t).
    """
    if counts is None:
        counts = np.rint((t or 1) / p).astype(np.int64)
    alone = pa.array([[place] for place in range(len(entries))], pa.list_(pa.int32()))
    keys, uids = ids.entry_keys(pa.array(entries, pa.string())), pa.array([uid] * len(entries), pa.string())
    before = None if earlier is None else np.full(len(entries), earlier, np.float64)
    return [float(u) for u in draw(uids, alone, counts, limits_of(p, counts), keys, seed, before)]


def inclusion_probability(matches: pa.ListArray, p: F64) -> F64:
    """Return π = 1 − ∏(1 − p[e]) of each row (float64[rows]): exactly 1 where some p is 1, 0 without a match."""
    return np.asarray(_inclusion(*_lists(matches, len(p)), np.asarray(p, np.float64)))


def fixed_point(pi: F64) -> U64:
    """Return π rounded to 2⁻³², half to even, as an integer number of 2⁻³² (uint64)."""
    return np.asarray(np.rint(pi * float(ONE)), np.uint64)


def expected_rows(matches: pa.ListArray, counts: I64, limits: I64) -> U64:
    """Return Σ fixed_point(π) of a part of the pool (uint64[k]), for each of k choices of limits, in one pass.

    `limits` are int64[k, n] or [k, 1], of each entry ascending; `counts` are of the whole pool. Results of parts add
    up: as Python ints, where a pool may have more than the 2³² − 1 rows that a sum holds.
    """
    return np.asarray(_expected(*_lists(matches, len(counts)), *_choices(counts, limits)))


def variances(matches: pa.ListArray, counts: I64, limits: I64) -> F64:
    """Return Σπ(1−π), the variance of the rows drawn, for each of k choices (float64[k]); see `expected_rows`."""
    return np.asarray(_variances(*_lists(matches, len(counts)), *_choices(counts, limits)))


@dataclass(frozen=True)
class SparseSums:
    """Sums over some rows by entry: those entries alone that one of the rows matches."""

    entries: I32  # [k], ascending
    values: npt.NDArray  # [k] or, of several weights, [weights, k], of the weights' type

    def dense(self, n: int) -> npt.NDArray:
        """Return the sums of all of n entries ([n] or [weights, n])."""
        out = np.zeros((*self.values.shape[:-1], n), self.values.dtype)
        out[..., self.entries] = self.values
        return out


class EntryVector(np.ndarray):
    """Numbers of all entries that travel as those other than 0, where these are few; what arrives is a plain array."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return what `pickle` asks for."""
        plain = np.asarray(self)
        places = np.flatnonzero(plain)
        if len(places) > plain.size // 4:
            return plain.__reduce_ex__(protocol)
        return _from_sparse, (plain.shape, plain.dtype, places, plain.ravel()[places])


def _from_sparse(shape: tuple[int, ...], kind: np.dtype, places: I64, values: npt.NDArray) -> npt.NDArray:
    out = np.zeros(shape, kind)
    out.ravel()[places] = values
    return out


def sparse_sums(matches: pa.ListArray, weights: Sequence[npt.NDArray[np.int64 | np.uint64]], n: int) -> SparseSums:
    """Sum rows' integer weights (each int64 or uint64[rows]) over the entries, of n, that they match."""
    offsets, entries = _lists(matches, n)
    kinds = {weight.dtype for weight in weights}
    if any(len(w) != len(offsets) - 1 for w in weights) or kinds not in ({np.dtype("i8")}, {np.dtype("u8")}):
        raise ValueError(f"weights of {len(offsets) - 1} rows are expected, all int64 or all uint64")
    summands = np.stack(weights, axis=1).view(np.int64)  # which wraps around as uint64 does
    if len(entries) * _SPARSE > n:
        matched, sums = _entry_sums(offsets, entries, summands, n)
    else:
        matched, places = np.unique(entries, return_inverse=True)
        _, sums = _entry_sums(offsets, places.astype(np.int32), summands, len(matched))
    return SparseSums(matched.astype(np.int32, copy=False), sums.view(*kinds))


def sparse_counts(matches: pa.ListArray, alive: Mask | None, n: int) -> SparseSums:
    """Count the rows that match each entry, of n, among those that `alive` marks (bool[rows]; all of them if None)."""
    weights = np.ones(len(matches), np.int64) if alive is None else np.asarray(alive, bool).astype(np.int64)
    sums = sparse_sums(matches, [weights], n)
    return SparseSums(sums.entries, sums.values[0])


def entry_sums(matches: pa.ListArray, weights: npt.NDArray[np.int64 | np.uint64], n: int) -> npt.NDArray:
    """Sum rows' integer weights (int64 or uint64[rows]) over the entries that they match: [n] of the weights' type."""
    return np.asarray(sparse_sums(matches, [weights], n).dense(n)[0])


def _checked(limits: I64, n: int) -> I64:
    limits = np.asarray(limits, np.int64)
    if limits.shape[-1] not in (1, n):
        raise ValueError(f"{limits.shape[-1]} limits for {n} entries")
    if limits.size and limits.min() < 1:
        raise ValueError(f"a limit is {limits.min()}, not at least 1")
    return limits


def _choices(counts: I64, limits: I64) -> tuple[I64, I64, F64]:
    """Return counts, and limits (int64 and float64) as kernels take them: [n, k], or [k] where entries share them."""
    counts, limits = np.asarray(counts, np.int64), _checked(limits, len(counts))
    if (np.diff(limits, axis=0) < 0).any():
        raise ValueError("limits fall from one choice to the next; accepted: ascending ones")
    by_entry = np.ascontiguousarray(limits[:, 0] if limits.shape[1] == 1 else limits.T)
    return counts, by_entry, by_entry.astype(np.float64)


def _lists(matches: pa.ListArray, n: int) -> tuple[I64, I32]:
    """Return offsets (int64[rows + 1]) and ids (int32) of a possibly sliced list array; a null row is an empty one."""
    if isinstance(matches, pa.ChunkedArray):
        matches = matches.combine_chunks()
    if matches.null_count:
        matches = pc.if_else(matches.is_valid(), matches, pa.scalar([], matches.type))
    offsets = matches.offsets.to_numpy().astype(np.int64)  # of a slice, its own
    values = matches.values.slice(offsets[0], offsets[-1] - offsets[0])
    entries = (values if values.type == pa.int32() else values.cast(pa.int32())).to_numpy()
    offsets -= offsets[0]
    # The kernels index by these ids without a check.
    if len(entries) and (entries.min() < 0 or entries.max() >= n):
        raise ValueError(f"entry ids are in [{entries.min()}, {entries.max()}], but there are {n} entries")
    return offsets, entries


@njit(nogil=True, cache=True)
def _threshold(t: int, count: int) -> np.uint64:
    """Return ⌊t·2⁶⁴ / count⌋ for 1 ≤ t < count < 2⁶³, by long division: two digits of 32 bits, or 64 of one bit."""
    rest, divisor = np.uint64(t), np.uint64(count)
    if count < 1 << 32:
        rest <<= np.uint64(32)
        high = rest // divisor
        return (high << np.uint64(32)) | (((rest - high * divisor) << np.uint64(32)) // divisor)
    quotient = np.uint64(0)
    for _ in range(64):
        rest <<= np.uint64(1)
        quotient <<= np.uint64(1)
        if rest >= divisor:
            rest -= divisor
            quotient |= np.uint64(1)
    return quotient


@njit(nogil=True, cache=True)
def _draw(units: U64, offsets: I64, entries: I32, counts: I64, limits: I64, keys: U64, seed: np.uint64) -> F64:
    out, each = np.empty(len(units)), len(limits) > 1
    for row in range(len(units)):
        best = np.inf
        for i in range(offsets[row], offsets[row + 1]):
            e = entries[i]
            u = mix64(units[row] ^ mix64(keys[e] * GOLDEN + seed))
            value, count, limit = u * 2.0**-64, counts[e], limits[e if each else 0]
            if count <= limit:
                value = min(value, _BELOW_ONE)
            else:
                value /= limit / count
                value = min(value, _BELOW_ONE) if u < _threshold(limit, count) else max(value, 1.0)
            best = min(best, value)
        out[row] = best
    return out


@njit(nogil=True, cache=True)
def _inclusion(offsets: I64, entries: I32, p: F64) -> F64:
    out = np.empty(len(offsets) - 1)
    for row in range(len(out)):
        miss = 1.0
        for i in range(offsets[row], offsets[row + 1]):
            miss *= 1.0 - p[entries[i]]
        out[row] = 1.0 - miss
    return out


# Numba compiles these kernels for limits of either shape, [k] (the same for all entries) or [n, k], and drops the
# branches of the other.


@njit(nogil=True, cache=True)
def _first_certain(entries: I32, begin: int, end: int, counts: I64, limits: I64) -> int:
    """Return the first choice in which one of a row's entries may have all its rows: from there on π is 1."""
    if limits.ndim == 1:
        rarest = counts[entries[begin]]
        for i in range(begin + 1, end):
            rarest = min(rarest, counts[entries[i]])
        return int(np.searchsorted(limits, rarest))
    first = int(limits.shape[1])
    for i in range(begin, end):
        first = min(first, int(np.searchsorted(limits[entries[i]], counts[entries[i]])))
    return first


@njit(nogil=True, cache=True)
def _expected(offsets: I64, entries: I32, counts: I64, limits: I64, floats: F64) -> U64:
    """Return Σ fixed_point(π) per choice (ascending), bit for bit what `_inclusion` and `fixed_point` give."""
    k = limits.shape[-1]
    sums = np.zeros(k, np.uint64)
    certain = np.zeros(k + 1, np.uint64)  # rows by their first certain choice
    miss = np.empty(k)
    bits = miss.view(np.uint64)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        if begin == end:
            continue
        first = _first_certain(entries, begin, end, counts, limits)
        certain[first] += np.uint64(1)
        miss[:first] = 1.0
        for i in range(begin, end):
            count = np.float64(counts[entries[i]])
            limit = floats if floats.ndim == 1 else floats[entries[i]]
            for j in range(first):
                miss[j] *= 1.0 - limit[j] / count
        # Adding 2^52 rounds to an integer, half to even, and leaves it in the low bits: rint that vectorises.
        for j in range(first):
            miss[j] = (1.0 - miss[j]) * 2.0**32 + 2.0**52
        for j in range(first):
            sums[j] += bits[j] - _TWO52_BITS
    reached = np.uint64(0)
    for j in range(k):
        reached += certain[j]
        sums[j] += reached << np.uint64(32)
    return sums


@njit(nogil=True, cache=True)
def _variances(offsets: I64, entries: I32, counts: I64, limits: I64, floats: F64) -> F64:
    """Return Σπ(1−π) per choice (ascending); a row adds nothing where π is 1."""
    k = limits.shape[-1]
    sums = np.zeros(k)
    miss = np.empty(k)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        if begin == end:
            continue
        first = _first_certain(entries, begin, end, counts, limits)
        miss[:first] = 1.0
        for i in range(begin, end):
            count = np.float64(counts[entries[i]])
            limit = floats if floats.ndim == 1 else floats[entries[i]]
            for j in range(first):
                miss[j] *= 1.0 - limit[j] / count
        for j in range(first):
            sums[j] += miss[j] * (1.0 - miss[j])
    return sums


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
