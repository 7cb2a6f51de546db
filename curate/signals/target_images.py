"""Target images that signals compare each image with: embeddings in a file, or images that the model encodes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalised
from curate.pool.exemplars import picture_files
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import UserPaths
from curate.signals.clusters import array_digest, read_rows
from curate.signals.on_embeddings import check_unchanged, encode_exemplars, encoder_of, exemplar_digests
from curate.signals.signal import Built, Known, ModelSignal

_ARRAYS = (".npy", ".pt", ".pth")


class WithTargets(OnEmbeddings):
    """Base of signals that compare images with target images."""

    needs_encoder = False  # unless they are images
    targets: UserPaths = Field(examples=["imagenet.npy"])
    """Target images: .npy or .pt files of their embeddings [n, dimension], or images, or folders or tars of them."""

    @property
    def are_arrays(self) -> bool:
        """Whether the targets are embeddings in files."""
        paths = (self.targets,) if isinstance(self.targets, str) else self.targets
        return all(path.lower().endswith(_ARRAYS) for path in paths)


def identify_targets(where: str, options: WithTargets, known: Known) -> Any:
    """Return what names the targets. Raises RecipeError where they are no embeddings of the model, and no images."""
    model = known.identities[options.of]
    if options.are_arrays:
        return [array_digest(array) for array in _read_arrays(where, options, model["dimension"])]
    if "model" not in model:
        what = f"{options.of!r} is precomputed, so images cannot be encoded"
        raise RecipeError(f"{where}: {what}; accepted: a .npy or .pt file of embeddings, or a model of measure.clip")
    return exemplar_digests(where, options.targets)


def load_targets(where: str, name: str, options: WithTargets, built: Built) -> F32:
    """Return the targets' embeddings, of unit length (float32[n, dimension])."""
    if options.are_arrays:
        arrays = list(_read_arrays(where, options, built.identities[options.of]["dimension"]))
        check_unchanged(name, [array_digest(array) for array in arrays], built.identities[name])
        return normalised(np.concatenate(arrays))
    assert isinstance(built.signals[options.of], ModelSignal), "it was identified"
    rows, digests = encode_exemplars(where, encoder_of(options, built), options.targets)
    check_unchanged(name, digests, built.identities[name])
    return normalised(rows)


def _read_arrays(where: str, options: WithTargets, dimension: int) -> Iterator[F32]:
    for file in picture_files(where, options.targets):
        yield read_rows(where, file.path, f"n, {dimension}", dimension)
