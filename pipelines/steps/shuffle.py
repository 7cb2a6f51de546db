"""Values meet by key, many small ones together as few large ones; on one machine in files.

Beam's local runner has what it groups in memory four times: as what steps gave, in a table, and as what the next stage
gets, written and sent.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import apache_beam as beam

from curate.base.meter import METER
from curate.base.process import CORES
from pipelines.steps.functions import Map, in_window

_WAITING = 1 << 25  # bytes of values that wait in a worker
_LARGE = 1 << 14  # bytes from which values are a file
_PICKLES = beam.coders.PickleCoder()


@dataclass
class SpillingGroupByKey(beam.PTransform):
    """PCollection[(key, value)] → PCollection[(key, list of all its values)].

    About how many bytes that brings together is counted for `step`. Values that are large wait in files of the folder
    `spool`, one of each key and bundle, until they are read, once; where it is empty, all go as elements.
    """

    step: str
    spool: str

    def expand(self, pairs: beam.PCollection[Any]) -> beam.PCollection[Any]:
        batches = beam.ParDo(InBatches(self.step, self.spool)).with_output_types(tuple[Any, Any])
        return pairs | "batch" >> batches | beam.GroupByKey() | "values" >> Map(partial(_read, self.spool))


class InBatches(beam.DoFn):
    """PCollection[(key, value)] → PCollection[(key, list of values, or the file that holds it)]."""

    def __init__(self, step: str, spool: str) -> None:
        self._step, self._spool = step, spool

    def start_bundle(self) -> None:
        # short names: a runner has those of all several times
        self._files = defaultdict[Any, str](partial(secrets.token_hex, 8))
        self._begin()

    def _begin(self) -> None:
        self._waiting, self._sizes, self._size = defaultdict[Any, list[Any]](list), Counter[Any](), 0

    def process(self, element: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Keep some, and give them once there are many."""
        key, value = element
        size = _size(value)
        self._waiting[key].append(value)
        self._sizes[key] += size
        self._size += size
        if self._size >= _WAITING:
            yield from self._rest()

    def finish_bundle(self) -> Iterator[Any]:
        """Give the rest, and then the files."""
        yield from map(in_window, self._rest())
        yield from map(in_window, _far_apart(self._files.items()))

    def _rest(self) -> Iterator[tuple[Any, Any]]:
        METER.count("shuffled", self._size, self._step)
        rest, sizes = self._waiting, self._sizes
        self._begin()
        for key, values in _far_apart(rest.items()):
            if not self._spool or sizes[key] < _LARGE:
                yield key, values
            else:
                batch = _PICKLES.encode(values)
                with Path(self._spool, self._files[key]).open("ab") as file:
                    file.write(len(batch).to_bytes(8))
                    file.write(batch)


def _far_apart(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs by key, in as many rows as there are threads: keys that are worked on together are far apart.

    Two shards side by side mostly need the same unit, which one thread reads while the other waits. Units come in
    rows, too: without an order a unit would be needed now and then, and read each time.
    """
    in_order = sorted(pairs, key=itemgetter(0))
    step = -(-len(in_order) // CORES) or 1
    return chain.from_iterable(in_order[first::step] for first in range(step))


def _read(spool: str, item: tuple[Any, Iterable[list[Any] | str]]) -> tuple[Any, list[Any]]:
    values: list[Any] = []
    for batch in item[1]:
        if isinstance(batch, str):
            path = Path(spool, batch)
            with path.open("rb") as file:
                while size := file.read(8):
                    values += _PICKLES.decode(file.read(int.from_bytes(size)))
            path.unlink()
        else:
            values += batch
    return item[0], values


def _size(value: Any) -> int:
    """Return about how many bytes a value is when pickled."""
    if isinstance(value, tuple | list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 32))
