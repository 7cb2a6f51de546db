"""Clusters of images by given centroids, and which of them are selected: DataComp's image-based baseline.

In: a file of centroids, float [k, dimension], and perhaps files of selected ones: numbers of centroids, or embeddings
[n, dimension] whose nearest centroids they are; .npy, or torch's .pt, as DataComp publishes them (tensors and arrays
are loaded, never code). Out: `NAME` int32, an image's nearest centroid, and `in_selected_NAME` bool.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalised
from curate.base.wording import one_line
from curate.models.tensor_files import read_torch_file
from curate.read.listing import list_files
from curate.recipe.files import read_npy, read_whole
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column, UserFile, UserPaths
from curate.signals.formulas.embedding_scores import nearest_centroid
from curate.signals.on_embeddings import Method, embedding_signal, unchanged
from curate.signals.signal import Built, Known, Signal, SignalKind

_MAX_BYTES = 8 << 30  # a million embeddings of 2,048 dimensions
_MAX_UNPACKED = 1 << 30  # of a file that is packed, as torch writes none
_ACCEPTED = "accepted: a .npy or .pt file"


class Clusters(OnEmbeddings):
    """The nearest of given centroids, and whether it is a selected one (DataComp's image-based filter), by name.

    Centroids are of unit length; the nearest has the largest dot product. Files are .npy, or .pt of arrays and tensors;
    code in them is never run. Of a .pt file that holds several arrays, `image_features` is taken.
    """

    example: ClassVar[Any] = {"cluster": {"centroids": "centroids.pt", "selected": "imagenet.npy"}}
    gives = (
        Column("scores", "NAME", "int32", "Number of the nearest centroid, from 0."),
        Column("scores", "in_selected_NAME", "bool", "Whether it is a selected cluster; with `selected`."),
    )

    needs_encoder = False
    centroids: UserFile = Field(examples=["centroids.pt"])
    """A .npy or .pt file of centroids [k, dimension], of unit length."""
    selected: UserPaths | None = Field(None, examples=["imagenet.npy"])
    """Files that select clusters: their numbers from 0, or embeddings, which select their nearest ones."""


class LoadedClusters(NamedTuple):
    """Centroids, float32 [k, dimension]; whether each is selected, bool [k], where `selected` is given."""

    centroids: F32
    selected: npt.NDArray[np.bool_] | None

    @property
    def digest(self) -> str:
        parts = [self.centroids, *([] if self.selected is None else [self.selected])]
        return ids.digest([[list(part.shape), hashlib.sha256(part.tobytes()).hexdigest()] for part in parts])

    def find(self, images: F32) -> Sequence[pa.Array]:
        """Return the columns, of embeddings float32 [n, dimension]."""
        nearest = nearest_centroid(images, self.centroids)
        return [pa.array(nearest), *([] if self.selected is None else [pa.array(self.selected[nearest])])]


def load_clusters(name: str, options: Clusters) -> LoadedClusters:
    """Read the files of the clusters `name`. Raises RecipeError where they are not what they are taken for."""
    where = f"measure.clusters.{name}"
    centroids = read_rows(f"{where}.centroids", options.centroids, "k, dimension")
    if options.selected is None:
        return LoadedClusters(centroids, None)
    try:
        files = list_files(options.selected, {})
    except (RecipeError, OSError) as error:
        raise RecipeError(f"{where}.selected: {error}; {_ACCEPTED}") from None
    k, dimension = centroids.shape
    is_selected = np.zeros(k, bool)
    for file in files:
        selected = read_array(f"{where}.selected", file.path)
        if selected.ndim == 2 and selected.dtype.kind == "f" and selected.shape[1] == dimension:
            selected = nearest_centroid(selected.astype(np.float32), centroids)
        elif not (selected.ndim == 1 and selected.dtype.kind in "iu" and ((selected >= 0) & (selected < k)).all()):
            what = f"{where}.selected: {file.path} is {selected.dtype} {list(selected.shape)}"
            raise RecipeError(f"{what}; accepted: numbers of centroids, 0 to {k - 1}, or embeddings [n, {dimension}]")
        is_selected[selected.astype(np.int64)] = True
    return LoadedClusters(centroids, is_selected)


def read_rows(where: str, path: str, shape: str, dimension: int | None = None) -> F32:
    """Return the rows of a .npy or .pt file (float32[n, dimension]), `shape` in words.

    Raises RecipeError, which begins with `where`, where they are of another shape or have no direction in float32.
    """
    array = read_array(where, path)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size or dimension not in (None, array.shape[1]):
        what = f"{path} is {array.dtype} {list(array.shape)}"
        raise RecipeError(f"{where}: {what}; accepted: floating-point numbers [{shape}]")
    with np.errstate(over="ignore"):
        rows = array.astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1)
    if not (np.isfinite(lengths).all() and lengths.any()):
        what = "zeros alone" if np.isfinite(lengths).all() else "rows that are too long for float32"
        raise RecipeError(f"{where}: {path} holds {what}; accepted: embeddings, of any length above 0")
    return rows


def read_array(where: str, path: str) -> npt.NDArray[Any]:
    """Return the array of a .npy or .pt file. Raises RecipeError, which begins with `where`."""
    is_torch = path.lower().endswith((".pt", ".pth"))
    try:
        content = read_whole(path, _MAX_BYTES)
        limit = max(_MAX_UNPACKED, 2 * len(content))
        array: Any = read_torch_file(content, limit) if is_torch else read_npy(content)
    except FileNotFoundError:
        raise RecipeError(f"{where}: {path}: no such file; {_ACCEPTED}") from None
    except (OSError, ValueError, EOFError, ImportError, MemoryError) as error:
        what = ".pt file of an array" if is_torch else ".npy file"
        raise RecipeError(f"{where}: {path} is no {what}: {one_line(error, 200)}") from None
    if isinstance(array, dict):  # as DataComp's embeddings of ImageNet are
        arrays = [value for value in array.values() if isinstance(value, np.ndarray)]
        array = array.get("image_features", arrays[0] if len(arrays) == 1 else None)
    if not isinstance(array, np.ndarray):
        raise RecipeError(f"{where}: {path} holds several arrays; {_ACCEPTED} with one")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RecipeError(f"{where}: {path} holds NaN or infinity")
    return array


def array_digest(array: Any) -> str:
    """Return what names an array."""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def _identify(name: str, options: Clusters, known: Known) -> str:
    clusters, dimension = load_clusters(name, options), known.identities[options.of]["dimension"]
    if clusters.centroids.shape[1] != dimension:
        how = f"accepted: [k, {dimension}], since embeddings of {options.of!r} have {dimension} dimensions"
        raise RecipeError(f"measure.clusters.{name}: {options.centroids} holds {list(clusters.centroids.shape)}; {how}")
    return clusters.digest


def _build(name: str, options: Clusters, built: Built) -> Iterator[Signal]:
    selected = [pa.field(f"in_selected_{name}", pa.bool_())] if options.selected else []
    method = Method(
        columns=(pa.field(name, pa.int32()), *selected),
        settings=options.model_dump(exclude={"centroids", "of"}) | {"selected": options.selected is not None},
        load=lambda: unchanged(name, load_clusters(name, options), built),
        compute=lambda embeddings, clusters: clusters.find(normalised(embeddings.images)),
    )
    yield embedding_signal(name, options, built, method)


KIND = SignalKind("clusters", Clusters, _identify, _build, "named")
