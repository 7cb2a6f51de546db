"""Draws the demo's scenes. In: a `Scene` and a random generator. Out: the picture (PIL, RGB uint8).

Background textures are formulas over float32 planes, with edges of about two pixels. Other functions change encoded
pictures like copies on the web: `reencode` keeps the perceptual hash, and the changes in `ALTER` alter it.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from curate.demo.scenes import Item, Scene, ground_colours, pick
from curate.demo.words import COLOURS, CORNERS
from curate.read.phash import hash_small, shrink

Plane = npt.NDArray[Any]  # float32
_SAMPLING = 3  # masks are drawn larger by this factor, then averaged, for smooth edges
RECODINGS = (("jpg", 60), ("jpg", 72), ("jpg", 95), ("webp", 80), ("png", 0))
QUALITIES = (30, 75)  # of a compressed JPEG
FACTORS = (0.6, 0.75, 1.25, 1.5)  # of a resized picture; the shorter side keeps at least `MIN_SIDE` pixels
MIN_SIDE = 200
TRIMMED = (0.01, 0.03)  # share of width and height that cropping removes

_ATTEMPTS = 8


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a scene. `rng` chooses the texture's pitch, the light and the grain."""
    width, height = scene.width, scene.height
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    ground = Ground(x, y, min(width, height) * (0.09 + 0.08 * rng.random()), rng)
    field = np.broadcast_to(np.clip(_TEXTURES[scene.background](ground), 0, 1), (height, width))
    texture = Image.fromarray((field * 255).astype(np.uint8))  # 0 is the first color
    base, tint = (Image.new("RGB", (width, height), colour) for colour in ground_colours(scene.background_colour))
    image = Image.composite(tint, base, texture)
    for item in scene.items:
        _paint(image, item)
    tilt, strength = rng.random() * math.tau, 0.1 + 0.12 * rng.random()
    light = 1 + strength * ((x / width - 0.5) * math.cos(tilt) + (y / height - 0.5) * math.sin(tilt))
    grain = rng.standard_normal((height, width), np.float32) * 1.6
    bands = (np.clip(np.asarray(band) * light + grain, 0, 255).astype(np.uint8) for band in image.split())
    return Image.merge("RGB", [Image.fromarray(band) for band in bands])


def _paint(image: Image.Image, item: Item) -> None:
    """Draw one shape on the picture: a soft shadow, a darker rim, then the shape."""
    radius = max(item.radius * min(image.size), 2.0)
    mask = _mask(item, radius, 1.0)
    left, top = (round(item.x * image.width - mask.width / 2), round(item.y * image.height - mask.height / 2))
    offset = max(1, round(radius * 0.07))
    shadow = mask.filter(ImageFilter.BoxBlur(offset)).point([round(v * 0.4) for v in range(256)])
    image.paste((10, 10, 20), (left + offset, top + offset), shadow)
    r, g, b = COLOURS[item.colour]
    rim = (r * 2 // 3, g * 2 // 3, b * 2 // 3) if r + g + b > 150 else (96, 98, 106)
    image.paste(rim, (left, top), mask)
    image.paste((r, g, b), (left, top), _mask(item, radius, 0.92))


def _mask(item: Item, radius: float, scale: float) -> Image.Image:
    """Return the coverage (L, 0-255) of a shape shrunk to `scale`, centered in a square with room for its shadow."""
    centre, r = math.ceil(radius * 1.25) * _SAMPLING, radius * _SAMPLING
    mask = Image.new("L", (2 * centre, 2 * centre))
    pen, outer, c, s = ImageDraw.Draw(mask), r * scale, math.cos(item.turn), math.sin(item.turn)
    if corners := _POLYGONS.get(item.shape):
        pen.polygon([(centre + outer * (c * x - s * y), centre + outer * (s * x + c * y)) for x, y in corners], 255)
    else:
        pen.circle((centre, centre), outer, 255)
    if item.shape in _HOLES:
        hole, shift = _HOLES[item.shape]
        pen.circle((centre + r * shift * c, centre + r * shift * s), r * (hole + (1 - scale)), 0)
    return mask.reduce(_SAMPLING)


_HOLES = {"ring": (0.58, 0.0), "crescent": (0.82, 0.5)}  # relative to a circle: radius, and distance from its center


def _regular(corners: int, inner: float = 1.0, start: float = -math.pi / 2) -> list[tuple[float, float]]:
    radii = zip((1.0, inner) * corners, [start + i * (math.tau / corners) for i in range(corners)], strict=False)
    return [(r * math.cos(angle), r * math.sin(angle)) for r, angle in radii]


def _heart() -> list[tuple[float, float]]:
    angles = [i * math.pi / 24 for i in range(48)]
    across = [16 * math.sin(t) ** 3 for t in angles]
    down = [-13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t) for t in angles]
    return [(x / 16.5, (y - 2.5) / 16.5) for x, y in zip(across, down, strict=True)]


