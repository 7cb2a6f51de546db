"""The variance alignment score against the pool itself: fᵀΣf, where Σ is the mean of f·fᵀ over the pool's images.

Source: Wang et al., "Variance Alignment Score" (arXiv 2402.02055), which also uses the covariance of a target set; that
is `measure.vas`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base.numeric.arrays import F64
from curate.base.numeric.spherical import rounded, scale
from curate.recipe.relate import OnKept
from curate.recipe.section import Column
from curate.relate.relation import Asking, EmbeddedRows, Model, Reading, Relation
from curate.run.units import Answer, Fold
from curate.signals.formulas.embedding_scores import alignment


class PoolVasSection(OnKept):
    """Scores how well an image matches the main directions of the pool's embeddings (VAS, arXiv 2402.02055).

    Σ is the mean of f·fᵀ over the pool, where f is the embedding of an image. Common kinds of images have large scores.
    """

    example: ClassVar[Any] = {"pool_vas": {}}
    gives = (Column("related", "NAME", "float32", "fᵀΣf, where f is the image's embedding; null if it has none."),)


# Number of rounded rows, and the sum of their outer products (float64[d, d], integers)
Moments = tuple[int, F64]


def add_moments(one: Moments, other: Moments) -> Moments:
    """Add the moments of two parts."""
    return one[0] + other[0], one[1] + other[1]


class PoolVas(Relation):
    """Computes VAS against the pool itself."""

    key, section = "vas", PoolVasSection

    def fit(self, asking: Asking, section: PoolVasSection) -> Answer[Model]:
        moments = asking.ask("moments", _moments, combine=Fold(add_moments, large=True))
        return asking.get("save", _save, moments)

    def apply(
        self, model: Mapping[str, npt.NDArray[Any]], section: PoolVasSection, rows: EmbeddedRows
    ) -> Sequence[pa.Array]:
        return [pa.array(alignment(rows.images, model["covariance"]))]


def _moments(rows: EmbeddedRows) -> Iterator[Moments]:
    points = rounded(rows.images).astype(np.float64)
    yield len(points), points.T @ points  # below 2⁵³, so exact, for 2²⁹ rows


def _save(reading: Reading, moments: Moments | None) -> Model | None:
    if moments is None or not moments[0]:
        return None
    rows, products = moments
    length = scale(len(products))
    return reading.save(covariance=products / (rows * length * length))
