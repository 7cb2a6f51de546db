"""The registry of signals: what a recipe's section `measure` adds to `scores`, in order. A new signal is a line here.

A signal's key is the digest of all that its values depend on but the sample: equal keys, equal columns, so what an
older run measured is taken over column by column.
"""

from collections.abc import Mapping
from typing import Any

from curate.models.identity import identify
from curate.recipe.measure import Measure
from curate.signals import clip, embedded, imagenet_words, nsfw, text_area
from curate.signals import precomputed as brought
from curate.signals.image_signal import looked_signal
from curate.signals.language import IDENTITY
from curate.signals.signal import Signal


def find_signals(measure: Measure, models: Mapping[str, Any]) -> tuple[Signal, ...]:
    """The recipe's signals, but language, which is a column of `samples` too.

    Args:
        measure: the recipe's section.
        models: what each model is, from `identify_models`.
    """
    asked = tuple(clip.resolved(options, models[options.name]) for options in measure.clip)
    measure = measure.model_copy(update={"clip": asked})
    clips = [clip.signal(options, models[options.name]) for options in measure.clip]
    brings = [brought.signal(options, models[options.name]) for options in measure.embeddings]
    keys = {signal.name: signal.key for signal in (*clips, *brings)}
    found = [
        *clips,
        *brings,
        *(clip.words_signal(options, keys[options.name]) for options in measure.clip if options.words),
    ]
    found += embedded.signals(measure, models, keys)
    if measure.imagenet_words:
        found.append(imagenet_words.signal(measure.imagenet_words, models["imagenet_words"]))
    if measure.nsfw:
        found.append(looked_signal("nsfw", nsfw.Nsfw, models["nsfw"]))
    if measure.text_area:
        found.append(looked_signal("text_area", text_area.TextArea, models["text_area"]))
    return tuple(found)


def identify_models(measure: Measure, brings: Mapping[str, int], here: bool = True) -> dict[str, Any]:
    """What each model is that the recipe asks for, by signal; files are hashed, and downloaded.

    Args:
        measure: the recipe's section.
        brings: the dimensions of the embeddings that the pool brings, by name.
        here: whether models will run on this machine.

    Raises:
        RecipeError: a model, a file, a library or a device is not there.
    """
    models: dict[str, Any] = {options.name: identify(options, here) for options in measure.clip}
    models |= {
        options.name: {"brought": [options.image, options.text], "dimension": brings[options.name]}
        for options in measure.embeddings
    }
    models |= embedded.identify_files(measure, models)
    if measure.language:
        models["language"] = IDENTITY
    if measure.imagenet_words:
        models["imagenet_words"] = imagenet_words.identify(measure.imagenet_words)
    if measure.nsfw:
        models["nsfw"] = nsfw.Nsfw().identity
    if measure.text_area:
        models["text_area"] = text_area.TextArea().identity
    return models
