"""Assign images to given centroids, and mark selected clusters: DataComp's image-based baseline.

In: a file of centroids, float [k, dimension], and optionally files that select some: indexes of centroids, or
embeddings [n, dimension] whose nearest centroids are selected. Files are .npy, or torch's .pt like DataComp's (only
tensors and arrays are loaded, never code). Out: `NAME` int32, an image's nearest centroid, and `in_selected_NAME` bool.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base import ids, schema
from curate.base.errors import RecipeError, reraised
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalized
from curate.models.tensor_files import ACCEPTED_ARRAY, describe_array, read_array, read_rows
from curate.read.listing import list_files
from curate.recipe.section import Column, UserFile, UserPaths
from curate.signals.formulas.embedding_scores import nearest_centroid
from curate.signals.on_embeddings import EmbeddingSection, Method, embedding_kind, unchanged
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext


class Clusters(EmbeddingSection):
    """Finds each image's nearest centroid, and whether you selected that cluster (DataComp's image-based filter).

    The nearest centroid is the one with the largest dot product. Files are .npy or .pt files; curate never runs code
    from them. If a .pt file has several arrays, curate uses `image_features`.
    """

    example: ClassVar[Any] = {"cluster": {"centroids": "centroids.pt", "selected": "imagenet.npy"}}
    gives = (
        Column("scores", "NAME", "int32", "Number of the nearest centroid, from 0."),
        Column("scores", "in_selected_NAME", "bool", "Whether this cluster is selected. Only if `selected` is set."),
    )

    files = ("centroids",)
    needs_encoder = False
    centroids: UserFile = Field(examples=["centroids.pt"])
    """File with the centroids: an array [k, dimension] whose rows have length 1."""
    selected: UserPaths | None = Field(None, examples=["imagenet.npy"])
    """Files that select clusters. They have either the clusters' numbers, from 0, or embeddings [n, dimension]. Each
    embedding selects the cluster whose centroid is nearest."""

    def identify(self, name: str, context: IdentifyContext) -> str:
        clusters, dimension = load_clusters(name, self), context.identities[self.of]["dimension"]
        if clusters.centroids.shape[1] != dimension:
            holding = f"{self.centroids} has shape {list(clusters.centroids.shape)}"
            accepted = f"[k, {dimension}], since embeddings of {self.of!r} have {dimension} dimensions"
            raise RecipeError(f"measure.clusters.{name}: {holding}; accepted: {accepted}")
        return clusters.digest

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"selected": self.selected is not None}

    def load(self, name: str, built: BuildContext) -> "LoadedClusters":
        return unchanged(name, load_clusters(name, self), built)

    def compute(self, embeddings: Embeddings, loaded: "LoadedClusters") -> Sequence[pa.Array]:
        nearest = nearest_centroid(normalized(embeddings.images), loaded.centroids)
        return [pa.array(nearest), *([] if loaded.selected is None else [pa.array(loaded.selected[nearest])])]

    def method(self, name: str, built: BuildContext) -> Method:
        columns = schema.named_fields(self.gives, name)
        return replace(super().method(name, built), columns=columns if self.selected else columns[:1])


class LoadedClusters(NamedTuple):
    """Centroids, float32 [k, dimension]; whether each is selected, bool [k], if `selected` is given."""

    centroids: F32
    selected: npt.NDArray[np.bool_] | None

    @property
    def digest(self) -> str:
        parts = [self.centroids, *([] if self.selected is None else [self.selected])]
        return ids.digest([[list(part.shape), hashlib.sha256(part.tobytes()).hexdigest()] for part in parts])


def load_clusters(name: str, options: Clusters) -> LoadedClusters:
    """Read the files of the clusters `name`. Raises RecipeError if their content is invalid."""
    where = f"measure.clusters.{name}"
    centroids = read_rows(f"{where}.centroids", options.centroids, "k, dimension")
    if options.selected is None:
        return LoadedClusters(centroids, None)
    with reraised(RecipeError, f"{where}.selected", RecipeError, OSError, remedy=f"; {ACCEPTED_ARRAY}"):
        files = list_files(options.selected, {})
    k, dimension = centroids.shape
    is_selected = np.zeros(k, bool)
    for file in files:
        selected = read_array(f"{where}.selected", file.path)
        if selected.ndim == 2 and selected.dtype.kind == "f" and selected.shape[1] == dimension:
            selected = nearest_centroid(selected.astype(np.float32), centroids)
        elif not (selected.ndim == 1 and selected.dtype.kind in "iu" and ((selected >= 0) & (selected < k)).all()):
            accepted = f"numbers of centroids, 0 to {k - 1}, or embeddings [n, {dimension}]"
            raise RecipeError(f"{where}.selected: {describe_array(file.path, selected)}; accepted: {accepted}")
        is_selected[selected.astype(np.int64)] = True
    return LoadedClusters(centroids, is_selected)


KIND = embedding_kind("clusters", Clusters)
