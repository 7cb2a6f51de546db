"""The signal of embeddings that the pool supplies. `curate.pool.precomputed` reads them; they have no column in `scores`."""

from typing import Any

from curate import ids
from curate.recipe.measure import PrecomputedEmbeddings
from curate.signals.signal import Signal


def signal(options: PrecomputedEmbeddings, identity: dict[str, Any]) -> Signal:
    """Return the signal of the section. `identity` is `identify_models` of it."""
    key = ids.digest(["brought", 1, options.image, options.text, identity["dimension"]])
    return Signal(options.name, (), key, bring=(options.image, options.text), dimension=identity["dimension"])
