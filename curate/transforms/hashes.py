"""Hashes of rows, which meet in buckets: those of many units travel together, 8 bytes each and 8 a unit."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from curate.decide import dedup
from curate.numeric.arrays import I32, U64
from curate.transforms.functions import PlainDoFn

_MOST = 1 << 21  # bytes of a bucket's hashes that wait

Packed = tuple[I32, I32, U64]  # of some units their numbers, how many hashes each has, and the hashes


class _Bucket:
    """The hashes of a bucket that wait: as bytes, for an array of a few of them takes ten times what they do."""

    def __init__(self) -> None:
        self._units, self._sizes, self.hashes = array("i"), array("i"), bytearray()

    def add(self, unit: int, hashes: U64) -> None:
        self._units.append(unit)
        self._sizes.append(len(hashes))
        self.hashes += hashes.tobytes()

    def pack(self) -> Packed:
        units, sizes = (np.array(numbers, np.int32) for numbers in (self._units, self._sizes))
        return units, sizes, np.frombuffer(bytes(self.hashes), np.uint64)


class Batch(PlainDoFn):
    """PCollection[(bucket, (unit, hashes))] → PCollection[(bucket, Packed)], of a few large elements."""

    def start_bundle(self) -> None:
        """Begin with none."""
        self._waiting: dict[Any, _Bucket] = defaultdict(_Bucket)

    def process(self, element: tuple[Any, tuple[int, U64]]) -> Iterator[tuple[Any, Packed]]:
        """Keep some, and give them once there are many."""
        key, (unit, hashes) = element
        bucket = self._waiting[key]
        bucket.add(unit, hashes)
        if len(bucket.hashes) >= _MOST:
            yield key, self._waiting.pop(key).pack()

    def finish_bundle(self) -> Iterator[Any]:
        """Give the rest."""
        for key, bucket in self._waiting.items():
            yield WindowedValue((key, bucket.pack()), GlobalWindow().max_timestamp(), [GlobalWindow()])


def repeated_hashes(packed: Iterable[Packed]) -> U64:
    """Return the hashes of a bucket that repeat (uint64[n], ascending)."""
    return dedup.repeated(hashes for _, _, hashes in packed)


def repeated_by_unit(packed: Iterable[Packed]) -> Iterator[tuple[int, U64]]:
    """Yield each unit that has hashes which repeat in the bucket, with those."""
    packed = list(packed)
    repeated = repeated_hashes(packed)
    if not len(repeated):
        return
    for units, sizes, hashes in packed:
        shared = np.isin(hashes, repeated)
        of = np.repeat(np.arange(len(units)), sizes)[shared]
        ends = np.searchsorted(of, np.arange(len(units) + 1))
        found = hashes[shared]
        for place in np.unique(of):
            yield int(units[place]), found[ends[place] : ends[place + 1]]
