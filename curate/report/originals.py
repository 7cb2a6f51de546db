"""Reads the images of samples from the input pool, or, of kept samples, from the published shards.

In: rows of `samples`. Out: bytes by (unit, row), where they still have the sha256 that was measured. Inputs may have been
deleted, changed or become unreachable: then there are none.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from curate.pool.byte_sources import open_source
from curate.pool.formats.input_format import InputPart, PartRows
from curate.pool.formats.registry import find_format
from curate.pool.tar_index import index_tar
from curate.pool.tar_samples import group_members
from curate.recipe.source import Source, source_sections
from curate.report.source import Run
from curate.store.facts import RunFacts

Row = dict[str, Any]
Place = tuple[int, int]


def place_of(row: Row) -> Place:
    """Return the key of a row."""
    return row["unit"], row["row"]


def read_originals(run: Run, rows: Sequence[Row]) -> tuple[dict[Place, bytes], set[Place]]:
    """Return the images that can still be read, and the rows whose place in the input holds something else now.

    Args:
        run: the run.
        rows: unit, row, uid, source, shard, offset, bytes, sha256, kept.
    """
    wanted = [row for row in rows if row["sha256"] is not None]
    sources = {source.name: source for source in _sources(run.facts)}
    found: dict[Place, bytes] = {}
    other: set[Place] = set()
    unreachable: set[str] = set()
    for shard in dict.fromkeys(row["shard"] for row in wanted):
        here = [row for row in wanted if row["shard"] == shard]
        source = sources.get(here[0]["source"])
        if source is None or source.name in unreachable:
            continue
        try:
            for row, data in _from_input(run, source, shard, here):
                (found.update({place_of(row): data}) if _same(row, data) else other.add(place_of(row)))
        except FileNotFoundError:
            continue
        except Exception:
            # Stores, drivers and replaced files raise errors of many kinds, and all of them mean: not there.
            if "://" in shard:  # a store that does not answer is not tried again for each file
                unreachable.add(source.name)
    return found | _published(run, [row for row in wanted if row["kept"] and place_of(row) not in found]), other


def _sources(facts: RunFacts) -> Iterator[Source]:
    """Yield the sources of a recipe; not those of formats that are not installed here."""
    for source in facts.recipe.get("input", ()):
        with suppress(ValidationError):
            yield TypeAdapter[Source](source_sections()).validate_python(source)


def _same(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_input(run: Run, source: Source, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield images of an input file: its n-th row is the n-th of the run's that name the file, unless a part is damaged."""
    places = run.rows(
        """SELECT unit, row, place FROM (SELECT unit, row, row_number() OVER (ORDER BY unit, row) - 1 AS place
        FROM samples WHERE shard = $shard) WHERE (unit, row) IN (SELECT unnest($units::INTEGER[]), unnest($rows::INTEGER[]))
        ORDER BY place""",
        shard=path,
        units=[row["unit"] for row in rows],
        rows=[row["row"] for row in rows],
    )
    by_place = {place_of(row): row for row in rows}
    wanted = [by_place[place_of(place)] for place in places]
    samples = pa.table({name: [row[name] for row in wanted] for name in ("offset", "bytes")})
    part = InputPart(path, 0, "")
    numbers = np.array([place["place"] for place in places], np.int64)
    images = find_format(source).reread_images(source, part, PartRows(numbers, samples))
    yield from ((row, data or b"") for row, data in zip(wanted, images, strict=False))


def _published(run: Run, rows: Sequence[Row]) -> dict[Place, bytes]:
    """Return images of kept rows, from the run's own tars."""
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
        except Exception:  # as above: a shard may have been moved, too
            continue
    return found


def _from_shard(run: Run, shard: str, keys: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield images of a tar of the run, by key."""
    path = run.folder.path(shard)
    source = open_source(path if run.folder.is_local else str(run.folder.fs.unstrip_protocol(path)))
    index = index_tar(source)
    samples = group_members(index)
    for key, member in zip(samples.keys, samples.image, strict=True):
        if key in keys and member >= 0:
            yield key, bytes(source.read(int(index.offsets[member]), int(index.sizes[member])))
