"""Find and read the lines of text in an image, with PP-OCRv4's networks from the package rapidocr.

It uses only the package's weights, and never loads OpenCV. It recognizes Chinese, English, and digits. Text in other
scripts counts toward the area, but its words are missed or misread.

Sources: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020; Du et al., PP-OCR: A
Practical Ultra Lightweight OCR System, 2020.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from curate.base.process import process_cache
from curate.models.weights import identify_models, open_session, shipped_files

_PACKAGE = "rapidocr"  # below 3.9: later versions ship PP-OCRv6's detector, which sees text in half of all photos
_MODELS = ("models/ch_PP-OCRv4_det_mobile.onnx", "models/ch_PP-OCRv4_rec_mobile.onnx")
_STRIDE = 32  # of the networks, pixels
_THINNEST = 3  # pixels: a thinner region is not a line
_GREY = (127, 127, 127)  # the networks' zero, used outside of the image
_LINE_HEIGHT, _LINE_WIDTH = 48, 1920  # of the recognizer, pixels: a line's height and its maximum width
# The package's thresholds: the minimum probability of a text pixel, the minimum mean of a line, a line's margin (as a
# multiple of area over perimeter), and the minimum confidence of a recognized text.
_PIXEL, _LINE, _MARGIN, _MIN_ODDS = 0.3, 0.5, 1.6, 0.5


class _Networks(NamedTuple):
    detector: Any
    recogniser: Any
    characters: list[str]  # of each class of the recognizer; the first is CTC's blank


class Line(NamedTuple):
    """A line of text, as a rectangle: its center, and vectors from there to the middle of its end and its bottom."""

    center: np.ndarray
    along: np.ndarray
    across: np.ndarray


def identify() -> str:
    """Return the package, its version, and digests of its weights. Raises RecipeError if it is not installed."""
    return identify_models(_PACKAGE, *_model_paths())


def find_lines(raster: Image.Image) -> list[Line]:
    """Return the lines of text in an RGB image, in pixels; a rectangle's margin may extend beyond the image."""
    from scipy import ndimage  # imported here: it takes half a second

    text = _text_map(raster)
    mask = text > _PIXEL
    mask[1:] |= mask[:-1].copy()
    mask[:, 1:] |= mask[:, :-1].copy()
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    lines = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        part = labels[rows, columns] == label
        # The centers of each row's first and last pixel have the same convex hull as all pixels.
        y = np.arange(rows.start, rows.stop) + 0.5
        left, right = columns.start + part.argmax(1) + 0.5, columns.stop - part[:, ::-1].argmax(1) - 0.5
        line = _smallest_rectangle(np.stack([np.concatenate([left, right]), np.concatenate([y, y])], 1))
        if 2 * min(_sides(line)) < _THINNEST:
            continue
        where, inside = _pixels(line, raster.size)
        if text[where][inside].mean() >= _LINE:
            lines.append(_widened(line))
    return lines


def read_line(picture: Image.Image, line: Line) -> str:
    """Return the text that is recognized in a line of an RGB image; empty if the confidence is too low."""
    networks = _load()
    width, height = (max(1, round(2 * side)) for side in _sides(line))
    corner = line.center - line.along - line.across
    matrix = np.stack([2 * line.along / width, 2 * line.across / height, corner], 1).ravel().tolist()
    crop = picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_GREY)
    width = min(max(1, round(width * _LINE_HEIGHT / height)), _LINE_WIDTH)
    pixels = np.asarray(crop.resize((width, _LINE_HEIGHT), Image.Resampling.BILINEAR))
    batch = np.zeros((1, 3, _LINE_HEIGHT, _up(width)), np.float32)
    batch[0, :, :, :width] = _scaled(pixels)
    odds = networks.recogniser.run(None, {networks.recogniser.get_inputs()[0].name: batch})[0][0]
    # CTC: one of each run of equal classes, without blanks.
    classes = odds.argmax(1)
    kept = np.flatnonzero((classes != 0) & np.diff(classes, prepend=0).astype(np.bool_))
    if len(kept) == 0 or odds[kept, classes[kept]].mean() < _MIN_ODDS:
        return ""
    return "".join(networks.characters[c] for c in classes[kept])


