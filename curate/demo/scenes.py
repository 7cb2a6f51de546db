"""Draws the demo's scenes: one to three coloured shapes on a textured background, and English alt-text for them.

In: a `numpy.random.Generator`. Out: a `Scene` (what is where), its picture (PIL, RGB uint8) and captions (str). The
same generator state gives the same scene, picture and caption; only uniform and normal numbers are asked of it.

Trades realism for speed and a known truth: a scene takes a few milliseconds, and all of it can be said in words.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from curate.demo import words

Plane = npt.NDArray[np.floating]  # float32 at run time
T = TypeVar("T")

_SAMPLING = 3  # masks are drawn this much larger and averaged down, for smooth edges
_SIZES = {"small": 0.15, "": 0.22, "large": 0.33}  # radius over the shorter side
_SLOTS = {"left": 0.2, "middle": 0.5, "right": 0.8}


@dataclass(frozen=True)
class Item:
    """One shape: radius as a fraction of the shorter side, centre as fractions of width and height, turn in radians."""

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


def pick(rng: np.random.Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """Draw one of `options`, with these relative weights, or with equal ones."""
    if weights is None:
        return options[int(rng.random() * len(options))]
    point = rng.random() * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        point -= weight
        if point < 0:
            return option
    return options[-1]


def _zipf(rng: np.random.Generator, options: Sequence[T]) -> T:
    return pick(rng, options, [1 / (rank + 1) for rank in range(len(options))])


def _weighted(rng: np.random.Generator, options: Mapping[str, float]) -> str:
    return pick(rng, list(options), list(options.values()))


def _tint(colour: words.RGB) -> words.RGB:
    """Return the second colour of a background: a lighter one of the same hue, or a darker one if there is none."""
    light = sum(colour)
    towards, share = ((120, 120, 126), 0.35) if light > 690 else ((255, 255, 255), 0.5 if light > 150 else 0.3)
    r, g, b = (round(c * (1 - share) + w * share) for c, w in zip(colour, towards, strict=True))
    return r, g, b


def compose(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Compose a scene of `width` × `height` pixels: shapes, colours and textures by Zipf-like weights, shapes apart."""
    background, ground = _zipf(rng, list(words.BACKGROUNDS)), _zipf(rng, words.GROUND_COLOURS)
    clear = [name for name, rgb in words.COLOURS.items() if min(math.dist(rgb, c) for c in _grounds(ground)) > 90]
    items: list[Item] = []
    for _ in range(pick(rng, (1, 2, 3), (0.55, 0.3, 0.15))):
        # The shapes of one scene differ in shape or colour: else "the red circle" would name two of them.
        shape, colour = _zipf(rng, words.SHAPES), _zipf(rng, clear)
        while any((shape, colour) == (other.shape, other.colour) for other in items):
            shape, colour = _zipf(rng, words.SHAPES), _zipf(rng, clear)
        if item := _place(rng, items, (shape, colour), (width, height)):
            items.append(item)
    return Scene(width, height, background, ground, tuple(items))


def _grounds(colour: str) -> tuple[words.RGB, words.RGB]:
    return words.COLOURS[colour], _tint(words.COLOURS[colour])


def _place(rng: np.random.Generator, items: list[Item], name: tuple[str, str], canvas: tuple[int, int]) -> Item | None:
    """Return one more shape that touches no other, or None after some attempts; the first always has a place."""
    (shape, colour), (width, height) = name, canvas
    side = min(width, height)
    for _ in range(12):
        size = pick(rng, list(_SIZES), (3, 5, 3 if not items else 0.5))
        radius = _SIZES[size] * (0.92 + 0.16 * rng.random())
        column, row = (_SLOTS[pick(rng, list(_SLOTS))] + 0.12 * (rng.random() - 0.5) for _ in range(2))
        margin_x, margin_y = 1.08 * radius * side / width, 1.08 * radius * side / height
        x, y = min(max(column, margin_x), 1 - margin_x), min(max(row, margin_y), 1 - margin_y)
        gaps = [math.hypot((x - o.x) * width, (y - o.y) * height) - 1.02 * (radius + o.radius) * side for o in items]
        if min(gaps, default=1.0) > 0:
            return Item(shape, colour, size, radius, x, y, (rng.random() - 0.5) * 0.4)
    return None


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a scene, RGB; `rng` gives the texture's pitch, light and grain."""
    width, height = scene.width, scene.height
    y, x = np.ogrid[:height, :width]
    x, y = x.astype(np.float32), y.astype(np.float32)
    pitch = min(width, height) * (0.09 + 0.08 * rng.random())
    field = np.broadcast_to(_TEXTURES[scene.background](x, y, pitch, rng), (height, width))
    base, tint = (Image.new("RGB", (width, height), colour) for colour in _grounds(scene.background_colour))
    image = Image.composite(tint, base, Image.fromarray((field * 255).astype(np.uint8)))
    for item in scene.items:
        _paint(image, item)
    tilt, strength = rng.random() * math.tau, 0.1 + 0.12 * rng.random()
    light = 1 + strength * _along(x / width - 0.5, y / height - 0.5, tilt)
    grain = rng.standard_normal((height, width), np.float32) * 1.6
    bands = (np.clip(np.asarray(band) * light + grain, 0, 255).astype(np.uint8) for band in image.split())
    return Image.merge("RGB", [Image.fromarray(band) for band in bands])


