"""Hashes of rows, which meet in buckets: those of many units travel together, 8 bytes each and 8 a unit."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from curate.decide import dedup
from curate.numeric.arrays import I32, U64

_MOST = 1 << 18  # hashes of a bucket that wait

Packed = tuple[I32, I32, U64]  # of some units their numbers, how many hashes each has, and the hashes


class Batch(beam.DoFn):
    """PCollection[(bucket, (unit, hashes))] → PCollection[(bucket, Packed)], of a few large elements."""

    def start_bundle(self) -> None:
        """Begin with none."""
        self._waiting: dict[Any, list[tuple[int, U64]]] = {}
        self._sizes: dict[Any, int] = {}

    def process(self, element: tuple[Any, tuple[int, U64]]) -> Iterator[tuple[Any, Packed]]:
        """Keep some, and give them once there are many."""
        bucket, (unit, hashes) = element
        self._waiting.setdefault(bucket, []).append((unit, hashes))
        self._sizes[bucket] = self._sizes.get(bucket, 0) + len(hashes)
        if self._sizes[bucket] >= _MOST:
            yield self._pack(bucket)

    def finish_bundle(self) -> Iterator[Any]:
        """Give the rest."""
        for bucket in list(self._waiting):
            yield WindowedValue(self._pack(bucket), GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _pack(self, bucket: Any) -> tuple[Any, Packed]:
        parts = self._waiting.pop(bucket)
        self._sizes.pop(bucket)
        units, sizes = ([unit for unit, _ in parts], [len(hashes) for _, hashes in parts])
        return bucket, (np.array(units, np.int32), np.array(sizes, np.int32), np.concatenate([h for _, h in parts]))


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
