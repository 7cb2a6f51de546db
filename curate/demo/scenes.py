"""Draws the demo's scenes: one to three coloured shapes on a textured background, and English alt-text for them.

In: a `numpy.random.Generator`. Out: a `Scene` (what is where), its picture (PIL, RGB uint8) and captions (str). The same
generator state gives the same scene, picture and caption. Only uniform and normal numbers are asked of it, so the stream
is as stable between numpy releases as numpy's own.

Trades realism for speed and a known truth: a scene takes about 4 ms, and everything in it can be said in words.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from curate.demo.words import BACKGROUNDS, BRANDS, COLOURS, COUNTS, MANY, ONE, PEOPLE, PIXELS, PRINTS, RGB, SHAPES, TAILS

F32 = npt.NDArray[np.float32]

_SAMPLING = 3  # masks are drawn this much larger and averaged down, for smooth edges
_SIZES = {"small": 0.15, "": 0.22, "large": 0.33}  # radius over the shorter side
_ITEMS = (1, 2, 3)
_ITEM_WEIGHTS = (0.55, 0.3, 0.15)
_SLOTS = {"left": 0.2, "middle": 0.5, "right": 0.8}


@dataclass(frozen=True)
class Item:
    """One shape: name, colour, radius (fraction of the shorter side), centre (fractions of width, height), turn (rad)."""

    shape: str
    colour: str
    size: str
    radius: float
    x: float
    y: float
    turn: float

    @property
    def position(self) -> str:
        """Where the centre lies, as one of nine places: "top left", "top", …, "center", …, "bottom right"."""
        column = "left" if self.x < 0.38 else "right" if self.x > 0.62 else ""
        row = "top" if self.y < 0.38 else "bottom" if self.y > 0.62 else ""
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `items[0]` is the one that short captions name. Width and height are in pixels."""

    width: int
    height: int
    background: str
    background_colour: str
    items: tuple[Item, ...]

    @property
    def concepts(self) -> frozenset[str]:
        """Every shape, colour and texture in the picture."""
        names = {self.background, self.background_colour}
        return frozenset(names.union(*({item.shape, item.colour} for item in self.items)))


