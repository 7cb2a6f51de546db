"""Which kept rows lie in which shard: shard k holds those of ranks [k·N, (k+1)·N), in the order of units and rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from curate.base.numeric.arrays import I32, I64
from curate.pool.plan import Unit
from curate.store.layout import shard_stem


@dataclass(frozen=True)
class Slice:
    """`count` kept rows of a unit, from the `first` one on."""

    unit: Unit
    first: int
    count: int


@dataclass(frozen=True)
class Shard:
    """An output shard and the rows that it holds."""

    index: int
    slices: tuple[Slice, ...]

    @classmethod
    def of(cls, index: int, slices: Iterable[Slice]) -> Self:
        """Return the shard of these slices, which come in any order."""
        return cls(index, tuple(sorted(slices, key=lambda part: part.unit.index)))

    @property
    def rows(self) -> int:
        return sum(part.count for part in self.slices)

    @property
    def stem(self) -> str:
        return shard_stem(self.index)


@dataclass(frozen=True)
class Layout:
    """Where each unit's kept rows lie: all shards are full but the last."""

    units: I32  # ascending, those that keep rows
    starts: I64  # of each, the rank of its first kept row; one more, the number of all
    rows_per_shard: int

    @classmethod
    def of(cls, kept: Mapping[int, int], rows_per_shard: int) -> Self:
        """Return it, from the number of kept rows of each unit."""
        units = np.array(sorted(kept), np.int32)
        starts = np.cumsum([0, *(kept[unit] for unit in units.tolist())], dtype=np.int64)
        return cls(units, starts, rows_per_shard)

    def slices(self, unit: Unit) -> Iterator[tuple[int, Slice]]:
        """Yield the shards that a unit's kept rows lie in, and which rows each has of them."""
        index = int(np.searchsorted(self.units, unit.index))
        if index == len(self.units) or self.units[index] != unit.index:
            return
        start, stop = (int(rank) for rank in self.starts[index : index + 2])
        size = self.rows_per_shard
        for shard in range(start // size, -(-stop // size)):
            first, last = max(start, shard * size), min(stop, (shard + 1) * size)
            yield shard, Slice(unit, first - start, last - first)
