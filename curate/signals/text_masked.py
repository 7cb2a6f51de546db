"""CLIP scores of images whose text is painted over (T-MARS).

Source: Maini et al., "T-MARS: Improving Visual Representations by Circumventing Text Feature Learning" (ICLR 2024,
arXiv 2307.03132), which keeps the better half by this score. Its code only finds the boxes of text; the painting is
ours: each line gets the mean color of a ring around it, half as wide as the line is high, without text of other lines.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from curate.models.text_lines import Line, find_lines, identify
from curate.read.image import as_rgb
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column
from curate.signals.clip import look_kind
from curate.signals.text_area import DETECTED, fitted

_RING = 0.5  # the width of the ring around a line, as a multiple of the line's height


class TextMasked(OnEmbeddings):
    """Computes the CLIP score of each image after painting over its text (T-MARS, arXiv 2307.03132).

    Needs `pip install '.[ocr]'`. curate paints each line of text with the mean color around it. An image then scores
    well only if the rest of the image fits the caption. For an image without text, the score equals `clip_score`. The
    model encodes each image again.
    """

    example: ClassVar[Any] = {"t_mars": {"of": "clip"}}
    gives = (Column("scores", "NAME", "float32", "Cosine of the embeddings of the painted image and the caption."),)


def paint_over_text(image: Image.Image) -> Image.Image:
    """Return the image with its lines of text painted over, or the same image if it has none."""
    raster = fitted(as_rgb(image), DETECTED).convert("RGB")
    picture, lines = image.convert("RGB"), find_lines(raster)
    if not lines:
        return image
    scale = np.divide(picture.size, raster.size)
    lines = [Line(*(part * scale for part in line)) for line in lines]
    is_text = _filled(picture.size, lines)
    pixels = np.asarray(picture)
    painted, rest = Image.fromarray(pixels.copy()), pixels[~is_text]
    draw = ImageDraw.Draw(painted)
    for line in lines:
        width = 2 * _RING * float(np.hypot(*line.across))
        sides = (side * (1 + width / max(float(np.hypot(*side)), 1e-9)) for side in (line.along, line.across))
        ring = _filled(picture.size, [Line(line.center, *sides)]) & ~is_text
        around = pixels[ring] if ring.any() else rest
        color = around.mean(axis=0) if len(around) else pixels.mean(axis=(0, 1))
        draw.polygon(_corners(line), fill=tuple(int(value) for value in np.rint(color)))
    return painted


def _filled(size: tuple[int, int], lines: list[Line]) -> npt.NDArray[np.bool_]:
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    for line in lines:
        draw.polygon(_corners(line), fill=1)
    return np.asarray(mask)


def _corners(line: Line) -> list[tuple[float, float]]:
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [tuple(line.center + x * line.along + y * line.across - 0.5) for x, y in signs]


KIND = look_kind("text_masked", TextMasked, paint_over_text, identify)
