"""What the signals on embeddings share: heads, contexts, classes, axes, clusters and fooling.

Each gets the embeddings of a unit and gives its columns. What it needs for that (a head, encoded prompts or exemplars)
is loaded once per process, under a key that names its content.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import F32
from curate.base.process import process_cache
from curate.models.encoder import Encoder
from curate.pool.exemplars import picture_files, read_pictures
from curate.read.image import measure_image
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import UserPaths
from curate.signals.formulas.embedding_scores import Tags
from curate.signals.signal import Built, Embeddings, EmbeddingSignal, ModelSignal


@dataclass(frozen=True)
class Method:
    """How a signal's columns come of embeddings."""

    columns: tuple[pa.Field, ...]  # what it adds to `scores`
    settings: dict[str, Any]  # what the recipe says of it, as plain data, but the paths of its files
    load: Callable[[], Any]  # loads what all units share
    # From embeddings, and what was loaded, to the columns' values; null where a row lacks the `side`.
    compute: Callable[[Embeddings, Any], Sequence[pa.Array]]
    side: Literal["image", "text"] = "image"  # which of the embeddings it needs


def embedding_signal(name: str, options: OnEmbeddings, built: Built, method: Method) -> EmbeddingSignal:
    """Return a signal on embeddings."""
    of = built.signals[options.of]
    key = ids.digest([of.key, type(options).__name__, 1, method.settings, built.identities.get(name)])

    def load() -> Any:
        return process_cache(key, method.load)

    def compute(embeddings: Embeddings) -> Sequence[pa.Array]:
        has_embedding = pa.array(np.asarray(embeddings.side(method.side).any(axis=1)))
        columns = method.compute(embeddings, load())
        return [pc.if_else(has_embedding, column, pa.scalar(None, column.type)) for column in columns]

    return EmbeddingSignal(name, method.columns, key, compute=compute, of=options.of, load=load)


def encoder_of(options: OnEmbeddings, built: Built) -> Encoder:
    """Return the model that prompts and exemplars are encoded with."""
    model = built.signals[options.of]
    assert isinstance(model, ModelSignal), "the recipe was checked"
    return model.encoder(False)


def check_unchanged(name: str, now: Any, identity: Any) -> None:
    """Raise RunError where a signal's files are not those that it was identified by."""
    if now != identity:
        raise RunError(f"measure: a file of {name!r} changed during the run; run again")


def unchanged(name: str, loaded: Any, built: Built) -> Any:
    """Return what was loaded, which has a `digest`. Raises RunError unless it is what the signal was identified by."""
    check_unchanged(name, loaded.digest, built.identities[name])
    return loaded


def tag_columns(name: str) -> tuple[pa.Field, ...]:
    """Return the columns of a signal that gives each image one of several tags."""
    return pa.field(name, pa.string()), pa.field(f"{name}_probability", pa.float32())


def tag_values(tags: Tags, names: Sequence[str]) -> Sequence[pa.Array]:
    """Return the values of these columns: the best tag's name and its probability."""
    return [pa.array(names, pa.string()).take(tags.best), pa.array(tags.probability)]


def exemplar_digests(where: str, paths: UserPaths) -> list[str]:
    """Return the sha256 of each exemplar, in order. Raises RecipeError, which begins with `where`."""
    return [hashlib.sha256(data).hexdigest() for _, data in read_pictures(picture_files(where, paths))]


def encode_exemplars(where: str, encoder: Encoder, paths: UserPaths) -> tuple[F32, list[str]]:
    """Return embeddings of images (files, or tars of them), float32 [n, dimension], and their sha256, in order.

    Raises RecipeError, which begins with `where`, where one cannot be read as an image, or there is none.
    """
    views, digests = [], []
    for name, data in read_pictures(picture_files(where, paths)):
        fact = measure_image(data, ImageOptions(), [encoder.view])
        if fact.status != schema.OK or fact.observed[0] is None:
            raise RecipeError(f"{where}: {name} cannot be read as an image: {fact.error or fact.status}")
        views.append(fact.observed[0])
        digests.append(fact.sha256)
    if not views:
        raise RecipeError(f"{where}: no image in {paths}")
    return np.concatenate([encoder.encode_images(views[at : at + 32]) for at in range(0, len(views), 32)]), digests
