"""Which kept rows lie in which shard: shard k holds those of ranks [k·N, (k+1)·N), in the order of units and rows."""

from collections.abc import Iterable
from dataclasses import dataclass

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

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(part.count for part in self.slices)

    @property
    def stem(self) -> str:
        """The path of its files, without suffix."""
        return shard_stem(self.index)


def lay_out(kept: Iterable[tuple[Unit, int]], rows_per_shard: int) -> list[Shard]:
    """Return the output shards, from the number of kept rows of each unit: all full but the last."""
    shards: list[Shard] = []
    slices: list[Slice] = []
    room = rows_per_shard
    for unit, rows in sorted(kept, key=lambda pair: pair[0].index):
        first = 0
        while first < rows:
            count = min(room, rows - first)
            slices.append(Slice(unit, first, count))
            first, room = first + count, room - count
            if room == 0:
                shards.append(Shard(len(shards), tuple(slices)))
                slices, room = [], rows_per_shard
    return [*shards, Shard(len(shards), tuple(slices))] if slices else shards
