"""Similarity of an image to the nearest target image (NormSim): see `curate.signals.formulas.embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.models.products import products_with
from curate.recipe.section import Column
from curate.signals.formulas.embedding_scores import alignment, covariance, largest_cosine
from curate.signals.on_embeddings import WithTargets, embedding_kind
from curate.signals.signal import BuildContext, Embeddings


class NormSim(WithTargets):
    """Scores how similar an image is to target images, such as ImageNet's (NormSim, arXiv 2405.19547)."""

    example: ClassVar[Any] = {"imagenet": {"targets": "imagenet.npy"}}
    gives = (Column("scores", "NAME", "float32", "Norm of the image's cosines with the targets; see `norm`."),)

    kind = "normsim"

    norm: Literal["max", "2"] = Field("max", examples=["2"])
    """`max`: the largest |cosine| with a target (the paper's choice). `2`: the square root of the sum of the squared
    cosines."""

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"version": 2}  # of the products

    def load(self, name: str, built: BuildContext) -> Any:
        targets = self.load_targets(name, built)
        return products_with(targets.T) if self.norm == "max" else covariance(targets) * len(targets)

    def compute(self, embeddings: Embeddings, loaded: Any) -> Sequence[pa.Array]:
        score = largest_cosine if self.norm == "max" else lambda images, sums: np.sqrt(alignment(images, sums))
        return [pa.array(score(embeddings.images, loaded))]


KIND = embedding_kind("normsim", NormSim)