def pick[T](rng: np.random.Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of `options`, with the given relative weights, or all alike."""
    if weights is None:
        return options[int(rng.random() * len(options))]
    point = rng.random() * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        point -= weight
        if point < 0:
            return option
    return options[-1]


def _zipf[T](rng: np.random.Generator, options: Sequence[T]) -> T:
    return pick(rng, options, [1 / (rank + 1) for rank in range(len(options))])


def _weighted(rng: np.random.Generator, options: Mapping[str, float]) -> str:
    return pick(rng, list(options), list(options.values()))


def _distance(a: RGB, b: RGB) -> float:
    return math.dist(a, b)


def _tint(colour: RGB) -> RGB:
    """The second colour of a background: a lighter one of the same hue, or a darker one if there is none."""
    towards, share = ((120, 120, 126), 0.35) if sum(colour) > 690 else ((255, 255, 255), 0.5 if sum(colour) > 150 else 0.3)
    r, g, b = (round(c * (1 - share) + w * share) for c, w in zip(colour, towards, strict=True))
    return r, g, b


def compose(rng: np.random.Generator, width: int, height: int) -> Scene:
    """A scene of `width` × `height` pixels: shapes, colours and textures by Zipf-like weights, shapes apart."""
    background, ground = _zipf(rng, list(BACKGROUNDS)), _zipf(rng, list(COLOURS))
    clear = [name for name, rgb in COLOURS.items() if min(_distance(rgb, c) for c in _grounds(ground)) > 90]
    count = pick(rng, _ITEMS, _ITEM_WEIGHTS)
    items: list[Item] = []
    for _ in range(count):
        # The shapes of one scene differ in shape or colour: else "the red circle" would name two of them.
        shape, colour = _zipf(rng, SHAPES), _zipf(rng, clear)
        while any((shape, colour) == (other.shape, other.colour) for other in items):
            shape, colour = _zipf(rng, SHAPES), _zipf(rng, clear)
        item = _place(rng, items, shape, colour, width, height)
        if item is not None:
            items.append(item)
    return Scene(width, height, background, ground, tuple(items))


def _grounds(colour: str) -> tuple[RGB, RGB]:
    return COLOURS[colour], _tint(COLOURS[colour])


def _place(
    rng: np.random.Generator, items: list[Item], shape: str, colour: str, width: int, height: int
) -> Item | None:
    """A place for one more shape that touches no other, or None after some attempts; the first always has one."""
    side = min(width, height)
    for _ in range(12):
        size = pick(rng, list(_SIZES), (3, 5, 3 if not items else 0.5))
        radius = _SIZES[size] * (0.92 + 0.16 * rng.random())
        column, row = (_SLOTS[pick(rng, list(_SLOTS))] + 0.12 * (rng.random() - 0.5) for _ in range(2))
        margin_x, margin_y = 1.08 * radius * side / width, 1.08 * radius * side / height
        x, y = min(max(column, margin_x), 1 - margin_x), min(max(row, margin_y), 1 - margin_y)
        gaps = [
            math.hypot((x - o.x) * width, (y - o.y) * height) - 1.02 * (radius + o.radius) * side for o in items
        ]
        if min(gaps, default=1.0) > 0:
            return Item(shape, colour, size, radius, x, y, (rng.random() - 0.5) * 0.4)
    return None


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The picture of a scene, RGB; `rng` gives the texture's pitch, light and grain."""
    width, height = scene.width, scene.height
    y, x = np.ogrid[:height, :width]
    x, y = x.astype(np.float32), y.astype(np.float32)
    pitch = np.float32(min(width, height) * (0.09 + 0.08 * rng.random()))
    field = _TEXTURES[scene.background](x, y, pitch, rng)[..., None]
    base, tint = (np.array(c, np.float32) for c in _grounds(scene.background_colour))
    image = Image.fromarray((base + (tint - base) * field).astype(np.uint8))
    for item in scene.items:
        _paint(image, item)
    tilt, strength = rng.random() * 2 * math.pi, 0.1 + 0.12 * rng.random()
    light = 1 + strength * ((x / width - 0.5) * math.cos(tilt) + (y / height - 0.5) * math.sin(tilt))
    grain = rng.standard_normal((height, width), np.float32) * np.float32(2.2)
    pixels = np.asarray(image, np.float32) * light.astype(np.float32)[..., None] + grain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _paint(image: Image.Image, item: Item) -> None:
    """Puts one shape on the picture: a soft shadow, a darker rim, then the shape itself."""
    side = min(image.size)
    radius = max(item.radius * side, 2.0)
    mask = _mask(item.shape, radius, item.turn, 1.0)
    left, top = (round(item.x * image.width - mask.width / 2), round(item.y * image.height - mask.height / 2))
    offset = max(1, round(radius * 0.07))
    shadow = mask.filter(ImageFilter.BoxBlur(offset)).point([round(v * 0.4) for v in range(256)])
    image.paste((10, 10, 20), (left + offset, top + offset), shadow)
    r, g, b = COLOURS[item.colour]
    rim = (r * 2 // 3, g * 2 // 3, b * 2 // 3) if r + g + b > 150 else (96, 98, 106)
    image.paste(rim, (left, top), mask)
    image.paste((r, g, b), (left, top), _mask(item.shape, radius, item.turn, 0.92))


def _mask(shape: str, radius: float, turn: float, scale: float) -> Image.Image:
    """Coverage (L, 0-255) of a shape shrunk to `scale`, centred in a square with room for its shadow."""
    half = math.ceil(radius * 1.25)
    centre, r = half * _SAMPLING, radius * _SAMPLING
    mask = Image.new("L", (2 * centre, 2 * centre))
    pen = ImageDraw.Draw(mask)
    outer = r * scale
    if shape in ("circle", "ring", "crescent"):
        pen.ellipse((centre - outer, centre - outer, centre + outer, centre + outer), fill=255)
    if shape == "ring":
        inner = r * (0.58 + (1 - scale))
        pen.ellipse((centre - inner, centre - inner, centre + inner, centre + inner), fill=0)
    elif shape == "crescent":
        inner, shift = r * (0.82 + (1 - scale)), r * 0.5
        cx, cy = centre + shift * math.cos(turn), centre + shift * math.sin(turn)
        pen.ellipse((cx - inner, cy - inner, cx + inner, cy + inner), fill=0)
    elif shape != "circle":
        c, s = math.cos(turn), math.sin(turn)
        points = [(centre + outer * (c * x - s * y), centre + outer * (s * x + c * y)) for x, y in _POLYGONS[shape]]
        pen.polygon(points, fill=255)
    return mask.reduce(_SAMPLING)


def _regular(corners: int, inner: float | None = None, start: float = -math.pi / 2) -> list[tuple[float, float]]:
    """A regular polygon in the unit circle, or a star with its notches at radius `inner`."""
    radii = [1.0] * corners if inner is None else [1.0, inner] * corners
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(start + i * step), r * math.sin(start + i * step)) for i, r in enumerate(radii)]


def _heart() -> list[tuple[float, float]]:
    angles = [i * math.pi / 24 for i in range(48)]
    across = [16 * math.sin(t) ** 3 for t in angles]
    down = [-13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t) for t in angles]
    return [(x / 16.5, (y - 2.5) / 16.5) for x, y in zip(across, down, strict=True)]


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": _regular(4, start=-math.pi / 4),
    "triangle": _regular(3),
    "star": _regular(5, inner=0.42),
    "heart": _heart(),
    "diamond": [(0, -1), (0.66, 0), (0, 1), (-0.66, 0)],
    "hexagon": _regular(6),
    "pentagon": _regular(5),
    "arrow": [(-0.95, -0.24), (0.1, -0.24), (0.1, -0.68), (0.98, 0), (0.1, 0.68), (0.1, 0.24), (-0.95, 0.24)],
    "cross": [(-0.3, -0.92), (0.3, -0.92), (0.3, -0.3), (0.92, -0.3), (0.92, 0.3), (0.3, 0.3)]
    + [(0.3, 0.92), (-0.3, 0.92), (-0.3, 0.3), (-0.92, 0.3), (-0.92, -0.3), (-0.3, -0.3)],
}


