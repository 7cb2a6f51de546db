"""Let other signals use embeddings that the pool supplies: see `curate.read.precomputed`. It adds no columns."""

from collections.abc import Iterator
from typing import Any

from curate.base import ids
from curate.recipe.measure import PrecomputedEmbeddings
from curate.signals.signal import BuildContext, IdentifyContext, PrecomputedSignal, SignalKind


def _identify(name: str, options: PrecomputedEmbeddings, context: IdentifyContext) -> dict[str, Any]:
    return {"brought": [options.image, options.text], "dimension": context.supplied[name]}


def _build(name: str, options: PrecomputedEmbeddings, built: BuildContext) -> Iterator[PrecomputedSignal]:
    dimension = built.identities[name]["dimension"]
    key = ids.digest(["brought", 1, options.image, options.text, dimension])
    yield PrecomputedSignal(name, (), key, supplied=(options.image, options.text), dimension=dimension)


KIND = SignalKind("embeddings", PrecomputedEmbeddings, _identify, _build, "listed")