def _paint(image: Image.Image, item: Item) -> None:
    """Put one shape on the picture: a soft shadow, a darker rim, then the shape itself."""
    side = min(image.size)
    radius = max(item.radius * side, 2.0)
    mask = _mask(item.shape, radius, item.turn, 1.0)
    left, top = (round(item.x * image.width - mask.width / 2), round(item.y * image.height - mask.height / 2))
    offset = max(1, round(radius * 0.07))
    shadow = mask.filter(ImageFilter.BoxBlur(offset)).point([round(v * 0.4) for v in range(256)])
    image.paste((10, 10, 20), (left + offset, top + offset), shadow)
    r, g, b = words.COLOURS[item.colour]
    rim = (r * 2 // 3, g * 2 // 3, b * 2 // 3) if r + g + b > 150 else (96, 98, 106)
    image.paste(rim, (left, top), mask)
    image.paste((r, g, b), (left, top), _mask(item.shape, radius, item.turn, 0.92))


def _mask(shape: str, radius: float, turn: float, scale: float) -> Image.Image:
    """Return the coverage (L, 0-255) of a shape shrunk to `scale`, centred in a square with room for its shadow."""
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
    """Return a regular polygon in the unit circle, or a star with its notches at radius `inner`."""
    radii = [1.0] * corners if inner is None else [1.0, inner] * corners
    step = math.tau / len(radii)
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
    "cross": [
        *((-0.3, -0.92), (0.3, -0.92), (0.3, -0.3), (0.92, -0.3), (0.92, 0.3), (0.3, 0.3)),
        *((0.3, 0.92), (-0.3, 0.92), (-0.3, 0.3), (-0.92, 0.3), (-0.92, -0.3), (-0.3, -0.3)),
    ],
}


# Textures: (x float32[1,w], y float32[h,1] in pixels, pitch in pixels, rng) -> float32 in [0, 1], broadcastable to [h,w].
Texture = Callable[[Plane, Plane, float, np.random.Generator], Plane]


def _unit(field: Plane) -> Plane:
    return np.clip(field, 0, 1)


def _along(x: Plane, y: Plane, angle: float) -> Plane:
    return x * math.cos(angle) + y * math.sin(angle)


def _bands(u: Plane, pitch: float) -> Plane:
    """Return even stripes along `u`, with edges about two pixels soft."""
    return _unit(0.5 + np.sin(u * (math.tau / pitch)) * (pitch / 6))


def _smooth(x: Plane, y: Plane, cells: float, rng: np.random.Generator, stretch: float = 1) -> Plane:
    """Return smooth noise: uniform values on `cells` × `stretch` by `cells` pixels, enlarged bicubically."""
    height, width = y.shape[0], x.shape[1]
    lattice = rng.random((max(2, int(height / cells)), max(2, int(width / cells / stretch))), np.float32)
    return np.asarray(Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC))


