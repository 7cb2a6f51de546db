"""A linear or MLP head over embeddings, such as LAION's aesthetic predictors: see `curate.models.heads`."""

from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.numeric.vectors import normalised
from curate.models.heads import Activation, Output, load_head
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column, UserFile
from curate.signals.on_embeddings import Method, embedding_kind, unchanged
from curate.signals.signal import Built, Known


class Head(OnEmbeddings):
    """Linear or MLP heads over embeddings, such as LAION's aesthetic predictors, by name.

    A file holds `weight` [out, in] and `bias` of each layer, in order: `0.weight`, `0.bias`, `2.weight` … It is read as
    arrays, and no code of it is run.
    """

    example: ClassVar[Any] = {"aesthetic": {"path": "sac+logos+ava1-l14-linearMSE.pth"}}
    gives = (Column("scores", "NAME", "float32", "What the head gives."),)

    needs_encoder = False
    path: UserFile = Field(examples=["sac+logos+ava1-l14-linearMSE.pth"])
    """File of weights, .safetensors or .pth."""
    input: Literal["image", "text"] = Field("image", examples=["text"])
    """Which embedding the head is applied to: the image's or the caption's."""
    activation: Activation = Field("none", examples=["relu"])
    """Activation between the layers. LAION's aesthetic MLP has none."""
    output: Output = Field("none", examples=["sigmoid"])
    """What is applied to the last layer's output."""


def _identify(name: str, options: Head, context: Known) -> str:
    head, model = load_head(options.path, options.activation, options.output), context.identities[options.of]
    if head.dimension != model["dimension"]:
        sizes = f"embeddings of {head.dimension} dimensions; those of {options.of!r} have {model['dimension']}"
        raise RecipeError(f"measure.heads.{name}: {options.path} is for {sizes}")
    return head.digest


def _method(name: str, options: Head, built: Built) -> Method:
    return Method(
        settings=options.model_dump(exclude={"path", "of"}),
        load=lambda: unchanged(name, load_head(options.path, options.activation, options.output), built),
        compute=lambda embeddings, head: [pa.array(head.apply(normalised(embeddings.side(options.input))))],
        side=options.input,
    )


KIND = embedding_kind("heads", Head, _method, _identify)
