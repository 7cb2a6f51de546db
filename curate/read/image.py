"""Measure one image: size after EXIF rotation, format, sha256, pixels for the perceptual hash, and damage.

In: the bytes of one image. Out: `ImageFacts`. `measure_image` does not raise for any bytes. By default, it decodes
every image once, so that you learn about damage here and not in a training run. Reading only headers is about twenty
times faster.

- It opens only the seven formats in `FORMATS`. It detects them from the bytes, never from the file name. Everything
  else is `not_an_image`.
- It decodes and measures only the first frame of an animation, or the first page of a file with several pages.
- It refuses images with more than `max_pixels` pixels (width x height of the canvas) or with a side over 2²⁰. The
  header shows this before any memory is used. Signals skip images whose longer side is over 1,000 times the shorter
  one.
- Images that are built to be slow, such as a JPEG with hundreds of scans or an image in pieces of a few bytes, are
  `too_slow`. It counts scans and pieces, because a deadline would give the same image different results.
- If the header is cut off, or if pixels are missing or cannot be decoded, the image is `truncated_image`. If the header
  is complete but invalid, the image is `not_an_image`.

If damaged pixels can still be decoded, no decoder here notices it, except in PNG: this module compares the checksums,
which Pillow skips, and finds missing rows. A JPEG without its end marker usually counts as truncated, as in every
loader that uses Pillow. A JPEG with an end marker in the middle does not.

This module cannot control three things. `PIL.ImageFile.LOAD_TRUNCATED_IMAGES` must stay False in the process. libtiff
prints to standard error. Pillow parses the EXIF of AVIF itself, so hostile entries can briefly use thousands of
times as much memory as the file has bytes.
"""

import hashlib
import io
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from curate.base.schema import OK
from curate.base.wording import ADDRESS
from curate.read.phash import shrink
from curate.recipe.measure import Image as ImageOptions

Observer = Callable[[Image.Image], Any]
Observers = Sequence[Observer]

