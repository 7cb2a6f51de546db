"""Compaction: the tables of many small units are put into few files when a run is published, so that SQL opens few.

In: a run folder with the tables of all units. Out: the same rows in the files of chunks (see `curate.store.chunks`).
Files of units stay until all that reads them has ended: a run that was killed goes on with whichever are there. How
chunks are laid out depends on the rows of units alone, and a chunk's file on those of its units, so equal units make
equal bytes. Memory is bounded by one table of a chunk.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.base.numeric.arrays import concat_small
from curate.pool.plan import UNIT_ROWS
from curate.store.chunks import Chunk
from curate.store.layout import table_file
from curate.store.store import RunStore
from curate.store.tables import UnitTables

CHUNK_ROWS = UNIT_ROWS[1]
CHUNK_UNITS = 500  # of a chunk at most: its footers say something of each, and CORES chunks are in memory at once
MIN_UNITS = 64  # a run of no more stays as it is,
MIN_FEWER = 4  # as does one that would not have so many times fewer files


def lay_out_chunks(sources: Sequence[tuple[str, int]], sizes: Mapping[int, int]) -> list[Chunk]:
    """Return the chunks of a run, by its `Results.sources` and the rows of each unit; each is a unit where few are."""
    chunks: list[Chunk] = []
    number = filled = 0
    for _, units in sources:
        for place in range(units):
            rows, last = sizes[number], chunks[-1] if chunks else None
            if place and last and filled + rows <= CHUNK_ROWS and len(last.units) < CHUNK_UNITS:
                chunks[-1] = Chunk(last.first, number)
                filled += rows
            else:
                chunks.append(Chunk(number, number))
                filled = rows
            number += 1
    if number <= MIN_UNITS or number < MIN_FEWER * len(chunks):
        return [Chunk(number, number) for number in range(number)]
    return chunks


def compact_units(store: RunStore, table_names: Sequence[str], chunk: Chunk) -> list[str]:
    """Put the tables of a chunk's units into one file each; return the files. Those of one unit stay as they are."""
    last = None if chunk.first == chunk.last else chunk.last
    merged = UnitTables(store, chunk.first, last=last)
    if last is not None:
        for name in table_names:
            footers: list[tuple[int, str | None, Any]] = []  # of each unit its rows, key and note
            table = concat_small(_read(store, name, chunk, footers))
            rows, keys, notes = map(list, zip(*footers, strict=True))
            merged.rewrite(name, table, None, {"units": {"rows": rows, "keys": keys, "notes": notes}})
    return [*map(merged.file, table_names)]


def merged_files(table_names: Sequence[str], chunks: Sequence[Chunk]) -> list[str]:
    """Return the files of units whose tables are in a chunk's files."""
    units = [unit for chunk in chunks if chunk.first < chunk.last for unit in chunk.units]
    return [table_file(name, unit) for name in table_names for unit in units]


def _read(store: RunStore, name: str, chunk: Chunk, footers: list[tuple[int, str | None, Any]]) -> Iterator[pa.Table]:
    """Yield the tables of a chunk's units, and add what their footers say: rows, key, note."""
    for unit in chunk.units:
        with store.open_parquet(table_file(name, unit)) as file:
            table = file.read()
            footers.append((len(table), file.key, json.loads(file.note) if file.note else None))
        yield table