_POLYGONS: dict[str, list[tuple[float, float]]] = CORNERS | {
    "square": _regular(4, start=-math.pi / 4),
    "triangle": _regular(3),
    "star": _regular(10, inner=0.42),
    "heart": _heart(),
    "hexagon": _regular(6),
    "pentagon": _regular(5),
}


@dataclass(frozen=True)
class Ground:
    """The area: columns [1, width] and rows [height, 1] in pixels, and the texture's pitch in pixels."""

    x: Plane
    y: Plane
    pitch: float
    rng: np.random.Generator

    def along(self, angle: float) -> Plane:
        """Return each pixel's coordinate in a direction."""
        return self.x * math.cos(angle) + self.y * math.sin(angle)

    def long(self, pitches: float, extra: float) -> float:
        """Draw a random length in pixels, between two multiples of the pitch."""
        return self.pitch * (pitches + extra * self.rng.random())

    def bands(self, u: Plane, width: float = 1.0) -> Plane:
        pitch = self.pitch * width
        return 0.5 + np.sin(u * (math.tau / pitch)) * (pitch / 6)

    def cells(self) -> Iterator[Plane]:
        """Yield the distance of each column and of each row from the middle of its cell, in cells."""
        return ((u / self.pitch + self.rng.random()) % 1 - 0.5 for u in (self.x, self.y))

    def smooth(self, cells: float, stretch: float = 1) -> Plane:
        """Return smooth noise: uniform values on `cells` × `stretch` by `cells` pixels, enlarged bicubically."""
        height, width = len(self.y), self.x.shape[1]
        lattice = self.rng.random((max(2, int(height / cells)), max(2, int(width / cells / stretch))), np.float32)
        return np.asarray(Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC))


def _gradient(g: Ground) -> Any:
    u = g.along(g.rng.random() * math.tau)
    return (u - u.min()) / (u.max() - u.min())


def _checkerboard(g: Ground) -> Any:
    across, down = (np.sin((u + g.pitch * g.rng.random()) * (math.pi / g.pitch)) for u in (g.x, g.y))
    return 0.5 + across * down * g.pitch


def _ripples(g: Ground) -> Any:
    away = np.hypot(*(u - g.rng.random() * u.size for u in (g.x, g.y)))
    return 0.5 + 0.5 * np.sin(away * (math.tau / g.pitch))


def _clouds(g: Ground) -> Any:
    coarse, middle, fine = (g.smooth(min(g.x.size, g.y.size) / cells) for cells in (3, 7, 15))
    return (coarse * 0.55 + middle * 0.3 + fine * 0.15 - 0.5) * 2 + 0.5


def _bricks(g: Ground) -> Any:
    row = np.floor(g.y / g.pitch)
    along = g.x / (2 * g.pitch) + 0.5 * (row % 2)
    tones = g.rng.random((int(row.max()) + 1, int(along.max()) + 1), np.float32) * 0.35
    upright, level = np.abs(along % 1 - 0.5) * 2 - 0.94, np.abs((g.y / g.pitch) % 1 - 0.5) - 0.44
    return np.maximum(tones[row.astype(np.intp), along.astype(np.intp)], np.maximum(upright, level) * g.pitch)


