"""The variance alignment score with target images (VAS): see `curate.signals.formulas.embedding_scores`."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F64
from curate.models.tensor_files import array_digest, describe_array, read_array
from curate.recipe.section import Column, UserPath, UserPaths
from curate.signals import on_embeddings
from curate.signals.formulas.embedding_scores import alignment, covariance
from curate.signals.on_embeddings import Method, WithTargets, check_unchanged
from curate.signals.signal import Built, Known


class Vas(WithTargets):
    """Variance alignment score with target images, by name (VAS, arXiv 2402.02055): fᵀΣf, Σ the mean of t·tᵀ.

    Give `targets`, or their `covariance`. Against the pool itself: `relate.vas`.
    """

    example: ClassVar[Any] = {"imagenet_vas": {"targets": "imagenet.npy"}}
    gives = (Column("scores", "NAME", "float32", "fᵀΣf."),)

    targets: UserPaths | None = Field(None, examples=["imagenet.npy"])  # type: ignore[assignment]
    """Target images: .npy or .pt files of their embeddings [n, dimension], or images, or folders or tars of them."""
    covariance: UserPath | None = Field(None, examples=["imagenet_covariance.npy"])
    """A .npy or .pt file of Σ [dimension, dimension]."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "Vas":
        if (self.targets is None) == (self.covariance is None):
            raise ValueError("give either targets or covariance")
        return self


def _identify(name: str, options: Vas, context: Known) -> Any:
    if options.covariance is None:
        return on_embeddings.identify_targets("vas", name, options, context)
    return array_digest(_read_covariance(name, options.covariance, context.identities[options.of]["dimension"]))


def _read_covariance(name: str, path: str, dimension: int) -> F64:
    where = f"measure.vas.{name}.covariance"
    array = read_array(where, path)
    if array.shape != (dimension, dimension) or array.dtype.kind != "f":
        accepted = f"floating-point numbers [{dimension}, {dimension}]"
        raise RecipeError(f"{where}: {describe_array(path, array)}; accepted: {accepted}")
    return np.asarray(array, np.float64)


def _method(name: str, options: Vas, built: Built) -> Method:
    def load() -> F64:
        if options.covariance is None:
            return covariance(on_embeddings.load_targets("vas", name, options, built))
        array = _read_covariance(name, options.covariance, built.identities[options.of]["dimension"])
        check_unchanged(name, array_digest(array), built.identities[name])
        return array

    return Method(
        settings={},
        load=load,
        compute=lambda embeddings, sigma: [pa.array(alignment(embeddings.images, sigma))],
    )


KIND = on_embeddings.embedding_kind("vas", Vas, _method, _identify)
