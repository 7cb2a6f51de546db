"""The probability that balancing keeps a row, from the limits of its entries, and the draw (MetaCLIP).

In: `matches`, a list of ascending entry ids per row (null and empty lists have no match), `counts` (int64[n]), the rows
that match each entry, and `limits`, the maximum rows of each entry, at least 1: int64[n], or int64[1] if all entries
have the same. Source: "Demystifying CLIP Data" (arXiv 2309.16671), section 3.3: p[e] = limit[e] / max(count[e],
limit[e]); a row stays if any entry's independent draw succeeds: π = 1 − ∏(1 − p[e]).

Draws are hashes of (uid, entry's string, seed), so they do not depend on sharding, order or retries, and a larger limit
keeps a superset. All decisions use integers: a draw compares a 64-bit hash with ⌊limit·2⁶⁴ / count⌋, and a size is a
sum of π rounded to 2⁻³².
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit

from curate.base import ids
from curate.base.numeric.arrays import F64, I32, I64, U64
from curate.base.numeric.elementary import GOLDEN, mix64
from curate.decide.draw.entry_sums import list_entries

ONE = 1 << 32  # a probability of 1 in fixed point

BELOW_ONE = float(np.nextafter(1.0, 0.0))
_TWO52_BITS = np.float64(2.0**52).view(np.uint64)


def probabilities(counts: I64, limits: I64) -> F64:
    """Return p = limit / max(count, limit) of each entry (float64[n]): 1 in the tail, for entries up to their limit."""
    return np.asarray(limits / np.maximum(counts, limits).astype(np.float64), np.float64)


def tail_shares(counts: I64) -> tuple[I64, F64]:
    """Return the distinct positive counts, ascending, and for each the share of smaller counts in the sum of all."""
    distinct, entries = np.unique(counts[counts > 0], return_counts=True)
    sums = distinct * entries
    return distinct, (np.cumsum(sums) - sums) / max(1, int(sums.sum()))


def tail_share_t(counts: I64, share: float) -> int:
    """Return the count whose share in `tail_shares` is nearest to `share`, the first of ties; 1 without counts."""
    # This inverts MetaCLIP 2's t_to_p ("Meta CLIP 2", arXiv 2507.22062), without zero counts. MetaCLIP 2's own inverse,
    # p_to_t, also counts entries with t rows, and gave another t in 512 of 927 cases.
    distinct, shares = tail_shares(counts)
    return int(distinct[np.argmin(np.abs(shares - share))]) if len(distinct) else 1


def draw(
    uids: pa.Array, matches: pa.ListArray, counts: I64, limits: I64, keys: U64, seed: int, earlier: F64 | None = None
) -> F64:
    """Draw each row: the smallest u/p over its entries, where u is a hash of (uid, entry, seed) in [0, 1).

    Return float64[rows]: below 1 if and only if some matched entry has count ≤ limit or u < ⌊limit·2⁶⁴ / count⌋ in
    exact integers, regardless of rounding; +inf without a match.

    `uids` are string[rows] of 32 hex digits, whose low 64 bits are used; `keys` (uint64[n]) are the `entry_keys` of the
    entries; `seed` is any integer, taken modulo 2⁶⁴. `earlier` (float64[rows]) is the probability with which an earlier
    stage kept a row, NaN or 1 if it was not drawn, None if no row was. It is part of the hash, because otherwise
    u would be small in all rows that the earlier stage kept.
    """
    counts = np.asarray(counts, np.int64)
    offsets, entries = list_entries(matches, len(counts))
    units, keys = ids.uid_halves(uids)[1], np.asarray(keys, np.uint64)
    if earlier is not None:
        was_drawn = ~(np.isnan(earlier) | (earlier == 1))
        units = np.where(was_drawn, units ^ mix64(np.asarray(earlier, np.float64).view(np.uint64)), units)
    limits = np.asarray(limits, np.int64)
    return np.asarray(_draw(units, offsets, entries, counts, limits, keys, np.uint64(seed % (1 << 64))))


def entry_draws(
    uid: str, entries: Sequence[str], p: F64, counts: I64 | None, ts: I64, seed: int, earlier: float | None
) -> list[float]:
    """Return u/p for each entry of a single row, as in `draw`.

    If `counts` is None, they follow from p = t / max(count, t).
    """
    if counts is None:
        counts = np.rint(ts / p).astype(np.int64)
    numbers = pa.array(range(len(entries) + 1), pa.int32())
    alone = pa.ListArray.from_arrays(numbers, numbers[:-1])
    keys, uids = ids.entry_keys(pa.array(entries, pa.string())), pa.array([uid] * len(entries), pa.string())
    before = None if earlier is None else np.full(len(entries), earlier, np.float64)
    limits = np.maximum(1, np.rint(p * counts)).astype(np.int64)  # these give the same p and draws
    return [float(u) for u in draw(uids, alone, counts, limits, keys, seed, before)]


def inclusion_probability(matches: pa.ListArray, p: F64) -> F64:
    """Return π = 1 − ∏(1 − p[e]) of each row (float64[rows]): exactly 1 if some p is 1, 0 without a match."""
    return np.asarray(_inclusion(*list_entries(matches, len(p)), np.asarray(p, np.float64)))


def fixed_point(pi: F64) -> U64:
    """Return π rounded to 2⁻³², half to even, as an integer number of 2⁻³² (uint64)."""
    return np.asarray(np.rint(pi * float(ONE)), np.uint64)


def expected_rows(
    matches: pa.ListArray, counts: I64, limits: I64, variances: F64 | None = None, texts: F64 | None = None
) -> U64:
    """Return Σ fixed_point(π) over a part of the pool (uint64[k]), for each of k choices of limits, in one pass.

    `limits` are int64[k, n] or [k, 1], ascending for each entry; `counts` are of the whole pool. Results of parts add
    up; use Python ints if a pool may have more than 2³² − 1 rows, the limit of a sum. Σπ(1−π), the variance of the
    number of drawn rows, is added to `variances` (float64[k]). If `texts` (float64[rows]) is given, π is divided by it.
    """
    offsets, entries = list_entries(matches, len(counts))
    counts, limits = np.asarray(counts, np.int64), np.asarray(limits, np.int64)
    by_entry = np.ascontiguousarray(limits[:, 0] if limits.shape[1] == 1 else limits.T)  # [k] if entries share them
    floats = by_entry.astype(np.float64)
    return np.asarray(_expected(offsets, entries, counts, by_entry, floats, variances, texts))


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
                value = min(value, BELOW_ONE)
            else:
                value /= limit / count
                value = min(value, BELOW_ONE) if u < _threshold(limit, count) else max(value, 1.0)
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


# Numba compiles these for each shape of limits, [k] (for all entries) or [n, k], without the other's branches.


@njit(nogil=True, cache=True)
def _first_certain(entries: I32, begin: int, end: int, counts: I64, limits: I64) -> int:
    """Return the first choice in which one of a row's entries keeps all its rows; from there on π is 1."""
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
def _expected(
    offsets: I64, entries: I32, counts: I64, limits: I64, floats: F64, variances: F64 | None, texts: F64 | None
) -> U64:
    """Return Σ fixed_point(π) per choice (ascending), bit for bit as by `_inclusion` and `fixed_point`."""
    k = limits.shape[-1]
    sums = np.zeros(k, np.uint64)
    certain = np.zeros(k + 1, np.uint64)  # sums over rows that are certain, by their first such choice
    miss = np.empty(k)
    bits = miss.view(np.uint64)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        if begin == end:
            continue
        first = _first_certain(entries, begin, end, counts, limits)
        one_of = 1.0 if texts is None else texts[row]
        certain[first] += np.uint64(np.rint(1.0 / one_of * 2.0**32))
        miss[:first] = 1.0
        for i in range(begin, end):
            count = np.float64(counts[entries[i]])
            limit = floats if floats.ndim == 1 else floats[entries[i]]
            for j in range(first):
                miss[j] *= 1.0 - limit[j] / count
        if variances is not None:  # rows with π = 1 add nothing
            for j in range(first):
                variances[j] += miss[j] * (1.0 - miss[j])
        # Adding 2^52 rounds to an integer, half to even, in the low bits: a rint that can be vectorized.
        for j in range(first):
            miss[j] = (1.0 - miss[j]) / one_of * 2.0**32 + 2.0**52
        for j in range(first):
            sums[j] += bits[j] - _TWO52_BITS
    reached = np.uint64(0)
    for j in range(k):
        reached += certain[j]
        sums[j] += reached
    return sums
