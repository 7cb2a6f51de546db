"""Groups consecutive items, such as parts into units. If items are added, most groups stay the same."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import xxhash

Item = TypeVar("Item")


def group_size(total: int, count: int, sizes: tuple[int, int]) -> int:
    """Return a size for about `count` groups, between the two of `sizes`.

    The size grows by factors of four. So while items are added to a small source, groups stay the same and are reused.
    """
    size, limit = sizes
    while size < limit and 4 * size <= total // count:
        size *= 4
    return min(size, limit)


def group(
    items: Iterable[Item], weight: Callable[[Item], int], name: Callable[[Item], str], size: int
) -> Iterator[tuple[Item, ...]]:
    """Yield groups of consecutive items. A group exceeds `size` only if it is a single item.

    A group that is three quarters full ends before the next item whose name's hash is divisible by four.
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