# EXIF blocks longer than a JPEG segment are not read: Pillow copies the data that each entry of a directory points to.
# Entries may overlap, so 1 MB could become 20 GB.
_MAX_EXIF = 65_536
MAX_BYTES = 1 << 29  # maximum size of an image file, which is copied
_SMALL = 1 << 16  # bytes; pieces of smaller images need not be counted
_PIECES, _PIECE = 10_000, 512  # pieces that any image may have; minimum bytes per further piece, except in GIF
_SCANS, _SCANNED = 20, 2_000_000_000  # scans that any JPEG may have; with more, the pixels in all scans
_SCAN = re.compile(rb"\xff\xda")
_EXIF, _EXIFS = re.compile(rb"\xff\xe1..Exif\0\0", re.DOTALL), 200  # for each further one, Pillow copies all before it
_STRIPS = 1_000_000  # maximum number of strips or tiles in a TIFF
_STRIP_TAGS = (273, 279, 324, 325)  # tags with their offsets and sizes
_MAX_INT32 = 2**31 - 1
# The first: maximum pixels on a side, because shrinking an image needs 24 to 48 bytes for each. The second: how many
# times longer one side may be in an image for signals, because scaling it to a model's input makes it that much larger.
_MAX_SIDE, _MAX_ASPECT = 1 << 20, 1000
_IHDR, _CHANNELS = struct.Struct(">IIBBBBB"), {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # for PNG; channels by color type
# Where the passes of an interlaced PNG start, and their steps: x, y, columns, rows (PNG, section 8.2)
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_STEP = 1 << 14  # bytes of zlib per step, which expand to at most 17 MB
_ORIENTATION = 0x0112
_STATING = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # keys of an image's info about its rotation
_TURNS = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE}
_TURNS |= {6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings.filterwarnings` adds it
_SIGNATURE = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<webp>RIFF.{4}WEBP)|(?P<gif>GIF8[79]a)"
    rb"|(?P<tiff>II[*+]\0|MM\0[*+])|(?P<bmp>BM)|(?P<avif>.{4}ftyp)",
    re.DOTALL,
)

# How files begin that are often named like images; only for the message.
_FOREIGN = re.compile(
    rb"(?P<HEIF_or_another_ISO_media_file>.{4}ftyp)|(?P<PDF>%PDF)|(?P<PostScript>%!PS)|(?P<PSD>8BPS)"
    rb"|(?P<ICO>\x00\x00\x01\x00)|(?P<JPEG_2000>\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51)|(?P<QOI>qoif)|(?P<DDS>DDS )"
    rb"|(?P<JPEG_XL>\x00\x00\x00\x0cJXL |\xff\x0a)|(?P<gzip>\x1f\x8b)|(?P<zip>PK\x03\x04)"
    rb"|(?:\xef\xbb\xbf)?\s*(?i:(?P<SVG><svg)|(?P<XML_or_SVG><\?xml)|(?P<HTML><!doctype html|<html))",
    re.DOTALL,
)


class _TooSlow(OSError):
    """The image is built to be slow to decode."""


def _count_strips(data: bytes | memoryview) -> int:
    """Return the number of strips or tiles in the first directory of a TIFF; 0 if it cannot be read."""
    order, is_big = ">" if data[:1] == b"M" else "<", 43 in data[2:4]
    start_form, count, entry = (order + form for form in (("Q", "Q", "HHQ8x") if is_big else ("I", "H", "HHI4x")))
    with suppress(struct.error, ValueError):
        [first] = struct.unpack_from(start_form, data, 8 if is_big else 4)
        [entries] = struct.unpack_from(count, data, first)
        start, size = first + struct.calcsize(count), struct.calcsize(entry)
        directory = bytes(data[start : start + min(entries, _PIECES) * size])
        return max(int(n) for tag, _, n in struct.iter_unpack(entry, directory) if tag in _STRIP_TAGS)
    return 0


class PlainJpeg(JpegImageFile):
    """The first picture in a JPEG. Skips Pillow's search for a resolution in all EXIF entries.

    Pillow has no public option for this. No other code here uses this private part of Pillow.
    """

    def _read_dpi_from_exif(self) -> None:
        return


class ImageFacts(NamedTuple):
    """What was measured in one image."""

    width: int | None = None  # pixels, after EXIF rotation; None if the header is missing or has more than an int32
    height: int | None = None  # the same
    format: str | None = None  # one of `FORMATS`, detected from the first bytes; None if it is another format
    sha256: str = ""  # of the bytes, in hex; empty if the file is too large
    small: bytes | None = None  # input for `phash.hash_small`; None if no perceptual hash is requested
    status: str = OK  # or `empty_image`, `not_an_image`, `truncated_image`, `too_many_pixels`, `too_slow`
    error: str | None = None  # one line of at most 160 characters, always the same for the same bytes; None if ok
    observed: tuple[Any, ...] = ()  # result of each observer, None if it cannot use the image; empty unless ok


def measure_image(data: bytes | memoryview, options: ImageOptions, observers: Observers = ()) -> ImageFacts:
    """Measure one image from any bytes. Thread-safe; it releases the GIL while it hashes, decodes, and resizes.

    Without `options.decode`, it reads only the header. Then it does not notice damaged pixels (the most frequent
    damage), or the orientation of a PNG if this follows the pixels. `observers` always get decoded images.
    """
    head = bytes(data[:64])
    name = format_of(head)
    if len(data) > MAX_BYTES:  # for example a sparse file, which would take minutes to read
        return ImageFacts(format=name, status="too_slow", error=f"{len(data)} bytes")
    facts = ImageFacts(format=name, sha256=hashlib.sha256(data).hexdigest())
    if not len(data):
        return facts._replace(status="empty_image", error="0 bytes")
    if name is None:
        match = _FOREIGN.match(head)
        kind = match.lastgroup.replace("_", " ") if match and match.lastgroup else "unknown bytes"
        return facts._replace(status="not_an_image", error=f"{kind}, not one of {', '.join(FORMATS)}")
    # Statuses replace Pillow's warnings. The filter is checked for each image: `catch_warnings` elsewhere may have
    # removed it. To use `catch_warnings` here would not be thread-safe.
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    source = _metered(data, name)
    image: ImageFile.ImageFile | None = None
    try:
        if name == "tiff" and _count_strips(data) > _STRIPS:
            raise _TooSlow("it has too many strips or tiles")
        if name == "jpeg" and len(data) > 16 * _SMALL and len(_EXIF.findall(data)) > _EXIFS:
            raise _TooSlow("its EXIF has too many pieces")
        image = _READERS[name](source)
        size = image.size
        is_large = size[0] * size[1] > options.max_pixels or max(size) > _MAX_SIDE
        if (options.decode or options.phash or observers) and not is_large:
            _decode(image, data, name, options)
    except Exception as error:
        status, text = _failure(error, name, image is not None, source.tell() >= len(data))
        facts = facts._replace(status=status, error=text)
        return facts if image is None else _sized(facts, size, 1)
    if is_large:
        limit = f"{options.max_pixels}" if max(size) <= _MAX_SIDE else f"{_MAX_SIDE} on a side"
        text = f"{name}: {size[0]} x {size[1]} pixels, more than {limit}"
        facts = facts._replace(status="too_many_pixels", error=text)
    elif options.phash or observers:
        observed = tuple([_observe(observer, image) for observer in observers])
        small = shrink(as_rgb(rotate_by_exif(image))) if options.phash else None
        facts = facts._replace(small=small, observed=observed)
    return _sized(facts, size, _orientation(image))


def _failure(error: Exception, name: str, is_open: bool, is_at_end: bool) -> tuple[str, str]:
    """Return the status and message for an exception that opening or decoding an image raised."""
    if isinstance(error, _TooSlow):
        return "too_slow", _line(name, error)
    if is_open:
        is_bomb = isinstance(error, Image.DecompressionBombError | MemoryError)
        return "too_many_pixels" if is_bomb else "truncated_image", _line(name, error)
    if is_at_end:
        return "truncated_image", _line(f"{name} header incomplete", error)
    return "not_an_image", _line(f"{name} header invalid", error)


def _metered(data: bytes | memoryview, name: str) -> io.BytesIO:
    if name == "tiff":  # all entries of its directory may point to the same data
        too_much = partial(OSError, "its directory refers to more data than the file has")
        return Metered(data, 4 * len(data) + (1 << 20), too_much)
    if len(data) <= _SMALL:
        return io.BytesIO(data)
    pieces = partial(_TooSlow, "it has too many pieces with few bytes each")
    return Metered(data, sys.maxsize, pieces, _PIECES + (0 if name == "gif" else len(data) // _PIECE))


def _decode(image: ImageFile.ImageFile, data: bytes | memoryview, name: str, options: ImageOptions) -> None:
    width, height = image.size
    if name == "jpeg":
        scans = len(_SCAN.findall(data))  # each scan takes nearly as long as a whole image
        if scans > _SCANS and scans * width * height > _SCANNED:
            raise _TooSlow(f"{scans} scans of {width} x {height} pixels")
        if options.jpeg_side:
            image.draft(None, (options.jpeg_side, options.jpeg_side))
    image.load()
    if name == "png":
        _check_png(memoryview(data), image)


def rotate_by_exif(image: Image.Image) -> Image.Image:
    """Return the image after rotation by its EXIF orientation."""
    turn = _orientation(image)
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def _observe(observer: Observer, image: Image.Image) -> Any:
    """Return an observer's result for the image; None if it cannot use the image, for example because of its mode."""
    if max(image.size) > _MAX_ASPECT * min(image.size):
        return None
    with suppress(ValueError, TypeError, OSError, MemoryError):
        return observer(image)
    return None


def as_rgb(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits, as RGB, or as L if it is gray. Transparency becomes white.

    From 16 bits, it uses the upper 8 (Pillow's own conversion cuts at 255). 32-bit integers and floats have no fixed
    range; they are stretched from their smallest to their largest finite value.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        wide = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(wide.min()), float(wide.max())
        return Image.fromarray(((wide - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", image.size, (255, 255, 255))
        ground.paste(layer, (0, 0), layer)
        return ground
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


class Metered(io.BytesIO):
    """Bytes that raise an error if they are read more often than a limit, or if more bytes are read than a limit."""

    def __init__(
        self, data: bytes | memoryview, max_bytes: int, error: Callable[[], BaseException], max_reads: int = sys.maxsize
    ) -> None:
        super().__init__(data)
        self._bytes, self._reads, self._error = max_bytes, max_reads, error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._bytes, self._reads = self._bytes - len(data), self._reads - 1
        if min(self._bytes, self._reads) < 0:
            raise self._error()  # a new error, because the traceback of a stored one would keep the file in memory
        return data


_CLASSES = (AvifImageFile, BmpImageFile, GifImageFile, PlainJpeg, PngImageFile, TiffImageFile, WebPImageFile)
_READERS: dict[str, type[ImageFile.ImageFile]] = {str(reader.format).lower(): reader for reader in _CLASSES}
FORMATS = tuple(_READERS)
DAMAGED = ("empty_image", "not_an_image", "truncated_image")  # statuses of images that cannot be decoded


def format_of(head: bytes) -> str | None:
    """Return the format that the first bytes show, if it is one of `FORMATS`."""
    signature = _SIGNATURE.match(head)
    if signature is None or signature.lastgroup != "avif":
        return signature and signature.lastgroup
    brands = head[8 : int.from_bytes(head[:4], "big")]  # brands of an ISO media file
    return "avif" if b"avif" in brands or b"avis" in brands else None


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or damaged. Pillow itself rotates TIFFs."""
    if image.info.keys().isdisjoint(_STATING) or isinstance(image, TiffImageFile):
        return 1
    if len(image.info.get("exif") or image.info.get("Raw profile type exif") or b"") > _MAX_EXIF:
        return 1
    with suppress(Exception):
        # Not image.getexif(), which decodes the pixels of a PNG.
        turn = Image.Image.getexif(image).get(_ORIENTATION, 1)
        return turn if turn in _TURNS else 1
    return 1


def _sized(facts: ImageFacts, size: tuple[int, int], turn: int) -> ImageFacts:
    """Return the facts with the image's size after rotation, or without a size if it exceeds an int32."""
    width, height = size[::-1] if turn >= 5 else size
    return facts if max(size) > _MAX_INT32 else facts._replace(width=width, height=height)


def _check_png(data: memoryview, image: Image.Image) -> None:
    """Raise SyntaxError if the checksum of an IDAT chunk is wrong (PNG, section 5.3), or if a row is missing.

    Pillow leaves missing rows as zeros. So this counts the pixels, but only if the last row is zero or rows are
    interlaced.
    """
    at = 8  # after the signature
    chunks: list[memoryview] = []
    while at + 12 <= len(data):
        kind = bytes(data[at + 4 : at + 8])
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            break
        if kind == b"IHDR" and not chunks:
            width, height, bits, color, _, _, is_interlaced = _IHDR.unpack_from(data, at + 8)
        if kind == b"IDAT":
            if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                raise SyntaxError(f"wrong checksum of the IDAT chunk at byte {at}")
            chunks.append(data[at + 8 : end])
        at = end + 4
    if not is_interlaced and image.crop((0, height - 1, width, height)).tobytes().strip(b"\0"):
        return
    missing = 0
    for x, y, columns, rows in _ADAM7 if is_interlaced else [(0, 0, 1, 1)]:
        across, down = -((x - width) // columns), -((y - height) // rows)
        missing += down * (1 - (-across * bits * _CHANNELS[color] // 8)) if across > 0 else 0
    inflate = zlib.decompressobj()
    for chunk in chunks:
        for first in range(0, len(chunk) if missing > 0 else 0, _STEP):
            missing -= len(inflate.decompress(chunk[first : first + _STEP]))
    if missing > 0:
        raise SyntaxError(f"{missing:,} bytes of its pixels are missing")


def _line(name: str, error: Exception) -> str:
    """Return an exception as one short, printable line, without the memory addresses in some messages of Pillow."""
    text = " ".join(ADDRESS.sub("", str(error)).split()) or type(error).__name__
    return f"{name}: {''.join(c if c.isprintable() else '?' for c in text)}"[:160]
