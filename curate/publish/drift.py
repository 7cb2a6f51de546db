"""Computes the table `drift`: how far the kept set is from the pool, for each source and model with embeddings.

A hash of the uid chooses a few rows per unit, so the choice does not depend on sharding. The rows are merged by source.
Two random samples of one set never have distance 0. So each distance is compared with the distance between the pool and
a random part of it.

The distance is the sliced Wasserstein distance. It is the mean, over all directions θ, of the squared Wasserstein-2
distance between the projections of the two sets, and is estimated as

    Z = mean W²(θ) - γ (mean C(θ) - E C)    C(θ) = (θᵀ Δm)², Δm the difference of means, E C = ‖Δm‖² / d

W² is exact, even for sets of different sizes, because both quantile functions are constant on n + m - 1 pieces. γ is
the slope of a regression of W² on C over the directions that were drawn. The standard error is the error of this
regression at C = E C. It covers only the draw of directions. Directions are hashes of the seed. With 2 L directions,
the first L are the same as with L, on every machine.

Source: Nguyen and Ho, Sliced Wasserstein Estimation with Control Variates, 2024. This is their lower-bound control
variate. Their code centers C in another way, which makes a difference of O(1/L).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curate.base import ids
from curate.base.numeric.arrays import F32, F64, whole
from curate.base.numeric.elementary import GOLDEN, mix64
from curate.base.numeric.vectors import embedding_matrix
from curate.recipe.measure import Measure
from curate.store.facts import DriftFacts
from curate.store.tables import UnitTables

SAMPLED = 2048  # rows per sample: of the pool, of kept rows, and of the pool's part to compare with
DIRECTIONS = 128
BLOCK = 16  # directions computed together, which is also how many numbers per row are in memory


class Group(NamedTuple):
    """What a sample is from: source, model, image or text, and whole pool or kept rows."""

    source: str
    model: str
    side: str
    kept: bool


class DriftSample(NamedTuple):
    """The rows with the smallest hashes: hashes uint64 [n], ascending, and embeddings float16 [n, dimension]."""

    hashes: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.float16]


def sample_unit(measure: Measure, source: str, tables: UnitTables) -> Iterator[tuple[Group, DriftSample]]:
    """Yield what a unit adds to each sample of its source."""
    kept = tables.read("decisions", ["kept"])["kept"].to_numpy()
    for model in measure.kept:
        table = tables.read("embeddings", ["uid", f"{model.prefix}image", f"{model.prefix}text"])
        readable = table["uid"].is_valid().to_numpy()
        high, low = ids.uid_halves(whole(table["uid"]))
        hashes = mix64(high ^ mix64(low))
        for side, column in zip(("image", "text"), table.columns[1:], strict=True):
            rows = embedding_matrix(column)
            usable = readable & rows.any(axis=1)  # rows of zeros have no embedding
            for is_kept, mask in ((False, usable), (True, usable & kept)):
                yield Group(source, model.name, side, is_kept), merge([DriftSample(hashes[mask], rows[mask])])


def merge(samples: Iterable[DriftSample]) -> DriftSample:
    """Merge samples into one: the first `SAMPLED` rows, and the same number again for comparison."""
    hashes, rows = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    first = np.argsort(hashes, kind="stable")[: 2 * SAMPLED]
    return DriftSample(hashes[first], rows[first])


def measure_drifts(samples: dict[Group, DriftSample]) -> list[DriftFacts]:
    """Return the drift of each source, model and side, without sources that have no kept rows."""
    drifts = []
    for group in sorted(group for group in samples if not group.kept):
        pool, kept = samples[group].rows, samples[group._replace(kept=True)].rows[:SAMPLED]
        raw, part = pool[:SAMPLED], pool[-len(kept) :]
        if not len(kept) or not len(raw):
            continue
        drift = measure_drift(raw.astype(np.float32), kept.astype(np.float32))
        error = drift.standard_error / (2 * drift.distance) if drift.distance else None
        unchanged = measure_drift(raw.astype(np.float32), part.astype(np.float32)).distance
        names: dict[str, Any] = {"source": group.source, "model": group.model, "side": group.side}
        sizes: dict[str, Any] = {"pool_rows": len(raw), "kept_rows": len(kept)}
        distances: dict[str, Any] = {"distance": drift.distance, "standard_error": error, "unchanged": unchanged}
        drifts.append(DriftFacts(**names, **sizes, **distances))
    return drifts


class Drift(NamedTuple):
    """An estimate of SW₂², the squared distance."""

    squared: float  # Z; 0 for equal sets; it may be below 0 by a few standard errors
    standard_error: float

    @property
    def distance(self) -> float:
        """SW₂: the root of `squared`, or 0 if that is negative."""
        return math.sqrt(max(self.squared, 0.0))


def measure_drift(raw: F32, curated: F32, seed: int = 0, directions: int = DIRECTIONS) -> Drift:
    """Return the distance between two sets that are not empty, float32[n, d] and float32[m, d].

    `seed` is from 0 to 2**63 - 1; `directions` is at least 3.
    """
    theta = draw_directions(directions, raw.shape[1], seed)
    shift = raw.mean(axis=0, dtype=np.float64) - curated.mean(axis=0, dtype=np.float64)
    control, squares = (theta @ shift) ** 2, _slices(raw, curated, theta)
    # The mean of `squares` at control = E C, by linear regression, and its standard error.
    residuals, offset = squares - squares.mean(), control - control.mean()
    scatter, away = float(offset @ offset), float(control.mean()) - float(shift @ shift) / len(shift)
    gamma, leverage = 0.0, 1 / directions
    if scatter > 0:  # otherwise, C is equal for all directions (equal means, or one dimension), and does not help
        gamma, leverage = float(offset @ residuals) / scatter, 1 / directions + away**2 / scatter
        residuals = residuals - gamma * offset
    variance = float(residuals @ residuals) / (directions - 2)
    return Drift(float(squares.mean()) - gamma * away, math.sqrt(variance * leverage))


def draw_directions(count: int, dimension: int, seed: int) -> F64:
    """Return directions that are uniform on the sphere (float64[count, dimension]), with Box and Muller's normals.

    The random bits come from splitmix64.
    """
    pairs = (dimension + 1) // 2
    steps = np.arange(1, 2 * count * pairs + 1, dtype=np.uint64) * GOLDEN
    bits = mix64(mix64(np.array([seed], np.uint64) + GOLDEN) + steps) >> np.uint64(11)
    first, second = bits.reshape(2, -1, order="F").astype(np.float64) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(first + 2.0**-53)), 2 * np.pi * second
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(count, 2 * pairs)[:, :dimension]
    directions: F64 = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return directions


def _slices(raw: F32, curated: F32, theta: F64) -> F64:
    """Return W² between the projections on each direction: float64[directions]."""
    # The quantile functions of n and m values are constant on pieces of (0, 1]; in units of 1 / (n m), these are exact.
    n, m = len(raw), len(curated)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    weights, remaining, right = (ends - starts) / (n * m), starts // m, starts // n
    squares = np.empty(len(theta))
    for start in range(0, len(theta), BLOCK):
        block = theta[start : start + BLOCK].T.astype(np.float32)
        for i, (x, y) in enumerate(zip((raw @ block).T, (curated @ block).T, strict=True), start):
            difference = np.sort(x)[remaining] - np.sort(y)[right].astype(np.float64)
            squares[i] = weights @ difference**2
    return squares
