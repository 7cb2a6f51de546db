"""A linear or MLP head over embeddings, such as LAION's aesthetic predictors: see `curate.models.heads`."""

from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from curate.errors import RecipeError
from curate.models.heads import Activation, Output, load_head
from curate.models.heads import Head as LoadedHead
from curate.numeric.vectors import normalised
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import UserFile
from curate.signals.on_embeddings import Method, check_unchanged, embedding_signal
from curate.signals.signal import Built, Known, Signal, SignalKind


class Head(OnEmbeddings):
    """A linear or MLP head over the embedding, such as LAION's aesthetic predictors: column NAME float32."""

    needs_encoder = False
    path: UserFile  # .safetensors, or .pth of weights
    input: Literal["image", "text"] = "image"
    activation: Activation = "none"  # between the layers; LAION's aesthetic MLP has none
    output: Output = "none"


def _identify(name: str, options: Head, known: Known) -> str:
    head, model = load_head(options.path, options.activation, options.output), known.identities[options.of]
    if head.dimension != model["dimension"]:
        raise RecipeError(
            f"measure.heads.{name}: {options.path} is for embeddings of {head.dimension} dimensions; those of "
            f"{options.of!r} ({model.get('model', 'precomputed')}) have {model['dimension']}"
        )
    return head.digest


def _build(name: str, options: Head, built: Built) -> Iterator[Signal]:
    def load() -> LoadedHead:
        head = load_head(options.path, options.activation, options.output)
        check_unchanged(name, head.digest, built.identities[name])
        return head

    method = Method(
        columns=(pa.field(name, pa.float32()),),
        settings=options.model_dump(exclude={"path", "of"}),
        load=load,
        compute=lambda given, head: [pa.array(head.apply(normalised(given.side(options.input))))],
        side=options.input,
    )
    yield embedding_signal(name, options, built, method)


KIND = SignalKind("heads", Head, _identify, _build, "named")
