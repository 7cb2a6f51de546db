"""Thumbnails of samples, as data URIs.

In: rows of `samples`. Out: a Picture for each, always: one that is missing, changed, unreadable or too much for the page
says why. Images come from strangers: they are decoded with the limits of measuring, and the page holds a JPEG that is
written here.
"""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from curate.pool.image import ImageOptions, as_rgb, measure_image, rotate_by_exif
from curate.process import in_threads
from curate.report.blocks import Picture
from curate.report.originals import Place, Row, place_of, read_originals
from curate.report.source import Run
from curate.schema import OK

SIDE = 160  # pixels of a thumbnail's longer side
BUDGET = 2_400_000  # characters of all data URIs together
BLURRED = 0.8  # images with an `nsfw` above this are blurred until pointed at


def make_pictures(run: Run, rows: Sequence[Row]) -> dict[Place, Picture]:
    """Return a picture for each row, by (unit, row). The page's budget is spent in their order.

    Args:
        run: the run.
        rows: those of `read_originals`, with status, and nsfw where it is measured.
    """
    images, other = read_originals(run, rows)
    thumbnails = in_threads(thumbnail, (images.get(place_of(row), b"") for row in rows))
    found: dict[Place, Picture] = {}
    left = BUDGET
    for row, jpeg in zip(rows, thumbnails, strict=True):
        place = place_of(row)
        if place in found:
            continue
        if not jpeg:
            found[place] = Picture(missing=_why_not(row, place in images, place in other))
            continue
        data = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        if len(data) > left:
            found[place] = Picture(missing="left out: the page's size limit is reached")
            continue
        left -= len(data)
        found[place] = Picture(data, blurred=(row.get("nsfw") or 0) > BLURRED)
    return found


def _why_not(row: Row, there: bool, changed: bool) -> str:
    if row["status"] != OK:
        return f"not shown: {row['status']}"
    return "cannot be shown" if there else "the input has changed" if changed else "the input no longer exists"


def thumbnail(data: bytes) -> bytes | None:
    """Return the image as a small JPEG, after EXIF rotation, transparency on white; None where it cannot be decoded."""
    if not data:
        return None
    facts = measure_image(data, ImageOptions(jpeg_side=2 * SIDE, observers=(_shrink,)))
    return facts.observed[0] if facts.observed else None


def _shrink(image: Image.Image) -> bytes:
    small = as_rgb(rotate_by_exif(image)).copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX if max(small.size) > 20 * SIDE else Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=78, optimize=True)
    return file.getvalue()
