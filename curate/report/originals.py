"""The bytes of samples' images: from the input pool, or, of kept samples, from the published shards.

In: rows of `samples`. Out: bytes by (unit, row), only such as have the sha256 that was measured. Inputs may be gone,
changed or out of reach by now: then there are none.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import pyarrow.parquet as pq

from curate.pool.byte_sources import open_source
from curate.pool.columns import find_columns
from curate.pool.formats.parquet import image_bytes
from curate.pool.tar_index import index_tar
from curate.pool.tar_samples import group_members
from curate.recipe.recipe import Columns
from curate.report.source import Run

Row = dict[str, Any]
Place = tuple[int, int]


def place_of(row: Row) -> Place:
    """The key of a row."""
    return row["unit"], row["row"]


def read_originals(run: Run, rows: Sequence[Row]) -> tuple[dict[Place, bytes], set[Place]]:
    """The images that can still be had, and the rows in whose place the input has something else now.

    Args:
        run: the run.
        rows: unit, row, uid, source, shard, offset, bytes, sha256, kept.
    """
    wanted = [row for row in rows if row["sha256"] is not None]
    sources = {source["name"]: source for source in run.facts.recipe.get("input", [])}
    found: dict[Place, bytes] = {}
    other: set[Place] = set()
    unreachable: set[str] = set()
    for shard in dict.fromkeys(row["shard"] for row in wanted):
        here = [row for row in wanted if row["shard"] == shard]
        source = sources.get(here[0]["source"])
        if source is None or source["name"] in unreachable:
            continue
        read = _from_tar(shard, here) if source["format"] == "webdataset" else _from_parquet(run, source, shard, here)
        try:
            for row, data in read:
                (found.update({place_of(row): data}) if _same(row, data) else other.add(place_of(row)))
        except FileNotFoundError:
            continue
        except Exception:
            # What stores, drivers and files in place of others raise is without end, and all of it means: not there.
            if "://" in shard:  # a store that does not answer is not asked again for each file
                unreachable.add(source["name"])
    return found | _published(run, [row for row in wanted if row["kept"] and place_of(row) not in found]), other


def _same(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_tar(path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    with open_source(path) as source:
        for row in rows:
            if row["offset"] is not None and row["bytes"] is not None:
                yield row, bytes(source.read(row["offset"], row["bytes"]))


def _from_parquet(run: Run, source: Row, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Images of a Parquet file: its n-th row is the n-th of the run's that name the file, unless a row group was damaged."""
    places = run.rows(
        """SELECT unit, row, place FROM (SELECT unit, row, row_number() OVER (ORDER BY unit, row) - 1 AS place
        FROM samples WHERE shard = $shard) WHERE (unit, row) IN (SELECT unnest($units::INTEGER[]), unnest($rows::INTEGER[]))""",
        shard=path,
        units=[row["unit"] for row in rows],
        rows=[row["row"] for row in rows],
    )
    row_at = {place["place"]: next(row for row in rows if place_of(row) == place_of(place)) for place in places}
    with fsspec.open(path, "rb") as opened:
        file = pq.ParquetFile(opened, pre_buffer=False)
        column = find_columns(file.schema_arrow, Columns(**source["columns"])).image
        first = 0
        for group in range(file.num_row_groups if column else 0):
            stop = first + file.metadata.row_group(group).num_rows
            if any(first <= place < stop for place in row_at):
                images = image_bytes(file.read_row_group(group, [column], use_threads=False)[0])
                yield from ((row_at[i], data) for i, data in enumerate(images, first) if i in row_at and data)
            first = stop


def _published(run: Run, rows: Sequence[Row]) -> dict[Place, bytes]:
    """Images of kept rows, from the run's own tars."""
    by_uid = {row["uid"]: row for row in rows}
    sql = "SELECT uid, shard, key FROM published WHERE uid IN (SELECT unnest($uids::VARCHAR[])) AND key IS NOT NULL ORDER BY shard"
    found: dict[Place, bytes] = {}
    places = run.rows(sql, uids=list(by_uid)) if rows else []
    for shard in dict.fromkeys(place["shard"] for place in places):
        wanted = {place["key"]: by_uid[place["uid"]] for place in places if place["shard"] == shard}
        try:
            found |= {
                place_of(wanted[key]): data
                for key, data in _from_shard(run, shard, set(wanted))
                if _same(wanted[key], data)
            }
        except Exception:  # as above: a shard may have been moved away, too
            continue
    return found


def _from_shard(run: Run, shard: str, keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """Images of a tar of the run, by key."""
    path = run.folder.path(shard)
    with open_source(path if run.folder.is_local else str(run.folder.fs.unstrip_protocol(path))) as source:
        index = index_tar(source)
        samples = group_members(index)
        for key, member in zip(samples.keys, samples.image, strict=True):
            if key in keys and member >= 0:
                yield key, bytes(source.read(int(index.offsets[member]), int(index.sizes[member])))
