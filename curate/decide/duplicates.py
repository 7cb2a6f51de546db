"""A unit's part in deduplication: hashes of its keys, then records of the rows that may be duplicates (see `dedup`).

`groups` are those of the passes by nearness, by their places among the passes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.decide import dedup
from curate.decide.groups import Groups
from curate.decide.passes.kinds import KeyPass, Nearness
from curate.decide.settings import DecideSettings
from curate.decide.state import UnitState
from curate.numeric.arrays import U64
from curate.pool.plan import Unit
from curate.store.tables import UnitTables


def read_nodes(settings: DecideSettings, nearness: Nearness, state: UnitState) -> tuple[U64, npt.NDArray]:
    """Return the nodes and values of the rows still in that a pass by nearness compares."""
    rows, values = nearness.read(settings.tables(state.unit), state.alive)
    return nearness.nodes(state.unit.index, rows, values), values


def hash_keys(
    settings: DecideSettings, state: UnitState, n_buckets: int, groups: Mapping[int, Groups]
) -> Iterator[tuple[tuple[int, int], U64]]:
    """Yield the hashes of each pass's keys, by (pass, bucket): phase 1."""
    for i, column in enumerate(_key_columns(settings, state.unit, groups)):
        for bucket, hashes in enumerate(dedup.split_buckets(dedup.key_hashes(column, state.alive), n_buckets)):
            if len(hashes):
                yield (i, bucket), hashes


def find_candidates(
    settings: DecideSettings, state: UnitState, repeated: Iterable[tuple[int, U64]], groups: Mapping[int, Groups]
) -> dedup.Records:
    """Return the records of the rows whose hash repeats somewhere in the pool: phase 2.

    `repeated` are pairs (pass, hashes of this unit that repeat), any number of each pass.
    """
    tables, by_pass = settings.tables(state.unit), list(repeated)
    hashes = [
        np.sort(np.concatenate([np.zeros(0, np.uint64), *(part for i, part in by_pass if i == place)]))
        for place in range(len(settings.passes))
    ]
    columns = _key_columns(settings, state.unit, groups)
    rows = dedup.candidates(columns, state.alive, hashes)
    take = pa.array(rows)
    prefer = None
    if settings.prefer is not None:
        values = tables.read_measured([settings.prefer])[settings.prefer].combine_chunks()
        prefer = dedup.preferences(values.take(take))
    taken = [column.take(take) for column in columns]
    uids = taken[next(i for i, by in enumerate(settings.passes) if isinstance(by, KeyPass) and by.key == "uid")]
    return dedup.make_records(state.unit.index, rows, uids, taken, _content(settings, tables, take), prefer)


def drop_duplicates(state: UnitState, losers: Iterable[dedup.Records]) -> UnitState:
    """Return the state with the unit's losers dropped, in the order of their rows."""
    parts = list(losers)
    if not parts:
        return state
    records = np.concatenate(parts)
    records = records[np.argsort(records["row"])]
    lost = np.zeros(len(state.verdicts), bool)
    lost[records["row"]] = True
    representatives = np.stack([records["rep_hi"], records["rep_lo"]])
    dropped = state.drop(lost, schema.CODES[schema.DUPLICATE])
    return replace(dropped, duplicates=records["row"].copy(), representatives=representatives)


def _key_columns(settings: DecideSettings, unit: Unit, groups: Mapping[int, Groups]) -> list[pa.Array]:
    """Return the key column of each pass."""
    tables = settings.tables(unit)
    return [
        by.keys(tables, groups[place]) if isinstance(by, Nearness) else by.keys(tables)
        for place, by in enumerate(settings.passes)
    ]


def _content(settings: DecideSettings, tables: UnitTables, rows: pa.Array) -> U64:
    """Return what decides between rows of one uid; what names an image is its sha256, or the URL in a pool without images."""
    if not settings.compares_content:
        return np.zeros(len(rows), np.uint64)
    table = tables.read("samples", ["sha256", "url", "caption"]).take(rows)
    return dedup.content_hashes(pc.coalesce(table["sha256"], table["url"]), table["caption"])
