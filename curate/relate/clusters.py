"""Clusters the pool's images by spherical k-means, trained on rows chosen by hash, and assigns all rows.

Training rows are first gathered in files, so rounds read no units. Sums of rounded rows are exact in any order. Source:
Dhillon and Modha, "Concept decompositions for large sparse text data using clustering" (2001).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import F16, F32, U64, distinct, split_by
from curate.base.numeric.spherical import add_points, cosine_distances, mean_directions, rounded
from curate.base.numeric.vectors import normalized
from curate.recipe.relate import OnKept
from curate.recipe.section import Column
from curate.relate.relation import Asking, EmbeddedRows, Model, Reading, Relation
from curate.run.units import Answer, Fold
from curate.signals.formulas.embedding_scores import nearest_centroid

_TRAINED = 256  # rows per centroid
_TOGETHER = 1 << 14  # training rows per file: 25 MB at 768 dimensions
Chosen = tuple[U64, npt.NDArray[np.float16]]  # hashes, ascending, and their embeddings [n, sides, dimension]


class ClustersSection(OnKept):
    """Clusters the images, by spherical k-means on their embeddings (SemDeDup, density-based pruning).

    curate trains the centroids on a sample of at most 256 rows per cluster. It chooses this sample by a hash of seed
    and uid. The run stores the centroids in `models/NAME.npy`. Another recipe can use this file as `centroids` in
    `measure.clusters`.
    """

    example: ClassVar[Any] = {"topic": {"k": 1000}}
    gives = (
        Column("related", "NAME", "int32", "Number of the nearest centroid, from 0; null if there is no embedding."),
        Column("related", "NAME_distance", "float32", "Distance to this centroid: 1 − cosine of image and centroid."),
    )

    k: int = Field(examples=[1000], ge=1, le=100_000, strict=True)
    """Number of clusters. If the pool has fewer distinct rows, each distinct row gets a cluster."""
    rounds: int = Field(20, examples=[40], ge=1, le=100, strict=True)
    """Maximum number of k-means rounds. Training stops earlier if no centroid moves."""


Sums = dict[int, npt.NDArray[Any]]
"""Sums of the rounded rows of some clusters, by cluster, of the smallest type of integers that holds them."""


def add_sums(one: Sums, other: Sums) -> Sums:
    """Add the sparse sums of two parts; exact, because they are integers."""
    total = dict(one)
    for cluster, value in other.items():
        total[cluster] = np.add(total[cluster], value, dtype=np.float64) if cluster in total else value
    return total


class ClustersRelation(Relation):
    """Assigns each image to its nearest centroid."""

    key, section = "clusters", ClustersSection

    def begin(self, asking: Asking, section: ClustersSection) -> tuple[Answer[int], Answer[U64]]:
        total = asking.ask("count", lambda rows: [len(rows.rows)], combine=Fold[int]())
        return total, smallest_hashes(asking, "first centroids", asking.reading.seed_of("rows"), section.k)

    def fit(self, asking: Asking, section: ClustersSection) -> Answer[Model]:
        seed, share, (total, hashes) = asking.reading.seed_of("rows"), asking.reading.share, asking.begun
        first = rows_of(asking, "first centroids", seed, hashes)
        trained = asking.gather("rows", _find_trained, total, section.k, seed, share)
        centroids = asking.get("begin", _begin, first)
        for n in range(section.rounds):
            sums = asking.each(f"round {n}", trained, _sum_rows, total, centroids, share, combine=Fold(add_sums))
            centroids = asking.get(f"move {n}", _move, centroids, sums)
        return asking.get("save", _save, centroids)

    def apply(
        self, model: Mapping[str, npt.NDArray[Any]], section: ClustersSection, rows: EmbeddedRows
    ) -> Sequence[pa.Array]:
        images, centroids = normalized(rows.images), model["centroids"]
        nearest = nearest_centroid(images, centroids)
        distances = cosine_distances(rows.images.astype(np.float32), centroids, nearest)
        return [pa.array(nearest), pa.array(distances.astype(np.float32))]


class Training(NamedTuple):
    """Centroids between rounds: rounded rows (float32[k, dimension]), and whether none has moved."""

    model: Model
    is_done: bool = False


def _begin(reading: Reading, parts: Sequence[Chosen]) -> Training | None:
    if not parts:
        return None
    points = rounded(join(parts)[1][:, 0])
    _, first = np.unique(points, axis=0, return_index=True)
    return Training(reading.save(centroids=points[np.sort(first)]))


def _find_trained(
    rows: EmbeddedRows, total: int, clusters: int, seed: int, share: float
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield a unit's candidate training rows, by the number of the file in which they are gathered."""
    most, hashes = _most_rows(clusters, share), rows.hashes(seed)
    cut, files = _cut(total, most), -(-min(total, most) // _TOGETHER)
    gathered = count_alike(hashes[hashes < cut], rows.images[hashes < cut])
    high = np.uint64(32)
    numbers = (gathered["hash"] >> high) * np.uint64(files) // ((cut >> high) + np.uint64(1))
    parts = split_by(gathered, numbers.astype(np.uint16), files)
    yield from ((number, part) for number, part in enumerate(parts) if len(part))


def count_alike(hashes: U64, images: F16) -> npt.NDArray[Any]:
    """Return the rows that differ in hash or bytes, and how often each occurs.

    A uid may repeat in a pool any number of times.
    """
    rows: Any = np.empty(len(hashes), [("hash", "<u8"), ("image", "<f2", images.shape[1:])])
    rows["hash"], rows["image"] = hashes, images
    unlike, times = np.unique(rows.view(f"V{rows.itemsize}"), return_counts=True)
    counted = np.empty(len(unlike), [*rows.dtype.descr, ("times", "<i8")])
    counted["hash"], counted["image"] = unlike.view(rows.dtype)["hash"], unlike.view(rows.dtype)["image"]
    counted["times"] = times
    return counted


def _sum_rows(rows: npt.NDArray[Any] | None, total: int, training: Training | None, share: float) -> Sums:
    if rows is None or training is None or training.is_done:
        return {}
    centroids = training.model.load()["centroids"]
    rows = rows[rows["hash"] < training_cut(total, len(centroids), share)]
    points = rounded(rows["image"])
    clusters, numbers = np.unique(nearest_centroid(points, centroids), return_inverse=True)
    sums = np.zeros((len(clusters), points.shape[1]))
    add_points(points * rows["times"][:, None], numbers, sums)
    smallest = np.min_scalar_type(-1 - int(np.abs(sums).max(initial=0)))
    return dict(zip(clusters.tolist(), sums.astype(smallest), strict=True))


def training_cut(total: int, clusters: int, share: float = 1.0) -> np.uint64:
    """Return the hash limit for training rows: 256 per cluster of a whole pool, plus four standard deviations."""
    most = _most_rows(clusters, share)
    return _cut(total, most if total <= most else max(clusters, most - 4 * int(most**0.5)))


def _most_rows(clusters: int, share: float) -> int:
    return max(clusters, int(_TRAINED * clusters * share))


def _cut(total: int, wanted: int) -> np.uint64:
    return np.uint64(min((1 << 64) - 1, (wanted << 64) // max(total, 1)))


def _move(reading: Reading, training: Training | None, sums: Sums | None) -> Training | None:
    if training is None or training.is_done:
        return training
    before: F32 = training.model.load()["centroids"]
    whole = np.zeros(before.shape)
    for cluster, value in (sums or {}).items():
        whole[cluster] = value
    after = mean_directions(before, whole)
    return Training(reading.save(centroids=after), bool((after == before).all()))


def _save(reading: Reading, training: Training | None) -> Model | None:
    return None if training is None else reading.keep(centroids=normalized(training.model.load()["centroids"]))


def smallest_hashes(asking: Asking, name: str, seed: int, n: int) -> Answer[U64]:
    """Ask for the n smallest hashes of rows (uint64[n]), or for all if there are fewer."""

    def hashes(rows: EmbeddedRows) -> Iterator[U64]:
        yield distinct(rows.hashes(seed))[:n]

    smallest = Fold[U64](lambda a, b: distinct(np.concatenate([a, b]))[:n])
    return asking.ask(f"{name}, hashes", hashes, combine=smallest)


def rows_of(asking: Asking, name: str, seed: int, hashes: Answer[U64]) -> Answer[list[Chosen]]:
    """Ask for the rows with these hashes, which `join` combines."""

    def choose(rows: EmbeddedRows, hashes: U64) -> Iterator[Chosen]:
        of_rows = rows.hashes(seed)
        chosen = np.flatnonzero(np.isin(of_rows, hashes))
        if len(chosen):
            yield join([(of_rows[chosen], np.stack([side[chosen] for side in rows.sides], axis=1))])

    return asking.ask(name, choose, hashes)


def join(parts: Sequence[Chosen]) -> Chosen:
    """Return the rows of parts, ascending by hash; of rows with the same uid, the one with the smallest bytes."""
    unlike = count_alike(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
    hashes, first = np.unique(unlike["hash"], return_index=True)
    return hashes, unlike["image"][first]
