"""Resizes images with img2dataset's resizer and reads EXIF like its downloader, within limits.

It replaces `resizer.SuppressStdoutStderr`, because that redirects the standard output and error of all threads.
"""

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import NamedTuple, cast

from curate.base.errors import needing
from curate.base.isolate import DIED, EndedError, Subprocess
from curate.download.source import RESIZING, UrlsSource
from curate.read.image import DAMAGED, FORMATS, Metered, format_of, measure_image
from curate.recipe.measure import Image as ImageOptions
from curate.store.attempts import ISOLATE_AFTER

_NEEDED = ("input of format urls needs img2dataset", "'.[img2dataset]' in a checkout of curate")
HASH_MISMATCH = "hash mismatch"
# img2dataset's messages, and the reasons for them
_REASONS = {
    "Image decoding error": "served_no_image",
    "image too small": "too_small",
    "image area too large": "too_large_area",
    "aspect ratio too large": "aspect_ratio",
    HASH_MISMATCH: "hash_mismatch",
    DIED: DIED,
}


class Resized(NamedTuple):
    """A resized image, with its sizes in pixels, or a message of the resizer."""

    data: bytes | None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    error: str | None = None


Resize = Callable[[bytes], Resized]


def make_resizer(source: UrlsSource) -> Resize:
    """Return the resizer for a source. Raises RecipeError.

    Data is rejected before it is decoded if it is not an accepted image, or if it has too many pixels to resize.
    """
    limits = ImageOptions(decode=False)
    if source.image_size is None:
        return lambda data: _as_it_came(data, limits)
    # Otherwise, a library of the resizer asks the package index for its newest version on import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with needing(*_NEEDED):
        from img2dataset import resizer
    resizer.SuppressStdoutStderr = nullcontext
    values = {name: getattr(source, name) for name in ("image_size", *RESIZING)}
    values = {name: math.inf if value is None else value for name, value in values.items()}
    resize = resizer.Resizer(**values)
    if math.isfinite(values["max_image_area"]):
        limits = limits.model_copy(update={"max_pixels": int(values["max_image_area"])})
    return lambda data: _refusal(data, limits) or Resized(*resize(io.BytesIO(data)))


@contextmanager
def resizing(source: UrlsSource, killed: int) -> Iterator[Resize]:
    """Yield the resizer for a source and a shard at which `killed` attempts died.

    After ISOLATE_AFTER such attempts, a subprocess resizes. An image that kills it gets the reason `worker_died`.
    Raises RecipeError.
    """
    if killed < ISOLATE_AFTER:
        yield make_resizer(source)
        return
    with Subprocess("resize images of a shard on which workers died", make_resizer, source) as process:

        def resize(data: bytes) -> Resized:
            [(_, resized)] = process.isolate(_resize, [data])
            if isinstance(resized, EndedError):
                killed_by = f"{killed} processes died while they downloaded the shard, and one with only this image"
                return Resized(None, error=f"{DIED}: {killed_by} {resized}")
            return cast("Resized", resized)

        yield resize


def _resize(resize: Resize, images: Sequence[bytes]) -> Resized:
    return resize(*images)


def _as_it_came(data: bytes, limits: ImageOptions) -> Resized:
    if (facts := measure_image(data, limits)).status in DAMAGED:
        return Resized(None, error=f"Image decoding error: {facts.error}")
    return Resized(data, *(facts.width, facts.height) * 2)


def _refusal(data: bytes, limits: ImageOptions) -> Resized | None:
    if not format_of(data[:64]):
        return Resized(None, error=f"Image decoding error: the bytes are not an image of {', '.join(FORMATS)}")
    if (facts := measure_image(data, limits)).status == "too_many_pixels":
        return Resized(None, error=f"image area too large: {facts.error}")
    return None


def reason_of(error: str) -> str:
    """Return the entry in schema.MISSING_REASONS for a message of img2dataset."""
    return _REASONS.get(error.partition(":")[0], "not_resized")


class _Endless(BaseException):
    """The EXIF reader does not notice that directories refer to each other endlessly."""


def read_exif(data: bytes) -> str | None:
    """Return an image's EXIF as JSON; None if it cannot be read or is too large. Raises RecipeError."""
    with needing(*_NEEDED):
        import exifread
    with suppress(Exception, _Endless):
        tags = exifread.process_file(Metered(data, 50_000_000, _Endless, 10_000), details=False)
        return json.dumps({name: str(value).strip() for name, value in tags.items() if value is not None})
    return None
