"""Thumbnails of samples, as data URIs, of images in the input pool, or of kept samples in the published shards.

A sample whose image is missing, changed, unreadable or too much for the page gets words instead. Images are untrusted:
they are decoded with the limits of measuring, and the page holds a JPEG that is written here.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Picture
from curate.base.process import in_threads
from curate.base.schema import OK
from curate.emit.output_format import find_written
from curate.pool.decode.image import as_rgb, measure_image, rotate_by_exif
from curate.pool.decode.tar_samples import split_name
from curate.pool.reread import file_images
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.source import Source, source_sections

SIDE = 160  # pixels of a thumbnail's longer side
BUDGET = 2_400_000  # characters of all data URIs together
BLURRED = 0.8  # images with an `nsfw` above this are blurred until pointed at

Row = dict[str, Any]
Place = tuple[int, int]
AT_PLACES = "(SELECT unnest($units::INTEGER[]), unnest($rows::INTEGER[]))"  # rows at the places of `at_places`


def place_of(row: Row) -> Place:
    """Return the key of a row."""
    return row["unit"], row["row"]


def at_places(places: Iterable[Place]) -> dict[str, list[int]]:
    """Return parameters of a query that looks up these places among AT_PLACES."""
    places = list(places)
    return {"units": [unit for unit, _ in places], "rows": [row for _, row in places]}


def make_pictures(run: OpenRun, rows: Sequence[Row]) -> dict[Place, Picture]:
    """Return a picture for each row of samples, scores and decisions. The page's budget is spent in their order."""
    images, changed = read_originals(run, rows)
    thumbnails = in_threads(thumbnail, (images.get(place_of(row), b"") for row in rows))
    pictures: dict[Place, Picture] = {}
    left = BUDGET
    for row, jpeg in zip(rows, thumbnails, strict=True):
        place = place_of(row)
        if place in pictures:
            continue
        data = "data:image/jpeg;base64," + base64.b64encode(jpeg or b"").decode()
        if not jpeg:
            gone = "the input has changed" if place in changed else "the input no longer exists"
            why = "cannot be shown" if place in images else gone
            pictures[place] = Picture(missing=why if row["status"] == OK else f"not shown: {row['status']}")
        elif len(data) > left:
            pictures[place] = Picture(missing="left out: the page's size limit is reached")
        else:
            left -= len(data)
            pictures[place] = Picture(data, blurred=(row.get("nsfw") or 0) > BLURRED)
    return pictures


def thumbnail(data: bytes) -> bytes | None:
    """Return the image as a small JPEG, after EXIF rotation, transparency on white; None where it cannot be decoded."""
    if not data:
        return None
    facts = measure_image(data, ImageOptions(jpeg_side=2 * SIDE), [_shrink])
    return facts.observed[0] if facts.observed else None


def _shrink(image: Image.Image) -> bytes:
    small = as_rgb(rotate_by_exif(image)).copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX if max(small.size) > 20 * SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78, optimize=True)
    return file.getvalue()


def read_originals(run: OpenRun, rows: Sequence[Row]) -> tuple[dict[Place, bytes], set[Place]]:
    """Return the images that can still be read, and the rows whose place in the input holds something else now."""
    wanted = [row for row in rows if row["sha256"] is not None]
    sources: dict[str, Source] = {}
    for section in run.facts.recipe.get("input", ()):
        with suppress(ValidationError):  # of a format that is not installed here
            source = TypeAdapter[Source](source_sections()).validate_python(section).placed_in(run.folder.url)
            sources[source.name] = source
    images: dict[Place, bytes] = {}
    changed: set[Place] = set()
    unreachable: set[str] = set()
    for shard in dict.fromkeys(row["shard"] for row in wanted):
        of_shard = [row for row in wanted if row["shard"] == shard]
        name = of_shard[0]["source"]
        if name not in sources or name in unreachable:
            continue
        try:
            for row, data in _from_input(run, sources[name], shard, of_shard):
                (images.update({place_of(row): data}) if _same(row, data) else changed.add(place_of(row)))
        except FileNotFoundError:
            continue
        except Exception:
            # Stores, drivers and replaced files raise errors of many kinds, and all of them mean: not there.
            if "://" in shard:  # a store that does not answer is not tried again for each file
                unreachable.add(name)
    return images | _published(run, [row for row in wanted if row["kept"] and place_of(row) not in images]), changed


def _same(row: Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["sha256"])


def _from_input(run: OpenRun, source: Source, path: str, rows: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """Yield images of an input file: its n-th row is the n-th of the run that names the file, unless it is damaged."""
    places = run.rows(
        f"""SELECT unit, row, place FROM (SELECT unit, row, row_number() OVER (ORDER BY unit, row) - 1 AS place
        FROM samples WHERE shard = $shard) WHERE (unit, row) IN {AT_PLACES} ORDER BY place""",
        shard=path,
        **at_places(map(place_of, rows)),
    )
    by_place = {place_of(row): row for row in rows}
    wanted = [by_place[place_of(place)] for place in places]
    samples = pa.table({name: [row[name] for row in wanted] for name in ("offset", "bytes")})
    images = file_images(source, path, np.array([place["place"] for place in places], np.int64), samples)
    yield from ((row, data or b"") for row, data in zip(wanted, images, strict=False))


def _published(run: OpenRun, rows: Sequence[Row]) -> dict[Place, bytes]:
    """Return images of kept rows, from the run's own shards."""
    by_uid = {row["uid"]: row for row in rows}
    of_uids = "uid IN (SELECT unnest($uids::VARCHAR[])) AND key IS NOT NULL"
    sql = f"SELECT uid, shard, key FROM published WHERE {of_uids} ORDER BY shard"
    places = run.rows(sql, uids=list(by_uid)) if rows else []
    images: dict[Place, bytes] = {}
    kind = find_written(run.facts)
    for shard, held in groupby(places, lambda place: str(place["shard"])):
        wanted = {place["key"]: by_uid[place["uid"]] for place in held}
        with suppress(Exception):  # as above: a shard may have been moved, too
            for member, data in kind.members(run.folder, shard.partition(".")[0], wanted.keys()):
                row = wanted[split_name(member)[0]]
                if _same(row, data):
                    images[place_of(row)] = data
    return images