def _text_map(raster: Image.Image) -> np.ndarray:
    """Return the probability that each pixel is text: float32 of shape (height, width), 0 to 1."""
    detector = _load().detector
    width, height = raster.size
    pixels = np.pad(np.asarray(raster), ((0, _up(height) - height), (0, _up(width) - width), (0, 0)), mode="edge")
    odds = detector.run(None, {detector.get_inputs()[0].name: _scaled(pixels)[None]})[0]
    return np.asarray(odds[0, 0, :height, :width])


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Return the networks' input for uint8 of shape (height, width, 3): channels first, blue first, from -1 to 1."""
    return np.ascontiguousarray(pixels[:, :, ::-1].transpose(2, 0, 1), np.float32) / np.float32(127.5) - np.float32(1)


def _up(length: int) -> int:
    return -(-length // _STRIDE) * _STRIDE


def _smallest_rectangle(points: np.ndarray) -> Line:
    """Return the rectangle with the smallest area around points; one side is on an edge of their hull."""
    import shapely  # imported here, like scipy above

    hull = shapely.get_coordinates(shapely.MultiPoint(points).convex_hull)
    edges = np.roll(hull, -1, 0) - hull
    edges = edges[np.hypot(*edges.T) > 0] if len(hull) > 1 else np.array([[1.0, 0.0]])
    axes = edges / np.hypot(*edges.T)[:, None]
    normals = np.stack([-axes[:, 1], axes[:, 0]], 1)
    spans = [(part.min(1), part.max(1)) for part in (axes @ hull.T, normals @ hull.T)]
    best = int(np.argmin((spans[0][1] - spans[0][0]) * (spans[1][1] - spans[1][0])))
    (x0, x1), (y0, y1) = ((low[best], high[best]) for low, high in spans)
    axis, normal = axes[best], normals[best]
    return Line(axis * (x0 + x1) / 2 + normal * (y0 + y1) / 2, axis * (x1 - x0) / 2, normal * (y1 - y0) / 2)


def _widened(line: Line) -> Line:
    """Return the line in its reading direction, with the margin that the detector was trained to remove.

    The direction is to the right, or down if the line is at least 1.5 times as high as wide.
    """
    long, short = _sides(line)
    margin = _MARGIN * long * short / (long + short)
    along, across = line.along * (1 + margin / long), line.across * (1 + margin / short)
    if abs(along[0]) < abs(along[1]):
        along, across = across, along
    along, across = along * np.sign(along[0]), across * np.sign(across[1])
    if np.hypot(*across) >= 1.5 * np.hypot(*along):
        along, across = across, -along
    return Line(line.center, along, across)


def _sides(line: Line) -> tuple[float, float]:
    return float(np.hypot(*line.along)), float(np.hypot(*line.across))


def area(line: Line) -> float:
    """Return a quarter of a line's area."""
    return math.prod(_sides(line))


def _pixels(line: Line, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a window of an image of that width and height, and which of its pixels have centers in the line."""
    reach = np.abs(line.along) + np.abs(line.across) + 1
    (x0, y0), (x1, y1) = (np.clip(np.floor(line.center + way * reach), 0, size).astype(int) for way in (-1, 1))
    x = np.arange(x0, x1)[None, :] + 0.5 - line.center[0]
    y = np.arange(y0, y1)[:, None] + 0.5 - line.center[1]
    inside = [np.abs(x * part[0] + y * part[1]) <= part @ part + 1e-6 for part in (line.along, line.across)]
    return (slice(y0, y1), slice(x0, x1)), inside[0] & inside[1]


def covered_share(lines: Sequence[Line], size: tuple[int, int]) -> float:
    """Return the share of an image's pixels whose centers are in a line."""
    covered = np.zeros(size[::-1], np.bool_)
    for line in lines:
        where, inside = _pixels(line, size)
        covered[where] |= inside
    return float(covered.mean())


def _model_paths() -> list[Path]:
    return shipped_files("measure.text_area", _PACKAGE, _MODELS, "ocr", "onnxruntime", "shapely")


def _load() -> _Networks:
    def load() -> _Networks:
        detector, recogniser = map(open_session, _model_paths())
        characters = recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        return _Networks(detector, recogniser, ["", *characters, " "])

    return process_cache(_PACKAGE, load)  # an installed package does not change
