"""The registry of signals: what a recipe's section `measure` adds to `scores`, in order. A new signal is a line here.

A signal's key is the digest of all that its values depend on but the sample: equal keys, equal columns, so what an
older run measured is taken over column by column.
"""

from collections.abc import Mapping
from typing import Any

from curate.measure import clip
from curate.measure.encoder import identify
from curate.measure.gauge import Signal
from curate.measure.language import IDENTITY
from curate.recipe import Measure


def find_signals(measure: Measure, models: Mapping[str, Any]) -> tuple[Signal, ...]:
    """The recipe's signals, but language, which is a column of `samples` too.

    Args:
        measure: the recipe's section.
        models: what each model is, from `identify_models`.
    """
    return tuple(clip.signal(options, models[options.name]) for options in measure.clip)


def identify_models(measure: Measure) -> dict[str, Any]:
    """What each model is that the recipe asks for, by signal; files are hashed, and downloaded. Raises RecipeError."""
    models: dict[str, Any] = {options.name: identify(options) for options in measure.clip}
    if measure.language:
        models["language"] = IDENTITY
    return models
