"""How near an image is to good exemplars rather than to bad ones (RAVE): see `curate.numeric.embedding_scores`."""

from collections.abc import Iterator

import pyarrow as pa

from curate.errors import RecipeError
from curate.numeric.arrays import F32
from curate.numeric.embedding_scores import quality_axis, quality_score
from curate.numeric.vectors import normalised
from curate.recipe.measure import OnEmbeddings
from curate.recipe.section import UserPaths
from curate.signals.on_embeddings import (
    Method,
    check_unchanged,
    embedding_signal,
    encode_exemplars,
    encoder_of,
    exemplar_digests,
)
from curate.signals.signal import Built, Known, Signal, SignalKind


class Axis(OnEmbeddings):
    """How near an image is to good exemplars rather than to bad ones (RAVE): column NAME float32, -1 to 1."""

    good: UserPaths
    bad: UserPaths


def _identify(name: str, options: Axis, known: Known) -> list[list[str]]:
    where = f"measure.axes.{name}"
    return [exemplar_digests(f"{where}.good", options.good), exemplar_digests(f"{where}.bad", options.bad)]


def _build(name: str, options: Axis, built: Built) -> Iterator[Signal]:
    where = f"measure.axes.{name}"

    def load() -> F32:
        encoder = encoder_of(options, built)
        good, good_digests = encode_exemplars(f"{where}.good", encoder, options.good)
        bad, bad_digests = encode_exemplars(f"{where}.bad", encoder, options.bad)
        check_unchanged(name, [good_digests, bad_digests], built.identities[name])
        try:
            return quality_axis(good, bad)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None

    method = Method(
        columns=(pa.field(name, pa.float32()),),
        settings=options.model_dump(exclude={"good", "bad", "of"}),
        load=load,
        compute=lambda given, axis: [pa.array(quality_score(normalised(given.images), axis))],
    )
    yield embedding_signal(name, options, built, method)


KIND = SignalKind("axes", Axis, _identify, _build, "named")
