"""Exact deduplication in sequential passes (for example by uid, then sha256, then phash), over data in buckets.

A pass groups the surviving rows by a key; the best row of a group stays, and the others are its duplicates. A pass
ignores rows whose key is null.

Phase 1 finds candidates with 8 bytes per row and pass: `key_hashes` of a unit, `split_buckets`, and `repeated` over a
bucket of all units. Phase 2 handles only the candidates, as structured `records`: each pass brings together the records
of each of `buckets_for`, and calls `resolve`. Keys are compared as 128 bits, so a collision of phase 1's 64-bit hashes
costs a few bytes and changes nothing.

A dead record adopts the representative *and the keys* of the row that beat it. It therefore stays in the bucket and
group of its representative in later passes, and follows it if that one dies too, without lookups between buckets.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base import ids
from curate.base.numeric.arrays import I64, U64, Mask, split_by
from curate.base.numeric.elementary import GOLDEN, mix64
from curate.base.numeric.quantiles import order_keys

Records = npt.NDArray[np.void]
LARGE_SHARE = 0.05  # a group with a larger share of the rows that reach deduplication gives a warning
# With passes by nearness, the largest group is reported if it has this size and share, because such groups may chain.
LARGE_NEAR, LARGE_NEAR_SHARE = 10, 0.001
LARGE_GROUPS = 20  # maximum per bucket: no more groups can have over 5% of the rows; each group is in one bucket


def record_type(passes: int) -> np.dtype[np.void]:
    """Return the type of a candidate's record, for a number of passes."""
    return np.dtype(
        [
            ("rep_hi", np.uint64),  # the uid of its representative, initially its own
            ("rep_lo", np.uint64),
            ("content", np.uint64),  # see `content_hashes`
            ("prefer", np.uint64),  # see `preferences`
            ("unit", np.int32),
            ("row", np.int32),
            ("dead", np.bool_),  # whether it lost a pass
            ("cosine", np.float32),  # the one of `cosines` for the pass that it lost; 0 if none
            ("cosines", np.float32, (passes,)),  # per pass, see `Nearness.cosines`
            ("key_hi", np.uint64, (passes,)),  # per pass, the key of its representative
            ("key_lo", np.uint64, (passes,)),
            ("present", np.bool_, (passes,)),  # whether there is a key
        ]
    )


def pass_keys(column: pa.Array) -> tuple[U64, U64, Mask]:
    """Return the 128-bit key of each value, as two uint64[rows], and whether it has one (not null, not NaN).

    A string's key is its xxh3-128; a number's is its `order_keys`.
    """
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        keys, valid = order_keys(column)
        return np.zeros(len(keys), np.uint64), keys, valid
    return *ids.hash_halves(column.cast(pa.large_string())), column.is_valid().to_numpy(zero_copy_only=False)


def key_hashes(column: pa.Array, surviving: Mask) -> U64:
    """Return, for phase 1, a 64-bit hash of the key of each surviving row that has one (uint64, in order)."""
    hi, lo, present = pass_keys(column)
    return _fold(hi, lo)[present & surviving]