# Textures: (x float32[1,w], y float32[h,1] in pixels, pitch in pixels, rng) -> float32[h,w] in [0, 1].
Texture = Callable[[F32, F32, np.float32, np.random.Generator], F32]
_TAU = np.float32(2 * math.pi)


def _bands(u: F32, pitch: np.float32) -> F32:
    """Even stripes along `u`, with edges about two pixels soft."""
    return np.clip(0.5 + np.sin(u * (_TAU / pitch)) * (pitch / 6), 0, 1)


def _smooth(x: F32, y: F32, cells: float, rng: np.random.Generator) -> F32:
    """Smooth noise: uniform values on a lattice of `cells` pixels, enlarged bicubically."""
    height, width = y.shape[0], x.shape[1]
    lattice = rng.random((max(2, int(height / cells)), max(2, int(width / cells))), np.float32)
    return np.asarray(Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC))


def _along(x: F32, y: F32, rng: np.random.Generator) -> F32:
    angle = int(rng.random() * 4) * math.pi / 4
    return x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))


def _stripes(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    return np.broadcast_to(_bands(_along(x, y, rng), pitch), (y.shape[0], x.shape[1]))


def _gradient(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    angle = rng.random() * 2 * math.pi
    u = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    return (u - u.min()) / (u.max() - u.min())


def _dots(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    away = np.hypot((x / pitch + np.float32(rng.random())) % 1 - 0.5, (y / pitch + np.float32(rng.random())) % 1 - 0.5)
    return np.clip((0.3 - away) * pitch + 0.5, 0, 1)


def _waves(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    length = pitch * np.float32(2.5 + 2 * rng.random())
    return _bands(y + np.sin(x * (_TAU / length)) * (pitch * np.float32(0.6)), pitch * np.float32(1.3))


def _noise(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    return np.clip((_smooth(x, y, 4, rng) - 0.5) * 1.6 + 0.5, 0, 1)


def _checkerboard(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    across, down = (np.sin((u + pitch * np.float32(rng.random())) * (math.pi / pitch)) for u in (x, y))
    return np.clip(0.5 + across * down * pitch, 0, 1)


def _grid(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    lines = [np.abs((u / pitch + np.float32(rng.random())) % 1 - 0.5) for u in (x, y)]
    return np.clip((0.07 - np.minimum(*lines)) * pitch + 0.5, 0, 1)


def _clouds(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    side = min(x.shape[1], y.shape[0])
    layers = [_smooth(x, y, side / cells, rng) * weight for cells, weight in ((3, 0.55), (7, 0.3), (15, 0.15))]
    return np.clip((sum(layers[1:], layers[0]) - 0.5) * 2 + 0.5, 0, 1)


def _zigzags(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    length = pitch * np.float32(2 + rng.random())
    return _bands(y + np.abs((x / length) % 1 - 0.5) * (pitch * np.float32(2.2)), pitch * np.float32(1.3))


def _bricks(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    row = np.floor(y / pitch)
    along = x / (2 * pitch) + 0.5 * (row % 2)
    tones = rng.random((int(row.max()) + 1, int(along.max()) + 1), np.float32) * np.float32(0.35)
    gap = np.minimum(np.abs(along % 1 - 0.5) * 2, np.broadcast_to(np.abs((y / pitch) % 1 - 0.5), along.shape))
    joint = np.clip((np.maximum(np.abs(along % 1 - 0.5) * 2 - 0.94, (np.abs((y / pitch) % 1 - 0.5) - 0.44) * 2)) * pitch, 0, 1)
    del gap
    return np.maximum(tones[row.astype(int), along.astype(int)], joint)


def _ripples(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    cx, cy = np.float32(rng.random() * x.shape[1]), np.float32(rng.random() * y.shape[0])
    return 0.5 + 0.5 * np.sin(np.hypot(x - cx, y - cy) * (_TAU / pitch))


def _wood(x: F32, y: F32, pitch: np.float32, rng: np.random.Generator) -> F32:
    warp = _smooth(x / 6, y, float(pitch) * 2, rng)
    field = np.sin((y / pitch + 1.5 * warp) * _TAU) * 0.3 + np.sin((y / pitch + 1.5 * warp) * (3.7 * _TAU)) * 0.2
    return np.asarray(field + 0.5, np.float32)


_TEXTURES: dict[str, Texture] = {
    "stripes": _stripes,
    "gradient": _gradient,
    "dots": _dots,
    "waves": _waves,
    "noise": _noise,
    "checkerboard": _checkerboard,
    "grid": _grid,
    "clouds": _clouds,
    "bricks": _bricks,
    "zigzags": _zigzags,
    "ripples": _ripples,
    "wood": _wood,
}
