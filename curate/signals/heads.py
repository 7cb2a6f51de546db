"""A linear or MLP head over embeddings, such as LAION's aesthetic predictors: see `curate.models.heads`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.numeric.vectors import normalized
from curate.models import heads
from curate.models.heads import Activation, Output, load_head
from curate.recipe.section import Column, UserFile
from curate.signals.on_embeddings import EmbeddingSection, Method, embedding_kind, unchanged
from curate.signals.signal import BuildContext, Embeddings, IdentifyContext


class Head(EmbeddingSection):
    """Applies a linear or MLP head to embeddings, such as LAION's aesthetic predictors.

    The file has a `weight` [out, in] and a `bias` for each layer, in order: `0.weight`, `0.bias`, `2.weight`, and so
    on. curate never runs code from the file.
    """

    example: ClassVar[Any] = {"aesthetic": {"path": "sac+logos+ava1-l14-linearMSE.pth"}}
    gives = (Column("scores", "NAME", "float32", "Output of the head."),)

    files = ("path",)
    needs_encoder = False
    path: UserFile = Field(examples=["sac+logos+ava1-l14-linearMSE.pth"])
    """File with the weights: .safetensors or .pth."""
    input: Literal["image", "text"] = Field("image", examples=["text"])
    """Whether the head reads the embedding of the image or of the caption (`text`)."""
    activation: Activation = Field("none", examples=["relu"])
    """Activation function between layers. LAION's aesthetic MLP has none."""
    output: Output = Field("none", examples=["sigmoid"])
    """Function to apply to the output of the last layer."""

    def identify(self, name: str, context: IdentifyContext) -> str:
        head, model = load_head(self.path, self.activation, self.output), context.identities[self.of]
        if head.dimension != model["dimension"]:
            sizes = f"embeddings of {head.dimension} dimensions; those of {self.of!r} have {model['dimension']}"
            raise RecipeError(f"measure.heads.{name}: {self.path} is for {sizes}")
        return head.digest

    def load(self, name: str, built: BuildContext) -> heads.Head:
        return unchanged(name, load_head(self.path, self.activation, self.output), built)

    def compute(self, embeddings: Embeddings, loaded: heads.Head) -> Sequence[pa.Array]:
        return [pa.array(loaded.apply(normalized(embeddings.side(self.input))))]

    def method(self, name: str, built: BuildContext) -> Method:
        return replace(super().method(name, built), side=self.input)


KIND = embedding_kind("heads", Head)
