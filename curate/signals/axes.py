"""How near an image is to good exemplars, not to bad ones (RAVE): see `curate.signals.formulas.embedding_scores`."""

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalised
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import Column, UserPaths
from curate.signals import on_embeddings
from curate.signals.formulas.embedding_scores import quality_axis, quality_score
from curate.signals.signal import Built, Known


class Axis(OnEmbeddings):
    """How near an image is to good exemplars rather than to bad ones (RAVE), by name.

    Exemplars are image files, or folders or tars of them.
    """

    example: ClassVar[Any] = {"quality": {"good": "examples/good/*.jpg", "bad": "examples/bad/*.jpg"}}
    gives = (Column("scores", "NAME", "float32", "−1 to 1; larger is nearer to the good ones."),)

    good: UserPaths = Field(examples=["examples/good/*.jpg"])
    """Images that are as they should be."""
    bad: UserPaths = Field(examples=["examples/bad/*.jpg"])
    """Images that are not."""


def _sides(name: str, options: Axis) -> list[tuple[str, UserPaths]]:
    return [(f"measure.axes.{name}.good", options.good), (f"measure.axes.{name}.bad", options.bad)]


def _identify(name: str, options: Axis, context: Known) -> list[list[str]]:
    return [on_embeddings.exemplar_digests(where, paths) for where, paths in _sides(name, options)]


def _method(name: str, options: Axis, built: Built) -> on_embeddings.Method:
    def load() -> F32:
        encoder = on_embeddings.encoder_of(options, built)
        sides = [on_embeddings.encode_exemplars(where, encoder, paths) for where, paths in _sides(name, options)]
        on_embeddings.check_unchanged(name, [digests for _, digests in sides], built.identities[name])
        try:
            return quality_axis(*(rows for rows, _ in sides))
        except RecipeError as error:
            raise RecipeError(f"measure.axes.{name}: {error}") from None

    return on_embeddings.Method(
        settings=options.model_dump(exclude={"good", "bad", "of"}),
        load=load,
        compute=lambda embeddings, axis: [pa.array(quality_score(normalised(embeddings.images), axis))],
    )


KIND = on_embeddings.embedding_kind("axes", Axis, _method, _identify)
