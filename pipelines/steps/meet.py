"""Values meet by key, many small ones together as few large ones; on one machine in files.

Beam's local runner has what it groups in memory four times: as what steps gave, in a table, and as what the next stage
gets, written and sent.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import apache_beam as beam

from curate.base.meter import METER
from curate.base.process import CORES
from pipelines.steps.functions import Map, PlainDoFn, in_window

_WAITING = 1 << 25  # bytes of values that wait in a worker
_LARGE = 1 << 14  # bytes from which values are a file
_PICKLES = beam.coders.PickleCoder()


class Meet(beam.PTransform):
    """PCollection[(key, value)] → PCollection[(key, list of all its values)].

    About how many bytes that brings together is counted for `step`. Values that are large wait in files of the folder
    `spool`, until they are read, once; where it is empty, all go as elements.
    """

    def __init__(self, step: str, spool: str) -> None:
        super().__init__()
        self._step, self._spool = step, spool

    def expand(self, pairs: beam.PCollection[Any]) -> beam.PCollection[Any]:
        """Group by key."""
        batches = beam.ParDo(InBatches(self._step, self._spool)).with_output_types(tuple[Any, Any])
        return pairs | "batch" >> batches | beam.GroupByKey() | "values" >> Map(partial(_read, self._spool))


class InBatches(PlainDoFn):
    """PCollection[(key, value)] → PCollection[(key, list of values, or the file that holds it)]."""

    def __init__(self, step: str, spool: str) -> None:
        self._step, self._spool = step, spool

    def start_bundle(self) -> None:
        """Begin with none."""
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
        """Give the rest."""
        yield from map(in_window, self._rest())

    def _rest(self) -> Iterator[tuple[Any, Any]]:
        """Give all in order, in as many rows as there are threads: keys that are worked on together are far apart.

        Two shards side by side mostly need the same unit, which one thread reads while the other waits. Units come in
        rows, too: without an order a unit would be needed now and then, and read each time.
        """
        METER.count("shuffled", self._size, self._step)
        rest = [(key, self._waiting[key], self._sizes[key]) for key in sorted(self._waiting)]
        self.start_bundle()
        step = -(-len(rest) // CORES) or 1
        for key, values, size in chain.from_iterable(rest[first::step] for first in range(step)):
            yield key, self._put(values, size)

    def _put(self, values: list[Any], size: int) -> list[Any] | str:
        if not self._spool or size < _LARGE:
            return values
        name = secrets.token_hex(8)  # short: a runner has those of all files in memory several times
        Path(self._spool, name).write_bytes(_PICKLES.encode(values))
        return name


def _read(spool: str, item: tuple[Any, Iterable[list[Any] | str]]) -> tuple[Any, list[Any]]:
    values = []
    for batch in item[1]:
        if isinstance(batch, str):
            file = Path(spool, batch)
            values += _PICKLES.decode(file.read_bytes())
            file.unlink()
        else:
            values += batch
    return item[0], values


def _size(value: Any) -> int:
    """Return about how many bytes a value is when pickled."""
    if isinstance(value, tuple | list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 32))
