"""Hashes of rows, which meet in buckets: those of many units travel together, 8 bytes each and 8 a unit."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from curate.base.numeric.arrays import I32, U64
from curate.decide.dedup import exact

PackedHashes = tuple[I32, I32, U64]  # of some units their numbers, how many hashes each has, and the hashes


class HashBatch:
    """Pairs of unit and hashes that wait: as bytes, for an array of a few of them takes ten times what they do."""

    def __init__(self) -> None:
        self._units, self._sizes, self._hashes = array("i"), array("i"), bytearray()

    @property
    def size(self) -> int:
        """Bytes of hashes."""
        return len(self._hashes)

    def add(self, value: tuple[int, U64]) -> None:
        """Add a unit's number and hashes."""
        unit, hashes = value
        self._units.append(unit)
        self._sizes.append(len(hashes))
        self._hashes += hashes.tobytes()

    def pack(self) -> PackedHashes:
        """Return all of them."""
        units, sizes = (np.array(numbers, np.int32) for numbers in (self._units, self._sizes))
        return units, sizes, np.frombuffer(bytes(self._hashes), np.uint64)


def unpack_hashes(packed: PackedHashes) -> Iterator[tuple[int, U64]]:
    """Yield the units with their hashes."""
    units, sizes, hashes = packed
    ends = np.cumsum(sizes)
    yield from ((int(unit), hashes[end - size : end]) for unit, size, end in zip(units, sizes, ends, strict=True))


def repeated_hashes(bucket: Iterable[PackedHashes]) -> U64:
    """Return the hashes of a bucket that repeat (uint64[n], ascending)."""
    return exact.repeated(hashes for _, _, hashes in bucket)


def repeated_of_units(bucket: Iterable[PackedHashes], together: int) -> Iterator[tuple[int, PackedHashes]]:
    """Yield which hashes of units repeat in the bucket, by the number of `together` units in a row."""
    bucket = list(bucket)
    repeated = repeated_hashes(bucket)
    shared: dict[int, HashBatch] = defaultdict(HashBatch)
    for part in bucket if len(repeated) else ():
        for unit, hashes in unpack_hashes(part):
            chosen = hashes[np.isin(hashes, repeated)]
            if len(chosen):
                shared[unit // together].add((unit, chosen))
    yield from ((number, batch.pack()) for number, batch in shared.items())
