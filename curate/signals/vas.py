"""Score how well images match the directions of target images (VAS): see `curate.signals.formulas.embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64
from curate.models.tensor_files import array_digest, describe_array, read_array
from curate.recipe.section import Column, UserPath, UserPaths
from curate.signals.formulas.embedding_scores import alignment, covariance
from curate.signals.on_embeddings import WithTargets, check_unchanged, embedding_kind
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext


class Vas(WithTargets):
    """Scores how well an image matches the main directions of target images' embeddings (VAS, arXiv 2402.02055).

    Set either `targets` or `covariance`. To compare images with the pool itself, use `relate.vas`.
    """

    example: ClassVar[Any] = {"imagenet_vas": {"targets": "imagenet.npy"}}
    gives = (Column("scores", "NAME", "float32", "fᵀΣf, where f is the image's embedding and Σ the mean of t·tᵀ."),)

    kind = "vas"
    files = ("targets", "covariance")

    targets: UserPaths | None = Field(None, examples=["imagenet.npy"])  # type: ignore[assignment]
    """Target images: image files, folders of images, or tars; or .npy or .pt files with their embeddings [n,
    dimension]."""
    covariance: UserPath | None = Field(None, examples=["imagenet_covariance.npy"])
    """A .npy or .pt file with the matrix Σ [dimension, dimension]: the mean of t·tᵀ over the targets' embeddings t."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "Vas":
        if (self.targets is None) == (self.covariance is None):
            raise ValueError("give either targets or covariance")
        return self

    def identify(self, name: str, context: IdentifyContext) -> Any:
        if self.covariance is None:
            return super().identify(name, context)
        return array_digest(_read_covariance(name, self.covariance, context.identities[self.of]["dimension"]))

    def load(self, name: str, built: BuildContext) -> F64:
        if self.covariance is None:
            return covariance(self.load_targets(name, built))
        array = _read_covariance(name, self.covariance, built.identities[self.of]["dimension"])
        check_unchanged(name, array_digest(array), built.identities[name])
        return array

    def compute(self, embeddings: Embeddings, loaded: F64) -> Sequence[pa.Array]:
        return [pa.array(alignment(embeddings.images, loaded))]


def _read_covariance(name: str, path: str, dimension: int) -> F64:
    where = f"measure.vas.{name}.covariance"
    array = read_array(where, path)
    if array.shape != (dimension, dimension) or array.dtype.kind != "f":
        accepted = f"floating-point numbers [{dimension}, {dimension}]"
        raise RecipeError(f"{where}: {describe_array(path, array)}; accepted: {accepted}")
    return np.asarray(array, np.float64)


KIND = embedding_kind("vas", Vas)
