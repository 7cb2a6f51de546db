"""Score how much closer an image is to good exemplars than to bad ones (RAVE): see `embedding_scores`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.base.errors import naming
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalized
from curate.recipe.section import Column, UserPaths
from curate.signals import on_embeddings
from curate.signals.formulas.embedding_scores import quality_axis, quality_score
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext


class Axis(on_embeddings.EmbeddingSection):
    """Scores how much closer an image is to good examples than to bad ones (RAVE).

    Examples are image files, folders of images, or tars of images.
    """

    example: ClassVar[Any] = {"quality": {"good": "examples/good/*.jpg", "bad": "examples/bad/*.jpg"}}
    gives = (Column("scores", "NAME", "float32", "−1 to 1. Larger values are closer to the good images."),)
    files = ("good", "bad")

    good: UserPaths = Field(examples=["examples/good/*.jpg"])
    """Good example images."""
    bad: UserPaths = Field(examples=["examples/bad/*.jpg"])
    """Bad example images."""

    def _sides(self, name: str) -> list[tuple[str, UserPaths]]:
        return [(f"measure.axes.{name}.good", self.good), (f"measure.axes.{name}.bad", self.bad)]

    def identify(self, name: str, context: IdentifyContext) -> list[list[str]]:
        return [on_embeddings.exemplar_digests(where, paths) for where, paths in self._sides(name)]

    def load(self, name: str, built: BuildContext) -> F32:
        encoder = on_embeddings.encoder_of(self, built)
        sides = [on_embeddings.encode_exemplars(where, encoder, paths) for where, paths in self._sides(name)]
        on_embeddings.check_unchanged(name, [digests for _, digests in sides], built.identities[name])
        with naming(f"measure.axes.{name}"):
            return quality_axis(*(rows for rows, _ in sides))

    def compute(self, embeddings: Embeddings, loaded: F32) -> Sequence[pa.Array]:
        return [pa.array(quality_score(normalized(embeddings.images), loaded))]


KIND = on_embeddings.embedding_kind("axes", Axis)
