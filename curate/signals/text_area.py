"""Find text in an image: the share of the image that it covers, and how much of it the caption repeats (T-MARS).

- `text_area`: the share of the image's pixels whose centers are in a detected line, a rotated rectangle.
- `text_overlap`: the share of the recognized words that are in the caption. A word is a run of letters and digits, with
  case and accents folded; each Chinese character is a word. A word is in the caption if it equals one of its words, or
  several consecutive ones joined, because recognition often misses spaces.

T-MARS drops pairs that no longer match once the text is painted over; these columns find such pairs without painting.
It detects lines in the image at most 640 pixels per side, and reads them at 2000. It finds steep or upside-down text,
but misreads it.

Source: Maini et al., T-MARS: Improving Visual Representations by Circumventing Text Feature Learning, ICLR 2024.
"""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.models.text_lines import Line, area, covered_share, find_lines, identify, read_line
from curate.read.image import as_rgb, rotate_by_exif
from curate.recipe.section import Column, Section
from curate.signals.signal import observer_kind

DETECTED, _READ = 640, 2000  # the longest sides, pixels
MAX_LINES = 32  # largest lines of an image, which are read
MAX_CHARACTERS = 10_000  # the rest of a caption is not compared

_OVERLAP = "Share of the words in the image that the caption also has; null if the image has no words, or no caption."
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")

Seen = tuple[float, tuple[str, ...]]  # an image's text_area and recognized words


class TextArea(Section):
    """Measures how much text an image has, and how much of it the caption has (T-MARS). This section has no keys.

    Needs `pip install '.[ocr]'`. If both columns are large, a model can match image and caption by reading alone.
    curate reads only the 32 largest lines of an image. In images whose longer side has 640 pixels, curate misses or
    misreads letters smaller than about 10 pixels.
    """

    example: ClassVar[Any] = {}
    gives = (
        Column("scores", "text_area", "float32", "Share of the image's area that lines of text cover, 0 to 1."),
        Column("scores", "text_overlap", "float32", _OVERLAP),
    )


class TextObserver:
    """The image signals `text_area` and `text_overlap`, without state."""

    columns: pa.Schema = pa.schema([pa.field("text_area", pa.float32()), pa.field("text_overlap", pa.float32())])

    def observe(self, image: Image.Image) -> Seen:
        """Return text_area and the recognized words, folded, starting with the largest line.

        The image may have any mode and size, and is rotated by its EXIF orientation.
        """
        picture = fitted(as_rgb(rotate_by_exif(image)), _READ).convert("RGB")
        raster = fitted(picture, DETECTED)
        lines = find_lines(raster)
        share = covered_share(lines, raster.size)
        scale = np.divide(picture.size, raster.size)
        lines = sorted((Line(*(part * scale for part in line)) for line in lines), key=area, reverse=True)
        return share, tuple(word for line in lines[:MAX_LINES] for word in words_of(read_line(picture, line)))

    def finish(self, observed: Sequence[Seen | None], captions: Sequence[str | None]) -> list[pa.Array]:
        areas = [seen and seen[0] for seen in observed]
        pairs = zip(observed, captions, strict=True)
        overlaps = [overlap(seen[1], caption) if seen and caption is not None else None for seen, caption in pairs]
        return [pa.array(areas, pa.float32()), pa.array(overlaps, pa.float32())]


def words_of(text: str) -> list[str]:
    """Return the words of a text, with compatible forms, accents, and case folded; a Chinese character is a word."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn")
    return _WORD.findall("".join(letters).casefold())


def overlap(words: Sequence[str], caption: str) -> float | None:
    """Return the share of words that are in the caption (see the module); None without words."""
    if not words:
        return None
    caption_words = words_of(caption[:MAX_CHARACTERS])
    joined = "".join(caption_words)
    edges = set(itertools.accumulate(map(len, caption_words), initial=0))

    def occurs(word: str) -> bool:
        at = joined.find(word)
        while at >= 0 and not (at in edges and at + len(word) in edges):
            at = joined.find(word, at + 1)
        return at >= 0

    return sum(times for word, times in Counter(words).items() if occurs(word)) / len(words)


def fitted(image: Image.Image, longest: int) -> Image.Image:
    """Return the image, shrunk so that its longer side has at most `longest` pixels."""
    if max(image.size) <= longest:
        return image
    size = [max(1, round(side * longest / max(image.size))) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=2.0)


KIND = observer_kind("text_area", TextArea, TextObserver(), identify)
