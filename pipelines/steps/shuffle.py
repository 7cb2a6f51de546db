"""Groups values by key: batches small values, and on one machine writes them to files.

Beam's local runner would hold grouped values in memory four times: as a step's output, in a table, and as the next
stage's input, encoded and sent.
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

_WAITING = 1 << 25  # bytes of values that a worker buffers
_LARGE = 1 << 14  # bytes from which values go to a file
_PICKLES = beam.coders.PickleCoder()


@dataclass
class SpillingGroupByKey(beam.PTransform):
    """PCollection[(key, value)] → PCollection[(key, list of all its values)].

    It counts the approximate number of shuffled bytes for `step`. Large values wait in files in the folder `spool`, one
    per key and bundle, and are read once. If `spool` is empty, all values are elements.
    """

    step: str
    spool: str

    def expand(self, pairs: beam.PCollection[Any]) -> beam.PCollection[Any]:
        batches = beam.ParDo(InBatches(self.step, self.spool)).with_output_types(tuple[Any, Any])
        return pairs | "batch" >> batches | beam.GroupByKey() | "values" >> Map(partial(_read, self.spool))


class InBatches(beam.DoFn):
    """PCollection[(key, value)] → PCollection[(key, list of values, or a file with it)]."""

    def __init__(self, step: str, spool: str) -> None:
        self._step, self._spool = step, spool

    def start_bundle(self) -> None:
        # short names: a runner stores them several times
        self._files = defaultdict[Any, str](partial(secrets.token_hex, 8))
        self._begin()

    def _begin(self) -> None:
        self._waiting, self._sizes, self._size = defaultdict[Any, list[Any]](list), Counter[Any](), 0

    def process(self, element: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Buffer a value, and yield the buffer when it is large."""
        key, value = element
        size = _size(value)
        self._waiting[key].append(value)
        self._sizes[key] += size
        self._size += size
        if self._size >= _WAITING:
            yield from self._rest()

    def finish_bundle(self) -> Iterator[Any]:
        """Yield the buffer, then the files."""
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
    """Yield pairs by key, interleaved from as many runs as there are threads, so that parallel keys are far apart.

    Neighboring shards usually need the same unit, which one thread reads while the other waits. Within a run, keys are
    in order, so that a unit is not read several times.
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
    if isinstance(value, tuple | list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 32))
