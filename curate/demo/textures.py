"""The textures of the demo's backgrounds, as formulas over float32 planes, with edges about two pixels soft."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Plane = npt.NDArray[Any]  # float32


@dataclass(frozen=True)
class Ground:
    """What is covered: columns [1, width] and rows [height, 1] in pixels, and the texture's pitch in pixels."""

    x: Plane
    y: Plane
    pitch: float
    rng: np.random.Generator

    def random(self) -> float:
        """Draw a uniform number below 1."""
        return self.rng.random()

    def along(self, angle: float) -> Plane:
        """Return how far each pixel lies in a direction."""
        return self.x * math.cos(angle) + self.y * math.sin(angle)

    def long(self, pitches: float, more: float) -> float:
        """Draw a length of so many pitches and up to so many more, in pixels."""
        return self.pitch * (pitches + more * self.random())

    def bands(self, u: Plane, width: float = 1.0) -> Plane:
        """Return even stripes along `u`."""
        pitch = self.pitch * width
        return 0.5 + np.sin(u * (math.tau / pitch)) * (pitch / 6)

    def cells(self) -> Iterator[Plane]:
        """Yield how far each column, and each row, lies from the middle of its cell, in cells."""
        return ((u / self.pitch + self.random()) % 1 - 0.5 for u in (self.x, self.y))

    def smooth(self, cells: float, stretch: float = 1) -> Plane:
        """Return smooth noise: uniform values on `cells` × `stretch` by `cells` pixels, enlarged bicubically."""
        height, width = len(self.y), self.x.shape[1]
        lattice = self.rng.random((max(2, int(height / cells)), max(2, int(width / cells / stretch))), np.float32)
        return np.asarray(Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC))


def _gradient(g: Ground) -> Plane:
    u = g.along(g.random() * math.tau)
    field: Plane = (u - u.min()) / (u.max() - u.min())
    return field


def _checkerboard(g: Ground) -> Plane:
    across, down = (np.sin((u + g.pitch * g.random()) * (math.pi / g.pitch)) for u in (g.x, g.y))
    return 0.5 + across * down * g.pitch


def _ripples(g: Ground) -> Plane:
    away = np.hypot(*(u - g.random() * u.size for u in (g.x, g.y)))
    return 0.5 + 0.5 * np.sin(away * (math.tau / g.pitch))


def _clouds(g: Ground) -> Plane:
    coarse, middle, fine = (g.smooth(min(g.x.size, g.y.size) / cells) for cells in (3, 7, 15))
    field: Plane = (coarse * 0.55 + middle * 0.3 + fine * 0.15 - 0.5) * 2 + 0.5
    return field


def _bricks(g: Ground) -> Plane:
    row = np.floor(g.y / g.pitch)
    along = g.x / (2 * g.pitch) + 0.5 * (row % 2)
    tones = g.rng.random((int(row.max()) + 1, int(along.max()) + 1), np.float32) * 0.35
    upright, level = np.abs(along % 1 - 0.5) * 2 - 0.94, np.abs((g.y / g.pitch) % 1 - 0.5) - 0.44
    field: Plane = np.maximum(tones[row.astype(np.intp), along.astype(np.intp)], np.maximum(upright, level) * g.pitch)
    return field


def _wood(g: Ground) -> Plane:
    rings: Plane = (g.y / g.pitch + 1.2 * g.smooth(g.pitch * 2, stretch=4)) * math.tau
    field: Plane = 0.5 + 0.3 * np.sin(rings) + 0.2 * np.sin(rings * 3.7)
    return field


# Up to 0 is the first colour, from 1 on the second.
_TEXTURES: dict[str, Callable[[Ground], Plane]] = {
    "stripes": lambda g: g.bands(g.along(int(g.random() * 4) * math.pi / 4)),
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


def draw_texture(name: str, x: Plane, y: Plane, rng: np.random.Generator) -> Image.Image:
    """Draw a texture over columns `x` [1, width] and rows `y` [height, 1], in grey: 0 is the first colour."""
    pitch = min(x.size, y.size) * (0.09 + 0.08 * rng.random())
    field = np.broadcast_to(np.clip(_TEXTURES[name](Ground(x, y, pitch, rng)), 0, 1), (y.size, x.size))
    return Image.fromarray((field * 255).astype(np.uint8))
