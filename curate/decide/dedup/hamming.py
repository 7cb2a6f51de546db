"""Finds all pairs of perceptual hashes that differ in at most k of 64 bits, by bands, without comparing all pairs.

The 64 bits are split into B blocks. Two hashes within distance k agree on at least B − k of them. A band is a choice of
B − k blocks, as a mask of their bits, and only hashes that agree under a band are compared (Manku, Jain and Das Sarma,
"Detecting Near-Duplicates for Web Crawling", WWW 2007, section 3). So no pair is missed, and each found pair is
verified. More blocks mean more bands with fewer comparisons each; `bands` balances sorting and comparing.

In: hashes, uint64[n], in any order; equal ones count once. Out: edges between hashes, uint64[e, 2], a spanning forest
of the close pairs (see `groups`). Memory: 24 bytes per hash. Use a smaller k for a larger pool, because single linkage
also joins chance pairs: of a million random hashes about 150 are joined at k = 8, 5,000 at 10, and nearly all at 16.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numba import njit

from curate.base.numeric.arrays import I64, U64, distinct
from curate.base.numeric.elementary import mix64
from curate.decide.dedup import exact

BITS = 64

_MAX_BANDS = 500
_SORT = 60.0  # nanoseconds per hash and band: sorting and gathering
_COMPARE = 0.35  # nanoseconds per pair
_CHUNK = 128  # hashes compared before checking whether one is close: a loop without branches is vectorized


def bands(distance: int, rows: int, pairs: float | None = None) -> U64:
    """Return the bands for about this many hashes (uint64[t] masks). They miss no pair, whatever the number of hashes.

    The number of blocks minimizes the cost of sorting the rows and comparing pairs, by default all pairs. If comparing
    all pairs is cheapest, there is one band without bits. All workers must use the same `rows`.
    """
    pairs = rows * rows / 2 if pairs is None else pairs

    def cost(blocks: int) -> float:
        if blocks == distance:
            return pairs * _COMPARE
        agree = sum(sorted(_sizes(blocks))[: blocks - distance])  # the bits of the smallest band
        return math.comb(blocks, distance) * (rows * _SORT + pairs * _COMPARE / 2.0**agree)

    blocks = min([b for b in range(distance, BITS + 1) if math.comb(b, distance) <= _MAX_BANDS], key=cost)
    if blocks == distance:
        return np.zeros(1, np.uint64)
    edges_of_blocks = np.concatenate([[0], np.cumsum(_sizes(blocks))]).tolist()
    parts = [(1 << b) - (1 << a) for a, b in itertools.pairwise(edges_of_blocks)]
    return np.array([sum(choice) for choice in itertools.combinations(parts, blocks - distance)], np.uint64)


def split_bands(hashes: U64, masks: U64, n_buckets: int) -> Iterator[tuple[tuple[int, int], U64]]:
    """Yield the distinct hashes by (band, bucket). Hashes that agree under a band share a bucket."""
    hashes = distinct(hashes)
    for i, mask in enumerate(masks):
        buckets = exact.find_bucket(mix64(hashes & mask), n_buckets).astype(np.uint16)
        yield from (((i, bucket), part) for bucket, part in exact.by_number(hashes, buckets))


def edges_in_bucket(hashes: U64, mask: np.uint64, distance: int) -> U64:
    """Return a spanning forest of a bucket's pairs that agree under the band and differ in at most `distance` bits."""
    hashes = distinct(hashes)
    keys = hashes & mask
    order = np.argsort(keys)
    keys, hashes = keys[order], hashes[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]]))
    del keys, order
    parents = hashes.copy()
    _link(hashes, parents, np.append(starts, len(hashes)), distance)
    joined = parents != hashes
    return np.stack([parents[joined], hashes[joined]], axis=1)


def nearest(hashes: U64, evaluation: U64, distance: int) -> I64:
    """Return the index of the evaluation hash that is nearest to each hash (int64[n]), or −1.

    It is −1 if none is within `distance` bits. On a tie, the lowest index wins.
    """
    # Equal hashes are searched once, in the pool and in the evaluation set, where the first one counts.
    pool = distinct(hashes)
    targets = distinct(evaluation)
    order = np.argsort(evaluation, kind="stable")
    index = order[np.searchsorted(evaluation[order], targets)]
    best = np.full(len(pool), distance + 1, np.int64)
    chosen = np.full(len(pool), -1, np.int64)
    for mask in bands(distance, len(pool) + len(targets), len(pool) * len(targets)):
        rows, others = np.argsort(pool & mask), np.argsort(targets & mask)
        _meet(pool[rows], rows, targets[others], index[others], mask, best, chosen)
    return chosen[np.searchsorted(pool, hashes)]


def _sizes(blocks: int) -> list[int]:
    return [BITS // blocks + (i < BITS % blocks) for i in range(blocks)]


@njit(nogil=True, cache=True)
def _popcount(word: np.uint64) -> np.uint64:
    """Return the number of one bits; compilers replace this idiom by a single instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@njit(nogil=True, cache=True)
def _link(hashes: U64, parents: U64, starts: I64, distance: int) -> None:
    """Search each run breadth-first, and reorder it so that groups are contiguous; `parents` is the tree."""
    k = np.uint64(distance)
    for r in range(len(starts) - 1):
        stop = starts[r + 1]
        # [start, head) was visited, [head, free) is waiting, [free, stop) is in no group yet.
        head = free = starts[r]
        while free < stop:
            if head == free:
                parents[free] = hashes[free]
                free += 1
            seed = hashes[head]
            head += 1
            first = free
            while first < stop:
                last = min(first + _CHUNK, stop)
                if _any_within(seed, hashes, first, last, k):
                    for j in range(first, last):
                        if _popcount(seed ^ hashes[j]) <= k:
                            hashes[j], hashes[free] = hashes[free], hashes[j]
                            parents[free] = seed
                            free += 1
                first = last


@njit(nogil=True, cache=True)
def _any_within(seed: np.uint64, hashes: U64, first: int, last: int, k: np.uint64) -> bool:
    smallest = np.uint64(BITS)
    for j in range(first, last):
        smallest = min(smallest, _popcount(seed ^ hashes[j]))
    return bool(smallest <= k)


@njit(nogil=True, cache=True)
def _meet(pool: U64, rows: I64, targets: U64, index: I64, mask: np.uint64, best: I64, chosen: I64) -> None:
    """Compare hashes that agree under the band, both sides sorted by it; `best` and `chosen` are by pool row."""
    begin = 0
    for i in range(len(pool)):
        key = pool[i] & mask
        while begin < len(targets) and (targets[begin] & mask) < key:
            begin += 1
        j = begin
        while j < len(targets) and (targets[j] & mask) == key:
            bits = np.int64(_popcount(pool[i] ^ targets[j]))
            row = rows[i]
            if bits < best[row] or (bits == best[row] and chosen[row] >= 0 and index[j] < chosen[row]):
                best[row], chosen[row] = bits, index[j]
            j += 1
