"""Compaction: the tables of many small units are put into few files when a run is published, so that SQL opens few.

In: a run folder with the tables of all units. Out: the same rows in the files of chunks (see `curate.store.chunks`). Files
of units stay until all that reads them has ended: a run that was killed goes on with whichever are there. How chunks are
laid out depends on the rows of units alone, and a chunk's file on those of its units, so equal units give equal bytes.
Memory is bounded by one table of a chunk.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.pool.plan import UNIT_ROWS
from curate.publish.audit import PublishSettings
from curate.store.chunks import Chunk, units_note
from curate.store.layout import caption_statistics_file, table_file
from curate.store.store import RunStore
from curate.store.tables import UnitTables

CHUNK_ROWS = UNIT_ROWS[1]
CHUNK_UNITS = 500  # of a chunk at most: its footers say something of each, and CORES chunks are in memory at once
MIN_UNITS = 64  # a run of no more stays as it is
_TOGETHER = 50  # small tables that are read before they are put together: each takes 50 kB, whatever it holds
MIN_FEWER = 4  # and one that would not have so many times fewer files


def lay_out_chunks(sources: Sequence[tuple[str, int]], sizes: Mapping[int, int]) -> list[Chunk]:
    """Return the chunks of a run; each is a unit where few are.

    `sources` are the source of units that follow each other, and how many these are; `sizes` the rows of each unit.
    """
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


def compact_chunk(settings: PublishSettings, chunk: Chunk) -> list[str]:
    """Put the tables of a chunk's units into one file each, and return the chunk's files; one unit's stay as they are."""
    if len(chunk.units) == 1:
        return settings.unit_files(chunk.first)
    return compact_units(settings.store, settings.table_names, chunk)


def compact_units(store: RunStore, table_names: Sequence[str], chunk: Chunk) -> list[str]:
    """Put the tables of these names of a chunk's units into one file each, and return the files that were written."""
    merged = UnitTables(store, chunk.first, last=chunk.last)
    for name in table_names:
        parts: list[pa.Table] = []
        sizes, keys, notes = [], [], []
        for start in range(0, len(chunk.units), _TOGETHER):
            read = [_read(store, table_file(name, unit)) for unit in chunk.units[start : start + _TOGETHER]]
            parts.append(pa.concat_tables(part for part, _, _ in read).combine_chunks())
            sizes += [len(part) for part, _, _ in read]
            keys += [key for _, key, _ in read]
            notes += [note for _, _, note in read]
            del read
        merged.write(name, pa.concat_tables(parts).combine_chunks(), None, units_note(sizes, keys, notes))
    files = [merged.file(name) for name in table_names]
    if "captions" not in table_names:
        return files
    statistics = caption_statistics_file(*chunk)
    store.write_json(statistics, [store.read_json(caption_statistics_file(unit)) for unit in chunk.units])
    return [*files, statistics]


def _read(store: RunStore, name: str) -> tuple[pa.Table, str | None, Any]:
    """Return a table with its key and its footer note."""
    with store.open_parquet(name) as file:
        return file.read(), file.key, json.loads(file.note) if file.note else None
