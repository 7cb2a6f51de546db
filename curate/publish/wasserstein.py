"""How far a curated set has drifted from the pool: the sliced Wasserstein distance between two sets of embeddings.

In: embeddings float32[n, d] and float32[m, d] of one model, of any two sizes. Out: the estimate of SW₂², the mean over
all directions θ of the squared Wasserstein-2 distance between the two sets' projections, and its standard error.

    Z = mean W²(θ) - γ (mean C(θ) - E C)    C(θ) = (θᵀ Δm)², Δm the difference of means, E C = ‖Δm‖² / d

W² is exact, for sizes that differ too: the integral over u from 0 to 1 of the squared difference of the two quantile
functions, which are steps (at u the ⌈u n⌉-th smallest value, nothing is interpolated), over the n + m - 1 pieces on
which both are constant. γ is the slope of W² on C over the drawn directions, both less their sample means, so that of a
mere shift Z is exact; centring C at E C, as the paper's code does, differs by O(1/L) for L directions. The standard
error is the regression's at C = E C: of the draw of directions, the two sets taken as they are, not as samples.

Trade-offs: time is L sorts of each set. Two samples of one pool have a distance above 0, of the order of 1/n, so that
drift is read against that of a random subset of the same size. Directions are hashes of the seed: the first L of 2 L
are the same as of L, on every machine.

Source: Nguyen and Ho, Sliced Wasserstein Estimation with Control Variates, 2024: its lower-bound control variate.
"""

import math
from typing import NamedTuple

import numpy as np

from curate.base.numeric.arrays import F32, F64, I64
from curate.base.numeric.mix import GOLDEN, mix64

DIRECTIONS = 128
BLOCK = 16  # directions at a time: this many numbers a row are held at once


class Drift(NamedTuple):
    """An estimate of SW₂²."""

    squared: float  # Z; 0 for equal sets; it may fall below 0 by a few standard errors
    standard_error: float

    @property
    def distance(self) -> float:
        """SW₂: the root of `squared`, 0 where that is below 0."""
        return math.sqrt(max(self.squared, 0.0))


def measure_drift(raw: F32, curated: F32, seed: int = 0, directions: int = DIRECTIONS) -> Drift:
    """Return the distance of two sets that are not empty; `seed` is 0 to 2**63 - 1, `directions` are 3 at least."""
    theta = draw_directions(directions, raw.shape[1], seed)
    shift = raw.mean(axis=0, dtype=np.float64) - curated.mean(axis=0, dtype=np.float64)
    control, squares = (theta @ shift) ** 2, _slices(raw, curated, theta)
    # The mean of `squares` at control = E C by linear regression, and its standard error.
    residuals, offset = squares - squares.mean(), control - control.mean()
    scatter, away = float(offset @ offset), float(control.mean()) - float(shift @ shift) / len(shift)
    gamma, leverage = 0.0, 1 / directions
    if scatter > 0:  # else C is the same for all directions (equal means, or one dimension), and tells nothing
        gamma, leverage = float(offset @ residuals) / scatter, 1 / directions + away**2 / scatter
        residuals = residuals - gamma * offset
    variance = float(residuals @ residuals) / (directions - 2)
    return Drift(float(squares.mean()) - gamma * away, math.sqrt(variance * leverage))


def draw_directions(count: int, dimension: int, seed: int) -> F64:
    """Return directions uniform on the sphere (float64[count, dimension]): Box and Muller's normals from splitmix64."""
    pairs = (dimension + 1) // 2
    steps = np.arange(1, 2 * count * pairs + 1, dtype=np.uint64) * GOLDEN
    bits = mix64(mix64(np.array([seed], np.uint64) + GOLDEN) + steps) >> np.uint64(11)
    first, second = bits.reshape(2, -1, order="F").astype(np.float64) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(first + 2.0**-53)), 2 * np.pi * second
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(count, 2 * pairs)[:, :dimension]
    directions: F64 = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return directions


def _slices(raw: F32, curated: F32, theta: F64) -> F64:
    """Return W² of the projections on each direction: float64[directions]."""
    weights, left, right = _pieces(len(raw), len(curated))
    squares = np.empty(len(theta))
    for start in range(0, len(theta), BLOCK):
        block = theta[start : start + BLOCK].T.astype(np.float32)
        for i, (x, y) in enumerate(zip((raw @ block).T, (curated @ block).T, strict=True), start):
            difference = np.sort(x)[left] - np.sort(y)[right].astype(np.float64)
            squares[i] = weights @ difference**2
    return squares


def _pieces(n: int, m: int) -> tuple[F64, I64, I64]:
    """Return the pieces of (0, 1] on which the quantile functions of n and m values are constant: lengths and ranks."""
    # In units of 1 / (n m), so that the borders are exact.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return (ends - starts) / (n * m), starts // m, starts // n
