"""Clusters of images by given centroids, and which of them win: DataComp's image-based baseline.

In: a .npy file of centroids, float [k, dimension], and perhaps one of winners: numbers of centroids, or embeddings
[n, dimension] whose nearest centroids they are. Out: `NAME` int32, an image's nearest centroid, and `NAME_wins` bool.
"""

import hashlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import ids
from curate.errors import RecipeError
from curate.numeric.embedding_scores import nearest_centroid
from curate.recipe.files import read_whole
from curate.recipe.measure import Clusters as Options
from curate.signals.signal import F32

_MAX_BYTES = 8 << 30  # a million embeddings of 2,048 dimensions


class Clusters(NamedTuple):
    """Centroids, float32 [k, dimension]; whether each wins, bool [k], where that is asked for."""

    centroids: F32
    wins: npt.NDArray[np.bool_] | None

    @property
    def digest(self) -> str:
        """What names them."""
        parts = [self.centroids, *([] if self.wins is None else [self.wins])]
        return ids.digest([[list(part.shape), hashlib.sha256(part.tobytes()).hexdigest()] for part in parts])

    def find(self, images: F32) -> Sequence[pa.Array]:
        """The columns, of embeddings float32 [n, dimension]."""
        nearest = nearest_centroid(images, self.centroids)
        return [pa.array(nearest), *([] if self.wins is None else [pa.array(self.wins[nearest])])]


def load_clusters(name: str, options: Options) -> Clusters:
    """Reads the files of the clusters `name`. Raises RecipeError where they are not what they are taken for."""
    where = f"measure.clusters.{name}"
    centroids = _read_array(f"{where}.centroids", options.centroids)
    if centroids.ndim != 2 or centroids.dtype.kind != "f" or not centroids.size:
        raise RecipeError(
            f"{where}.centroids: {options.centroids} is {centroids.dtype} {list(centroids.shape)}; accepted: floating-point "
            "numbers [k, dimension]"
        )
    centroids = centroids.astype(np.float32)
    if options.winners is None:
        return Clusters(centroids, None)
    winners = _read_array(f"{where}.winners", options.winners)
    k, dimension = centroids.shape
    if winners.ndim == 2 and winners.dtype.kind == "f" and winners.shape[1] == dimension:
        winners = nearest_centroid(winners.astype(np.float32), centroids)
    elif not (winners.ndim == 1 and winners.dtype.kind in "iu" and ((winners >= 0) & (winners < k)).all()):
        raise RecipeError(
            f"{where}.winners: {options.winners} is {winners.dtype} {list(winners.shape)}; accepted: numbers of centroids, "
            f"0 to {k - 1}, or embeddings [n, {dimension}]"
        )
    wins = np.zeros(k, bool)
    wins[winners.astype(np.int64)] = True
    return Clusters(centroids, wins)


def _read_array(where: str, path: str) -> npt.NDArray[Any]:
    """An array of a .npy file. Raises RecipeError."""
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(read_whole(path, _MAX_BYTES)), allow_pickle=False)
    except FileNotFoundError:
        raise RecipeError(f"{where}: {path}: no such file; accepted: a .npy file") from None
    except (OSError, ValueError, EOFError, ImportError, MemoryError) as error:
        raise RecipeError(f"{where}: {path} is no .npy file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(array, np.ndarray):
        raise RecipeError(f"{where}: {path} holds several arrays; accepted: a .npy file with one")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RecipeError(f"{where}: {path} holds NaN or infinity")
    return array
