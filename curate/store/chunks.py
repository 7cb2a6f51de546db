"""Chunks: consecutive units of one source that share one file per table.

Published runs with many small units have them. A chunk's file has the rows of its units, in order. The note in its
footer has a list `units` with each unit's rows, key and note. A row group has the rows of whole units, so that a reader
can read one unit without the others.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from curate.base.numeric.arrays import Mask
from curate.store.store import RunStore

GROUP_ROWS = 2048  # maximum rows in a row group with several units, because a reader of one unit reads the whole group


class Chunk(NamedTuple):
    """The units with numbers from `first` to `last`."""

    first: int
    last: int

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)


def chunks_of(units_per_file: Iterable[int]) -> Iterator[Chunk]:
    """Yield the chunks with these numbers of units, in order. A chunk of one unit is this unit with its own files."""
    first = 0
    for units in units_per_file:
        yield Chunk(first, first + units - 1)
        first += units


def find_chunks(store: RunStore) -> dict[int, Chunk]:
    """Return the chunk of each unit that is in one. Without a given table, any table determines the chunk."""
    names = (name for table in store.names("tables") for name in store.names(f"tables/{table}"))
    chunks = {Chunk(int(m[1]), int(m[2])) for name in names if (m := re.fullmatch(r"(\d+)-(\d+)\.parquet", name))}
    return {unit: chunk for chunk in sorted(chunks) for unit in chunk.units}


def map_notes(note: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Apply a function to the unit's note in a footer, or to the notes of all units of a chunk."""
    if "units" not in note:
        return change(note)
    return note | {"units": note["units"] | {"notes": [inner and change(inner) for inner in note["units"]["notes"]]}}


def keep_rows(note: dict[str, Any], kept: Mask) -> dict[str, Any]:
    """Return the note for the footer of a file that keeps only these rows (bool[rows])."""
    if "units" not in note:
        return note
    ends = np.cumsum([0, *kept])[np.cumsum([0, *note["units"]["rows"]])]
    return note | {"units": note["units"] | {"rows": np.diff(ends).tolist()}}


def row_groups(note: dict[str, Any]) -> Iterator[int]:
    """Yield the number of rows in each row group of the file with this note. There is at least one group."""
    filled = 0
    for rows in note["units"]["rows"]:
        if filled and filled + rows > GROUP_ROWS:
            yield filled
            filled = 0
        filled += rows
    yield filled
