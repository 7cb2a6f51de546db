"""A unit's part in deduplication: hashes of its keys, records of what may be duplicates, and the rows that lose.

Which hashes repeat and what is near each other is global, and comes in as arguments.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.numeric.arrays import U64
from curate.decide.dedup import exact
from curate.decide.dedup.groups import Groups
from curate.decide.dedup.passes.dedup_pass import KeyPass, Nearness
from curate.decide.settings import DecideSettings
from curate.decide.statistics.derived import read_columns
from curate.decide.unit_state import UnitState
from curate.store.tables import UnitTables


def read_nodes(tables: UnitTables, nearness: Nearness, state: UnitState) -> tuple[U64, npt.NDArray]:
    """Return the nodes and values of the rows still in that a pass by nearness compares."""
    rows, values = nearness.read(tables, state.alive)
    return nearness.nodes(state.unit.index, rows, values), values


def hash_keys(
    settings: DecideSettings, tables: UnitTables, state: UnitState, n_buckets: int, groups: Mapping[int, Groups]
) -> Iterator[tuple[tuple[int, int], U64]]:
    """Yield the hashes of each pass's keys, by (pass, bucket): phase 1."""
    for i, column in enumerate(_key_columns(settings, tables, groups)):
        for bucket, hashes in enumerate(exact.split_buckets(exact.key_hashes(column, state.alive), n_buckets)):
            if len(hashes):
                yield (i, bucket), hashes


def find_candidates(
    settings: DecideSettings,
    tables: UnitTables,
    state: UnitState,
    repeated: Iterable[tuple[int, U64]],
    groups: Mapping[int, Groups],
) -> exact.Records:
    """Return the records of the rows whose hash repeats somewhere in the pool: phase 2.

    `repeated` are pairs (pass, hashes of this unit that repeat), any number of each pass.
    """
    by_pass = list(repeated)
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *(part for i, part in by_pass if i == place)]))
        for place in range(len(settings.passes))
    ]
    columns = _key_columns(settings, tables, groups)
    rows = exact.candidates(columns, state.alive, hashes)
    take = pa.array(rows)
    prefer = None
    if settings.prefer is not None:
        values = read_columns(tables, settings.derived, state.derived, [settings.prefer])[settings.prefer]
        prefer = exact.preferences(values.combine_chunks().take(take))
    taken = [column.take(take) for column in columns]
    uids = taken[next(i for i, by in enumerate(settings.passes) if isinstance(by, KeyPass) and by.key == "uid")]
    content = _content(settings, tables, take)
    nearest = {place: by.cosines(tables, groups[place]) for place, by in settings.near.items()}
    cosines = {place: values[rows] for place, values in nearest.items() if values is not None}
    return exact.make_records(state.unit.index, rows, uids, taken, content, prefer, cosines)


def drop_duplicates(state: UnitState, losers: exact.Records) -> UnitState:
    """Return the state with the unit's losers dropped, in the order of their rows."""
    if not len(losers):
        return state
    records = losers[np.argsort(losers["row"])]
    lost = np.zeros(len(state.verdicts), bool)
    lost[records["row"]] = True
    representatives = np.stack([records["rep_hi"], records["rep_lo"]])
    dropped = state.drop(lost, schema.CODES[schema.DUPLICATE])
    cosines = records["cosine"].copy() if records["cosine"].any() else None
    return replace(dropped, duplicates=records["row"].copy(), representatives=representatives, cosines=cosines)


def _key_columns(settings: DecideSettings, tables: UnitTables, groups: Mapping[int, Groups]) -> list[pa.Array]:
    return [
        by.keys(tables, groups[place]) if isinstance(by, Nearness) else by.keys(tables)
        for place, by in enumerate(settings.passes)
    ]


def _content(settings: DecideSettings, tables: UnitTables, rows: pa.Array) -> U64:
    """Return what decides between rows of one uid: hashes of caption and image (its sha256, or URL without images)."""
    if not settings.compares_content:
        return np.zeros(len(rows), np.uint64)
    table = tables.read("samples", ["sha256", "url", "caption"]).take(rows)
    return exact.content_hashes(pc.coalesce(table["sha256"], table["url"]), table["caption"])
