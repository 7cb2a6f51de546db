"""Clusters of the pool's images, made here: spherical k-means, trained on rows chosen by hash, assigned to all.

Rounded rows are summed, so that sums are exact in any order; of equally near centroids the first counts. Source:
Dhillon and Modha, "Concept decompositions for large sparse text data using clustering" (2001); at most 256 rows a
centroid, as FAISS trains.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import F32, F64, I64
from curate.base.numeric.spherical import add_points, cosine_distances, mean_directions, rounded
from curate.base.numeric.vectors import normalised
from curate.recipe.relate import OnKept
from curate.recipe.section import Column
from curate.relate.references import Chosen, join, smallest_rows
from curate.relate.relation import Asking, EmbeddedRows, Model, Reading, Relation
from curate.run.units import Answer, Combine, Fold
from curate.signals.formulas.embedding_scores import nearest_centroid

_TRAINED = 256  # rows a centroid


class ClustersSection(OnKept):
    """Clusters of images, made here by spherical k-means on their embeddings (SemDeDup, density-based pruning).

    Centroids are trained on at most 256 rows each, chosen by a hash of seed and uid; then all rows are assigned. They
    are the run's `models/NAME.npy`, which `measure.clusters` of another recipe takes as `centroids`.
    """

    example: ClassVar[Any] = {"topic": {"k": 1000}}
    gives = (
        Column("related", "NAME", "int32", "Number of the nearest centroid, from 0; null without an embedding."),
        Column("related", "NAME_distance", "float32", "1 - cosine to that centroid."),
    )

    k: int = Field(examples=[1000], ge=1, le=100_000, strict=True)
    """Number of clusters; as many as distinct rows where these are fewer."""
    rounds: int = Field(20, examples=[40], ge=1, le=100, strict=True)
    """Rounds of k-means at most: it ends once no centroid moves."""


class Sums(NamedTuple):
    """Sums of the rounded rows of some clusters."""

    clusters: I64
    values: npt.NDArray[Any]  # [clusters, dimension], of the smallest type of integers that holds them


class AddSums(Combine[Sums, Any]):
    """Add up the sums of units, which have few of many clusters each."""

    def create(self) -> Any:
        return {}

    def add(self, accumulator: Any, part: Sums) -> Any:
        for cluster, value in zip(part.clusters.tolist(), part.values, strict=True):
            accumulator[cluster] = accumulator[cluster] + value if cluster in accumulator else value.astype(np.float64)
        return accumulator

    def merge(self, accumulators: Any) -> Any:
        whole: Any = {}
        for accumulator in accumulators:
            for cluster, value in accumulator.items():
                whole[cluster] = whole[cluster] + value if cluster in whole else value
        return whole


class ClustersRelation(Relation):
    """The nearest centroid of each image."""

    key, section = "clusters", ClustersSection

    def columns(self, name: str, section: ClustersSection) -> tuple[pa.Field, ...]:
        return pa.field(name, pa.int32()), pa.field(f"{name}_distance", pa.float32())

    def fit(self, asking: Asking, section: ClustersSection) -> Answer[Model]:
        """Return the centroids, of unit length (float32[k, dimension])."""
        seed, count = asking.reading.seed_of("rows"), Fold[int]()
        total = asking.ask("count", lambda rows: [len(rows.rows)], combine=count)
        first = smallest_rows(asking, "first centroids", seed, section.k)
        centroids = asking.get("begin", _begin, first)
        for n in range(section.rounds):
            share = asking.reading.share
            sums = asking.ask(f"round {n}", _sum_rows, total, centroids, seed, share, combine=AddSums())
            centroids = asking.get(f"move {n}", _move, centroids, sums)
        return asking.get("save", _save, centroids)

    def apply(
        self, model: Mapping[str, npt.NDArray[Any]], section: ClustersSection, rows: EmbeddedRows
    ) -> Sequence[pa.Array]:
        """Return the nearest centroid, and the distance to it."""
        images, centroids = normalised(rows.images), model["centroids"]
        nearest = nearest_centroid(images, centroids)
        distances = cosine_distances(rows.images.astype(np.float32), centroids, nearest)
        return [pa.array(nearest), pa.array(distances.astype(np.float32))]


class Training(NamedTuple):
    """Centroids between rounds: rounded rows (float32[k, dimension]), and whether none has moved."""

    model: Model
    is_done: bool = False


def _begin(reading: Reading, parts: Sequence[Chosen]) -> Training | None:
    """Return the first rows with distinct embeddings as centroids."""
    if not parts:
        return None
    points = rounded(join(parts)[1][:, 0])
    _, first = np.unique(points, axis=0, return_index=True)
    return Training(reading.save(centroids=points[np.sort(first)]))


def _sum_rows(rows: EmbeddedRows, total: int, training: Training | None, seed: int, share: float) -> Iterator[Sums]:
    """Yield the sums of a unit's rows among those that are trained on; of none where nothing moves any more."""
    if training is None or training.is_done:
        yield Sums(np.zeros(0, np.int64), np.zeros((0, 0)))
        return
    centroids = training.model.load()["centroids"]
    points = rounded(rows.images[rows.hashes(seed) < training_cut(total, len(centroids), share)])
    clusters, places = np.unique(nearest_centroid(points, centroids), return_inverse=True)
    sums = np.zeros((len(clusters), points.shape[1]))
    add_points(points, places, sums)
    yield Sums(clusters.astype(np.int64), sums.astype(np.min_scalar_type(-1 - int(np.abs(sums).max(initial=0)))))


def training_cut(total: int, clusters: int, share: float = 1.0) -> np.uint64:
    """Return below which hash rows are trained on: 256 a cluster, but for four standard deviations; or all.

    Of a share of the pool, that share of them: so the work for each row is that of the whole.
    """
    most = max(clusters, int(_TRAINED * clusters * share))
    wanted = most if total <= most else max(clusters, most - 4 * int(most**0.5))
    return np.uint64(min((1 << 64) - 1, (wanted << 64) // max(total, 1)))


def _move(reading: Reading, training: Training | None, sums: Mapping[int, F64]) -> Training | None:
    if training is None or training.is_done:
        return training
    before: F32 = training.model.load()["centroids"]
    whole = np.zeros(before.shape)
    for cluster, value in (sums or {}).items():
        whole[cluster] = value
    after = mean_directions(before, whole)
    return Training(reading.save(centroids=after), bool((after == before).all()))


def _save(reading: Reading, training: Training | None) -> Model | None:
    if training is None:
        return None
    return reading.keep(centroids=normalised(training.model.load()["centroids"]))
