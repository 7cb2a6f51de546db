"""The output shards of some units, put together in this process."""

from collections.abc import Iterable

from curate.emit.layout import Layout, Shard, Slice
from curate.pool.plan import Unit


def lay_out(units: Iterable[Unit], layout: Layout) -> list[Shard]:
    """Return the output shards, in order."""
    found: dict[int, list[Slice]] = {}
    for unit in units:
        for shard, part in layout.slices(unit):
            found.setdefault(shard, []).append(part)
    return [Shard.of(index, found[index]) for index in sorted(found)]
