"""GroupByKey: by the driver where little is grouped, else by a shuffle on the key's bytes.

In: encoded elements, keys with values, in windows. Out: encoded elements, keys with all values of a window, as the
collection's windowing and trigger say. Keys and values are sorted by their bytes, so the order of values does not
depend on who was fetched first. Values are not decoded. A lost part of a shuffle is remade from what the stage before
left.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from apache_beam.transforms.trigger import create_trigger_driver
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming

from pipelines.spark.exchange import Part
from pipelines.spark.translation import Group, read_context

_PANE = PaneInfo(is_first=True, is_last=True, timing=PaneInfoTiming.ON_TIME, index=0, nonspeculative_index=0)

Keyed = tuple[bytes, bytes]  # a key's bytes, and an element


def key_elements(group: Group, parts: Iterable[Part]) -> Iterator[Keyed]:
    """Yield each element after its key."""
    coder = read_context(group.coders).coders.get_by_id(group.input_coder)
    decode, encode = coder.get_impl().decode_nested, coder.key_coder().get_impl().encode
    for part in parts:
        for element in part.read():
            yield encode(decode(element).value[0]), element


def find_partition(keyed: Keyed, partitions: int) -> int:
    """Return the partition of a key, the same in each process."""
    return zlib.crc32(keyed[0]) % partitions


def group_sorted(group: Group, keyed: Iterable[Keyed]) -> Iterator[bytes]:
    """Yield the groups of sorted elements, encoded."""
    context = read_context(group.coders)
    coder = context.coders.get_by_id(group.input_coder)
    decode, decode_key = coder.get_impl().decode_nested, coder.key_coder().get_impl().decode
    encode = context.coders.get_by_id(group.output_coder).get_impl().encode_nested
    group_values = _find_grouping(context.windowing_strategies.get_by_id(group.windowing))
    for key, elements in groupby(keyed, key=itemgetter(0)):
        values = (decode(element) for _, element in elements)
        for grouped in group_values(decode_key(key), (value.with_value(value.value[1]) for value in values)):
            yield encode(grouped)


def _find_grouping(windowing: Any) -> Callable[[Any, Iterable[Any]], Iterable[Any]]:
    if not windowing.is_default():
        driver = create_trigger_driver(windowing, True)
        return lambda key, values: driver.process_entire_key(key, list(values))
    window = GlobalWindows.windowed_value(None, timestamp=GlobalWindow().max_timestamp(), pane_info=_PANE)
    return lambda key, values: [window.with_value((key, [value.value for value in values]))]
