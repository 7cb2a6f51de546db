"""Composes the demo's scenes: one to three colored shapes on a textured background.

In: a `numpy.random.Generator`, which draws only uniform and normal numbers. Out: a `Scene`, which lists the shapes and
their positions. This takes a few milliseconds.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import numpy as np

from curate.demo.words import BACKGROUNDS, COLOURS, GROUND_COLOURS, RGB, SHAPES

T = TypeVar("T")

_SIZES = {"small": 0.15, "": 0.22, "large": 0.33}  # radius over the shorter side
_SLOTS = (0.2, 0.5, 0.8)  # across, and down


@dataclass(frozen=True)
class Item:
    """One shape: radius as a fraction of the shorter side, center as fractions of width and height, turn in radians."""

    shape: str
    colour: str
    size: str
    radius: float
    x: float
    y: float
    turn: float

    @property
    def position(self) -> str:
        """The position of the center, one of nine: "top left", "top", …, "center", …, "bottom right"."""
        column = "left" if self.x < 0.38 else "right" if self.x > 0.62 else ""
        row = "top" if self.y < 0.38 else "bottom" if self.y > 0.62 else ""
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True)
class Scene:
    """The contents of a picture. Short captions name `items[0]`. Width and height are in pixels."""

    width: int
    height: int
    background: str
    background_colour: str
    items: tuple[Item, ...]

    @property
    def concepts(self) -> frozenset[str]:
        shapes, colours = zip(*((item.shape, item.colour) for item in self.items), strict=True)
        return frozenset((self.background, self.background_colour, *shapes, *colours))


def pick(rng: np.random.Generator, options: Sequence[T], weights: Iterable[float] = ()) -> T:
    """Draw one of `options`, with relative weights or with equal ones."""
    ends = list(accumulate(weights)) or range(1, len(options) + 1)
    point = rng.random() * ends[-1]
    return options[min(bisect_right(ends, point), len(options) - 1)]


def _zipf(rng: np.random.Generator, options: Sequence[T]) -> T:
    return pick(rng, options, [1 / (rank + 1) for rank in range(len(options))])


def ground_colours(colour: str) -> tuple[RGB, RGB]:
    """Return the two colors of a background: its color, and a lighter or darker color of the same hue."""
    rgb = COLOURS[colour]
    light = sum(rgb)
    towards, share = ((120, 120, 126), 0.35) if light > 690 else ((255, 255, 255), 0.5 if light > 150 else 0.3)
    r, g, b = (round(c * (1 - share) + w * share) for c, w in zip(rgb, towards, strict=True))
    return rgb, (r, g, b)


def compose(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Compose a scene of `width` × `height` pixels from shapes that do not touch, drawn with Zipf-like weights."""
    background, ground = _zipf(rng, list(BACKGROUNDS)), _zipf(rng, GROUND_COLOURS)
    clear = [name for name, rgb in COLOURS.items() if min(math.dist(rgb, c) for c in ground_colours(ground)) > 90]
    items: list[Item] = []
    for _ in range(pick(rng, (1, 2, 3), (0.55, 0.3, 0.15))):
        # The shapes of a scene differ in shape or color; otherwise "the red circle" would be ambiguous.
        name = _zipf(rng, SHAPES), _zipf(rng, clear)
        while any(name == (other.shape, other.colour) for other in items):
            name = _zipf(rng, SHAPES), _zipf(rng, clear)
        if item := _place(rng, items, name, (width, height)):
            items.append(item)
    return Scene(width, height, background, ground, tuple(items))


def _place(rng: np.random.Generator, items: list[Item], name: tuple[str, str], canvas: tuple[int, int]) -> Item | None:
    """Return another shape that touches no other one, or None after some attempts. The first shape always fits."""
    width, height = canvas
    side = min(canvas)
    for _ in range(12):
        size = pick(rng, list(_SIZES), (3, 5, 3 if not items else 0.5))
        radius = _SIZES[size] * (0.92 + 0.16 * rng.random())
        slots = [pick(rng, _SLOTS) + 0.12 * (rng.random() - 0.5) for _ in canvas]
        margins = [1.08 * radius * side / length for length in canvas]
        x, y = (min(max(slot, margin), 1 - margin) for slot, margin in zip(slots, margins, strict=True))
        gaps = [math.hypot((x - o.x) * width, (y - o.y) * height) - 1.02 * (radius + o.radius) * side for o in items]
        if min(gaps, default=1.0) > 0:
            return Item(*name, size, radius, x, y, (rng.random() - 0.5) * 0.4)
    return None
