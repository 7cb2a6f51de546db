"""Change encoded images as copying does: another encoding, another size, trimmed edges.

A `reencode`d picture keeps its perceptual hash; `ALTER`'s changes alter it, so that equal hashes do not reveal them.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from curate.demo.scenes import pick
from curate.read.phash import hash_small, shrink

RECODINGS = (("jpg", 60), ("jpg", 72), ("jpg", 95), ("webp", 80), ("png", 0))
QUALITIES = (30, 75)  # of a compressed JPEG
FACTORS = (0.6, 0.75, 1.25, 1.5)  # of a resized picture, where it leaves `LEAST` pixels on the shorter side
LEAST = 200
TRIMMED = (0.01, 0.03)  # of the width, and of the height, that a cropped picture has lost

_ATTEMPTS = 8


def encode(image: Image.Image, suffix: str, quality: int) -> bytes:
    """Encode as JPEG or WebP of a quality, or as PNG with 64 colours, which keeps its size near the others'."""
    out = io.BytesIO()
    if suffix == "png":
        image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    else:
        image.save(out, {"jpg": "JPEG", "webp": "WEBP"}[suffix], quality=quality, method=2)  # of a JPEG: no matter
    return out.getvalue()


def decode(image: bytes) -> Image.Image:
    """Return the RGB picture of an encoded image."""
    return Image.open(io.BytesIO(image)).convert("RGB")


def phash(image: bytes) -> int:
    """Return the 64-bit perceptual hash of an encoded image."""
    return int(hash_small([shrink(decode(image))])[0])


def reencode(image: bytes, rng: np.random.Generator) -> tuple[bytes, str] | None:
    """Return the picture in another quality or format that keeps its hash, with its file's suffix, or None."""
    picture = decode(image)
    start = int(rng.random() * len(RECODINGS))
    for suffix, quality in RECODINGS[start:] + RECODINGS[:start]:
        recoded = encode(picture, suffix, quality)
        if recoded != image and phash(recoded) == phash(image):
            return recoded, suffix
    return None


def alter(change: str, image: bytes, rng: np.random.Generator) -> bytes | None:
    """Return the picture after a change of `ALTER`, as JPEG, or None where its hash stays the same."""
    picture, value = decode(image), phash(image)
    altered = (ALTER[change](picture, rng) for _ in range(_ATTEMPTS))
    return next((data for data in altered if phash(data) != value), None)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _saved(picture: Image.Image, rng: np.random.Generator, qualities: tuple[int, int] = (60, 95)) -> bytes:
    """Encode as JPEG in one of the qualities, by default those that sites use."""
    return encode(picture, "jpg", round(_between(rng, *qualities)))


def _resized(picture: Image.Image, rng: np.random.Generator) -> bytes:
    factor = pick(rng, [factor for factor in FACTORS if factor * min(picture.size) >= LEAST])
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    size = round(picture.width * factor), round(picture.height * factor)
    return _saved(picture.resize(size, pick(rng, filters)), rng)


def _cropped(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """Crop a share of width and height each, some of it at the one edge and the rest at the other."""
    lost = [round(_between(rng, *TRIMMED) * side) for side in picture.size]
    left, top = (int(rng.random() * (pixels + 1)) for pixels in lost)
    width, height = picture.width - lost[0], picture.height - lost[1]
    return _saved(picture.crop((left, top, left + width, top + height)), rng)


ALTER: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "compressed": lambda picture, rng: _saved(picture, rng, QUALITIES),
    "resized": _resized,
    "cropped": _cropped,
}
