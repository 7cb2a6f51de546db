"""Hashes of rows, which meet in buckets: those of many units travel together, 8 bytes each and 8 a unit."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from curate.base.numeric.arrays import I32, U64
from curate.decide.dedup import exact
from pipelines.steps.functions import PlainDoFn

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
    return exact.repeated(hashes for _, _, hashes in packed)


def repeated_by_packet(packed: Iterable[Packed], per_packet: int) -> Iterator[tuple[int, Packed]]:
    """Yield by packets of so many units what repeats in the bucket: of each unit that has some, its hashes."""
    packed = list(packed)
    repeated = repeated_hashes(packed)
    found: dict[int, _Bucket] = defaultdict(_Bucket)
    for part in packed if len(repeated) else ():
        for unit, hashes in unpack_hashes(part):
            shared = hashes[np.isin(hashes, repeated)]
            if len(shared):
                found[unit // per_packet].add(unit, shared)
    yield from ((number, bucket.pack()) for number, bucket in found.items())


def unpack_hashes(packed: Packed) -> Iterator[tuple[int, U64]]:
    """Yield the units with their hashes."""
    units, sizes, hashes = packed
    ends = np.cumsum(sizes)
    yield from ((int(unit), hashes[end - size : end]) for unit, size, end in zip(units, sizes, ends, strict=True))
