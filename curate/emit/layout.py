"""Assigns kept rows to shards: shard k has ranks [k·N, (k+1)·N), in the order of units and rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.base.numeric.arrays import I32, I64
from curate.pool.plan import Unit
from curate.store.layout import shard_stem


@dataclass(frozen=True)
class Slice:
    """`count` kept rows of a unit, starting at `first`."""

    unit: Unit
    first: int
    count: int


@dataclass(frozen=True)
class Shard:
    """An output shard and its rows."""

    index: int
    slices: tuple[Slice, ...]

    @classmethod
    def of(cls, index: int, slices: Iterable[Slice]) -> Self:
        """Return the shard with these slices, given in any order."""
        return cls(index, tuple(sorted(slices, key=lambda part: part.unit.index)))

    @property
    def rows(self) -> int:
        return sum(part.count for part in self.slices)

    @property
    def stem(self) -> str:
        return shard_stem(self.index)


@dataclass(frozen=True)
class Layout:
    """The positions of each unit's kept rows; all shards are full except the last."""

    units: I32  # ascending, units with kept rows
    starts: I64  # rank of each unit's first kept row, followed by the total
    rows_per_shard: int

    @classmethod
    def of(cls, kept: Mapping[int, int], rows_per_shard: int) -> Self:
        """Return the layout for the number of kept rows of each unit."""
        units = np.array(sorted(kept), np.int32)
        starts = np.cumsum([0, *(kept[unit] for unit in units.tolist())], dtype=np.int64)
        return cls(units, starts, rows_per_shard)

    def slices(self, unit: Unit) -> Iterator[tuple[int, Slice]]:
        """Yield the shards of a unit's kept rows, and the unit's rows in each."""
        index = int(np.searchsorted(self.units, unit.index))
        if index == len(self.units) or self.units[index] != unit.index:
            return
        start, stop = (int(rank) for rank in self.starts[index : index + 2])
        size = self.rows_per_shard
        for shard in range(start // size, -(-stop // size)):
            first, last = max(start, shard * size), min(stop, (shard + 1) * size)
            yield shard, Slice(unit, first - start, last - first)