def _stripes(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    return _bands(_along(x, y, int(rng.random() * 4) * math.pi / 4), pitch)


def _gradient(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    u = _along(x, y, rng.random() * math.tau)
    return _unit((u - u.min()) / (u.max() - u.min()))


def _dots(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    away = np.hypot((x / pitch + rng.random()) % 1 - 0.5, (y / pitch + rng.random()) % 1 - 0.5)
    return _unit((0.3 - away) * pitch + 0.5)


def _waves(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    length = pitch * (2.5 + 2 * rng.random())
    return _bands(y + np.sin(x * (math.tau / length)) * (pitch * 0.6), pitch * 1.3)


def _noise(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    return _unit((_smooth(x, y, 6, rng) - 0.5) * 1.6 + 0.5)


def _checkerboard(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    across, down = (np.sin((u + pitch * rng.random()) * (math.pi / pitch)) for u in (x, y))
    return _unit(0.5 + across * down * pitch)


def _grid(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    upright, level = (np.abs((u / pitch + rng.random()) % 1 - 0.5) for u in (x, y))
    return _unit((0.07 - np.minimum(upright, level)) * pitch + 0.5)


def _clouds(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    side = min(x.shape[1], y.shape[0])
    coarse, middle, fine = (_smooth(x, y, side / cells, rng) for cells in (3, 7, 15))
    return _unit((coarse * 0.55 + middle * 0.3 + fine * 0.15 - 0.5) * 2 + 0.5)


def _zigzags(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    length = pitch * (2 + rng.random())
    return _bands(y + np.abs((x / length) % 1 - 0.5) * (pitch * 2.2), pitch * 1.3)


def _bricks(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    row = np.floor(y / pitch)
    along = x / (2 * pitch) + 0.5 * (row % 2)
    tones = rng.random((int(row.max()) + 1, int(along.max()) + 1), np.float32) * 0.35
    upright, level = np.abs(along % 1 - 0.5) * 2 - 0.94, np.abs((y / pitch) % 1 - 0.5) - 0.44
    joint = np.maximum(upright, level) * pitch
    return _unit(np.maximum(tones[row.astype(np.intp), along.astype(np.intp)], joint))


def _ripples(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    away = np.hypot(x - rng.random() * x.shape[1], y - rng.random() * y.shape[0])
    return _unit(0.5 + 0.5 * np.sin(away * (math.tau / pitch)))


def _wood(x: Plane, y: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    rings: Plane = (y / pitch + 1.2 * _smooth(x, y, pitch * 2, rng, stretch=4)) * math.tau
    return _unit(0.5 + 0.3 * np.sin(rings) + 0.2 * np.sin(rings * 3.7))


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


_PREPOSITIONS = {"top": "at", "bottom": "at", "left": "on", "right": "on"}  # of other positions: in


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write English alt-text for a scene, in one of many styles: titles, sentences, products, tags."""
    templates = words.MANY if len(scene.items) > 1 and rng.random() < 0.8 else words.ONE
    text = _weighted(rng, templates).format_map(_fields(scene, rng))
    tail = _weighted(rng, words.TAILS).format_map(_fields(scene, rng))
    text = (text.rstrip(".") if tail else text) + tail
    if rng.random() < 0.3:
        text = text.replace("gray", "grey")
    style = rng.random()
    if style < 0.015:
        return text.upper()
    if style < 0.08:
        return text.title()
    return text if style < 0.22 else text[0].upper() + text[1:]


def _fields(scene: Scene, rng: np.random.Generator) -> dict[str, object]:
    """Return the fields of a caption template (see `curate.demo.words`)."""
    first = scene.items[0]
    background = words.BACKGROUNDS[scene.background]
    bare = f"{scene.background_colour} {background.noun}"
    names = [f"{item.colour} {item.shape}" for item in scene.items]
    return {
        "item": names[0],
        "a_item": _article(names[0]),
        "a_sized": _article(f"{first.size} {names[0]}".strip()),
        "a_all": _listed([_article(name) for name in names]),
        "all": ", ".join(names),
        "relation": _relation(scene),
        "count": words.COUNTS[len(names)],
        "shapes": _listed([item.shape for item in scene.items]),
        "ground": bare if background.plural else _article(bare),
        "bare": bare,
        "kind": background.adjective,
        "a_ground": _article(f"{scene.background_colour} {background.adjective}"),
        "where": f"{_PREPOSITIONS.get(first.position, 'in')} the {first.position}",
        "colour": first.colour,
        "shape": first.shape,
        "ground_colour": scene.background_colour,
        "brand": pick(rng, words.BRANDS),
        "person": pick(rng, words.PEOPLE),
        "number": 2 + int(rng.random() ** 3 * 98),
        "year": 2004 + int(rng.random() * 21),
        "pixels": pick(rng, words.PIXELS),
        "print": pick(rng, words.PRINTS),
    }


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _relation(scene: Scene) -> str:
    """Say how the first two shapes lie: "a red star above a pink ring"; the first alone where there is no second."""
    first = scene.items[0]
    text, *rest = (_article(f"{item.colour} {item.shape}") for item in scene.items)
    if not rest:
        return text
    other = scene.items[1]
    right, down = (other.x - first.x) * scene.width, (other.y - first.y) * scene.height
    if abs(right) > abs(down):
        link = "to the left of" if right > 0 else "to the right of"
    else:
        link = "above" if down > 0 else "below"
    return f"{text} {link} {rest[0]}" + (f", with {rest[1]}" if rest[1:] else "")
