"""Chunks: consecutive units of one source whose tables lie in one file each, in a published run of many small units.

A chunk's file has its units' rows in order, and in the footer note, under `units`, lists of what each unit's own file
said: rows, key and note. A row group holds whole units, so that one unit is read without the others.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from curate.base.numeric.arrays import Mask
from curate.store.store import RunStore

GROUP_ROWS = 2048  # of a row group at most, unless one unit has more: what is read for the sake of one unit


class Chunk(NamedTuple):
    """The units from `first` to `last`, by their numbers."""

    first: int
    last: int

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)


def chunks_of(units_per_file: Iterable[int]) -> Iterator[Chunk]:
    """Yield the chunks that have so many units, in order; one of one unit is that unit, with files of its own."""
    first = 0
    for units in units_per_file:
        yield Chunk(first, first + units - 1)
        first += units


def find_chunks(store: RunStore) -> dict[int, Chunk]:
    """Return the chunk of each unit that is in one, whatever tables it has there."""
    names = (name for table in store.names("tables") for name in store.names(f"tables/{table}"))
    chunks = {Chunk(int(m[1]), int(m[2])) for name in names if (m := re.fullmatch(r"(\d+)-(\d+)\.parquet", name))}
    return {unit: chunk for chunk in sorted(chunks) for unit in chunk.units}


def map_notes(note: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return a footer note as changed by a function of a unit's note; of a chunk's file, those of all units in it."""
    if "units" not in note:
        return change(note)
    return note | {"units": note["units"] | {"notes": [inner and change(inner) for inner in note["units"]["notes"]]}}


def keep_rows(note: dict[str, Any], kept: Mask) -> dict[str, Any]:
    """Return the footer note of a file of which these rows are kept (bool[rows])."""
    if "units" not in note:
        return note
    ends = np.cumsum([0, *kept])[np.cumsum([0, *note["units"]["rows"]])]
    return note | {"units": note["units"] | {"rows": np.diff(ends).tolist()}}


def row_groups(note: dict[str, Any]) -> Iterator[int]:
    """Yield the rows of each row group of the file that has this note: at least one group."""
    filled = 0
    for rows in note["units"]["rows"]:
        if filled and filled + rows > GROUP_ROWS:
            yield filled
            filled = 0
        filled += rows
    yield filled