def by_number(values: npt.NDArray[Any], numbers: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield each distinct number, ascending, with its values in order."""
    order = np.argsort(numbers, kind="stable")
    distinct, starts = np.unique(numbers[order], return_index=True)
    if len(order):
        yield from zip(distinct.tolist(), np.split(values[order], starts[1:]), strict=True)


def split_buckets(hashes: U64, n_buckets: int) -> list[U64]:
    """Split hashes into buckets by their leading bits, which preserves the order of hashes."""
    return [hashes] if n_buckets == 1 else split_by(hashes, find_bucket(hashes, n_buckets), n_buckets)


def repeated(parts: Iterable[U64]) -> U64:
    """Return the distinct hashes that occur at least twice in all parts of a bucket (uint64, ascending)."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
    hashes.sort()
    same = hashes[1:] == hashes[:-1]
    same[1:] &= ~same[:-1]
    return np.asarray(hashes[1:][same])


def repeated_of_units(bucket: Sequence[tuple[int, U64]]) -> Iterator[tuple[int, U64]]:
    """Yield the repeated hashes of the bucket for each unit."""
    parts = [hashes for _, hashes in bucket]
    repeats = repeated(parts)
    if not len(repeats):
        return
    hashes = np.concatenate(parts)  # not unit by unit, which would search all repeated hashes for each unit
    is_repeated = repeats[np.minimum(np.searchsorted(repeats, hashes), len(repeats) - 1)] == hashes
    ends = np.cumsum([len(part) for part in parts])
    for (unit, hashes), chosen in zip(bucket, np.split(is_repeated, ends[:-1]), strict=True):
        if chosen.any():
            yield unit, hashes[chosen]


def candidates(columns: Sequence[pa.Array], surviving: Mask, repeated_hashes: Sequence[U64]) -> I64:
    """Return a unit's surviving rows whose hash in any pass is among its repeated ones (int64; all ascending)."""
    chosen = np.zeros(len(surviving), bool)
    for column, hashes in zip(columns, repeated_hashes, strict=True):
        hi, lo, present = pass_keys(column)
        if len(hashes):
            folded = _fold(hi, lo)
            chosen |= present & (hashes[np.minimum(np.searchsorted(hashes, folded), len(hashes) - 1)] == folded)
    return np.flatnonzero(chosen & surviving)


def content_hashes(images: pa.Array, captions: pa.Array) -> U64:
    """Return xxh3-64 of `image NUL caption` (uint64[rows]; null counts as ""), to choose between rows with one uid."""
    pairs = zip(images.to_pylist(), captions.to_pylist(), strict=True)
    return np.fromiter((ids.hash64(f"{a or ''}\0{b or ''}") for a, b in pairs), np.uint64, len(captions))


def preferences(values: pa.Array) -> U64:
    """Return numbers as `prefer` (uint64[rows]): larger is better, null and NaN are worst."""
    keys, valid = order_keys(values)  # the two largest count as equal, to leave room for null
    return np.where(valid, np.minimum(keys, np.uint64((1 << 64) - 2)) + np.uint64(1), np.uint64(0))


def make_records(
    unit: int, rows: I64, uids: pa.Array, columns: Sequence[pa.Array], content: U64, prefer: U64 | None
) -> Records:
    """Return the records of a unit's candidates before any pass, with cosines of 0.

    `rows` (int[c]) are the candidates' rows in the unit. The other arguments have a value for each: `uids` (32 hex
    digits), one of `columns` per pass, `content_hashes`, and `preferences` (None if only the uid decides).
    """
    records = np.zeros(len(rows), record_type(len(columns)))
    records["rep_hi"], records["rep_lo"] = ids.uid_halves(uids)
    records["content"], records["unit"], records["row"] = content, unit, rows
    if prefer is not None:
        records["prefer"] = prefer
    for i, column in enumerate(columns):
        hi, lo, present = pass_keys(column)
        # Zeros without a key, so that equal records have equal bytes.
        records["key_hi"][:, i], records["key_lo"][:, i] = np.where(present, (hi, lo), np.uint64(0))
        records["present"][:, i] = present
    return records


def buckets_for(records: Records, pass_index: int, n_buckets: int) -> I64:
    """Return the bucket of each record in a pass (int64), by its key, or by its representative if it has no key."""
    present = records["present"][:, pass_index]
    hi = np.where(present, records["key_hi"][:, pass_index], records["rep_hi"])
    return bucket_of(hi, np.where(present, records["key_lo"][:, pass_index], records["rep_lo"]), n_buckets)


def bucket_of(hi: U64, lo: U64, n_buckets: int) -> I64:
    """Return the bucket of each 128-bit key (int64)."""
    return find_bucket(_fold(hi, lo), n_buckets)


def resolve(records: Records, pass_index: int) -> Records:
    """Run a pass over one bucket's records from all units; return the changed records in the same order.

    Of the surviving records with the same key, the best by (prefer descending, uid, content, unit, row) stays; the
    others die. They, and those that died earlier with that key, adopt its representative and all of its keys.
    """
    records = records.copy()
    keyed = np.flatnonzero(records["present"][:, pass_index])
    if len(keyed) == 0:
        return records
    part = records[keyed]
    hi, lo = part["key_hi"][:, pass_index], part["key_lo"][:, pass_index]
    rank = (part["row"], part["unit"], part["content"], part["rep_lo"], part["rep_hi"], ~part["prefer"], part["dead"])
    order = np.lexsort((*rank, lo, hi))
    hi, lo = hi[order], lo[order]
    first = np.concatenate([[True], (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])])
    best = order[first][np.cumsum(first) - 1]
    losers, winners = keyed[order[~first]], keyed[best[~first]]
    for name in ("rep_hi", "rep_lo", "key_hi", "key_lo", "present"):
        records[name][losers] = records[name][winners]
    lost = losers[~records["dead"][losers]]
    records["cosine"][lost] = records["cosines"][lost, pass_index]
    records["dead"][losers] = True
    return records


def largest_groups(records: Records) -> list[tuple[int, str]]:
    """Return a bucket's largest groups after the last pass, the largest first: size, and the representative's uid."""
    lost = records[records["dead"]]
    order = np.lexsort((lost["rep_lo"], lost["rep_hi"]))
    hi, lo = lost["rep_hi"][order], lost["rep_lo"][order]
    is_first = np.concatenate([np.ones(min(1, len(lost)), bool), (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=len(lost)) + 1  # including the representative
    largest = np.argsort(-sizes, kind="stable")[:LARGE_GROUPS]
    uids = ids.hex_uids(hi[starts[largest]], lo[starts[largest]]).to_pylist()
    return list(zip(sizes[largest].tolist(), map(str, uids), strict=True))


def _fold(hi: U64, lo: U64) -> U64:
    """Return 64 bits of a 128-bit key, from both halves, because one half of a pool's own uids may be constant."""
    return np.asarray(mix64(lo ^ mix64(hi + GOLDEN)))


def find_bucket(hashes: U64, n_buckets: int) -> I64:
    """Return ⌊hash · n / 2⁶⁴⌋ from the leading 32 bits; it increases monotonically with the hash."""
    return ((hashes >> np.uint64(32)) * np.uint64(n_buckets) >> np.uint64(32)).astype(np.int64)