def _wood(g: Ground) -> Any:
    rings = (g.y / g.pitch + 1.2 * g.smooth(g.pitch * 2, stretch=4)) * math.tau
    return 0.5 + 0.3 * np.sin(rings) + 0.2 * np.sin(rings * 3.7)


# Values up to 0 are the first color, values from 1 on the second color.
_TEXTURES: dict[str, Callable[[Ground], Plane]] = {
    "stripes": lambda g: g.bands(g.along(int(g.rng.random() * 4) * math.pi / 4)),
    "gradient": _gradient,
    "dots": lambda g: (0.3 - np.hypot(*g.cells())) * g.pitch + 0.5,
    "waves": lambda g: g.bands(g.y + np.sin(g.x * (math.tau / g.long(2.5, 2))) * (g.pitch * 0.6), 1.3),
    "noise": lambda g: (g.smooth(6) - 0.5) * 1.6 + 0.5,
    "checkerboard": _checkerboard,
    "grid": lambda g: (0.07 - np.minimum(*map(np.abs, g.cells()))) * g.pitch + 0.5,
    "clouds": _clouds,
    "bricks": _bricks,
    "zigzags": lambda g: g.bands(g.y + np.abs((g.x / g.long(2, 1)) % 1 - 0.5) * (g.pitch * 2.2), 1.3),
    "ripples": _ripples,
    "wood": _wood,
}


def encode(image: Image.Image, suffix: str, quality: int) -> bytes:
    """Encode as JPEG or WebP with a quality, or as PNG with 64 colors, which keeps its size near that of the others."""
    out = io.BytesIO()
    if suffix == "png":
        image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    else:
        image.save(out, {"jpg": "JPEG", "webp": "WEBP"}[suffix], quality=quality, method=2)  # JPEG ignores `method`
    return out.getvalue()


def decode(image: bytes) -> Image.Image:
    """Return the RGB picture of an encoded image."""
    return Image.open(io.BytesIO(image)).convert("RGB")


def phash(image: bytes) -> int:
    """Return the 64-bit perceptual hash of an encoded image."""
    return int(hash_small([shrink(decode(image))])[0])


def reencode(image: bytes, rng: np.random.Generator) -> tuple[bytes, str] | None:
    """Return the picture in another quality or format that keeps its hash, and the file's suffix; or None."""
    picture = decode(image)
    start = int(rng.random() * len(RECODINGS))
    for suffix, quality in RECODINGS[start:] + RECODINGS[:start]:
        recoded = encode(picture, suffix, quality)
        if recoded != image and phash(recoded) == phash(image):
            return recoded, suffix
    return None


def alter(change: str, image: bytes, rng: np.random.Generator) -> bytes | None:
    """Return the picture after a change in `ALTER`, as JPEG; None if the hash stays the same."""
    picture, value = decode(image), phash(image)
    altered = (ALTER[change](picture, rng) for _ in range(_ATTEMPTS))
    return next((data for data in altered if phash(data) != value), None)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _saved(picture: Image.Image, rng: np.random.Generator, qualities: tuple[int, int] = (60, 95)) -> bytes:
    """Encode as JPEG with a random quality. The default range covers common qualities on the web."""
    return encode(picture, "jpg", round(_between(rng, *qualities)))


def _resized(picture: Image.Image, rng: np.random.Generator) -> bytes:
    factor = pick(rng, [factor for factor in FACTORS if factor * min(picture.size) >= MIN_SIDE])
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    size = round(picture.width * factor), round(picture.height * factor)
    return _saved(picture.resize(size, pick(rng, filters)), rng)


def _cropped(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """Crop a share of width and height, divided between both edges."""
    lost = [round(_between(rng, *TRIMMED) * side) for side in picture.size]
    left, top = (int(rng.random() * (pixels + 1)) for pixels in lost)
    width, height = picture.width - lost[0], picture.height - lost[1]
    return _saved(picture.crop((left, top, left + width, top + height)), rng)


ALTER: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "compressed": lambda picture, rng: _saved(picture, rng, QUALITIES),
    "resized": _resized,
    "cropped": _cropped,
}
