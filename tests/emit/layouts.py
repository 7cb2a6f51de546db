"""The output shards of some units, put together in this process."""

from curate.emit.layout import Shard


def lay_out(units, layout):
    """Return the output shards, in order."""
    found = {}
    for unit in units:
        for shard, part in layout.slices(unit):
            found.setdefault(shard, []).append(part)
    return [Shard.of(index, found[index]) for index in sorted(found)]
