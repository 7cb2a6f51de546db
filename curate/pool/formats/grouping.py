"""Groups consecutive items (parts as units, articles as parts), so that groups change little as some come or go."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import xxhash

Item = TypeVar("Item")


def group_size(total: int, count: int, sizes: tuple[int, int]) -> int:
    """Return a size for about `count` groups, from one of `sizes` to the other.

    It grows in steps of four: groups stay as they are, and are reused, while items are added to a small source.
    """
    size, limit = sizes
    while size < limit and 4 * size <= total // count:
        size *= 4
    return min(size, limit)


def group(
    items: Iterable[Item], weight: Callable[[Item], int], name: Callable[[Item], str], size: int
) -> Iterator[tuple[Item, ...]]:
    """Yield items in order, together up to a size, or one alone; nearly full groups end before one item in four.

    Which items these are is told by their names.
    """
    members: list[Item] = []
    filled = 0
    for item in items:
        size_of_item = weight(item)
        may_begin = xxhash.xxh3_64_intdigest(name(item).encode()) % 4 == 0
        if members and (filled + size_of_item > size or (4 * filled >= 3 * size and may_begin)):
            yield tuple(members)
            members, filled = [], 0
        members.append(item)
        filled += size_of_item
    if members:
        yield tuple(members)
