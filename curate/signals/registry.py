"""The kinds of signals: what a recipe's section `measure` adds to `scores`, in order. A new kind is one line here.

A signal's key is the digest of all that its values depend on but the samples: equal keys, equal columns, so what an
older run measured is reused column by column.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from PIL import Image

from curate.errors import CurateError, RecipeError, RunError
from curate.models.encoder import Encoder
from curate.recipe.measure import SIGNALS, Measure
from curate.signals import (
    axes,
    classes,
    clip,
    clusters,
    contexts,
    fooling,
    heads,
    imagenet_words,
    language,
    nsfw,
    precomputed,
    text_area,
)
from curate.signals.signal import Built, ImageSignal, Known, Signal, SignalKind, SignalOutput
from curate.wording import one_line

KINDS: tuple[SignalKind, ...] = (
    language.KIND,
    clip.KIND,
    precomputed.KIND,
    heads.KIND,
    contexts.KIND,
    classes.KIND,
    axes.KIND,
    clusters.KIND,
    fooling.KIND,
    imagenet_words.KIND,
    nsfw.KIND,
    text_area.KIND,
)


def find_signals(measure: Measure, identities: Mapping[str, Any]) -> tuple[Signal, ...]:
    """Return the recipe's signals, in the order of their columns.

    Args:
        measure: the recipe's section.
        identities: of each signal, from `identify_models`.
    """
    found: dict[str, Signal] = {}
    for key, name, section in measure.requested:
        kind: SignalKind = SIGNALS.find(key)
        package = SIGNALS.package(key)
        build = kind.build if package is None else _guard(kind.build, f"signal {key!r} of package {package}", RunError)
        for signal in build(name, section, Built(identities, found)):
            found[signal.name] = signal if package is None else _guard_signal(signal, package)
    return tuple(found.values())


def identify_models(measure: Measure, supplied: Mapping[str, int], is_local: bool = True) -> dict[str, Any]:
    """Return what each signal's values depend on beyond the recipe, by name; files are hashed, and models downloaded.

    Args:
        measure: the recipe's section.
        supplied: the dimensions of the embeddings that the pool supplies, by name.
        is_local: whether signals are measured on this machine.

    Raises:
        RecipeError: a model, a file, a library or a device is not there.
    """
    found: dict[str, Any] = {}
    for key, name, section in measure.requested:
        kind: SignalKind = SIGNALS.find(key)
        package = SIGNALS.package(key)
        where = f"measure.{key}: signal of package {package}"
        identify = kind.identify if package is None else _guard(kind.identify, where, RecipeError)
        identity = identify(name, section, Known(found, supplied, is_local))
        if identity is not None:
            found[name] = identity
    return found


def load_encoder_of(signals: Sequence[Signal], model: str, is_anywhere: bool = False) -> Encoder:
    """Return the model of that name, loaded: the run's device, or, where `is_anywhere`, the best one of this machine."""
    load = next(signal.encoder for signal in signals if signal.name == model)
    assert load is not None, "the recipe was checked"
    return load(is_anywhere)


def _guard(
    function: Callable[..., Any], where: str, error: type[CurateError], passed: tuple[type[Exception], ...] = ()
) -> Callable[..., Any]:
    """Return a function of another package, whose exceptions but those that are passed become errors that name it."""

    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except passed:
            raise
        except CurateError as caught:
            raise type(caught)(f"{where}: {caught}") from caught
        except Exception as caught:  # another package's code: of any kind
            raise error(f"{where}: {type(caught).__name__}: {one_line(caught, 400)}") from caught

    return guarded


def _guard_signal(signal: Signal, package: str) -> Signal:
    """Return a signal of another package, whose exceptions become errors that name it."""
    where = f"signal {signal.name!r} of package {package}"
    guarded: dict[str, Any] = {
        name: _guard(getattr(signal, name), where, RunError)
        for name in ("from_captions", "from_embeddings", "load", "encoder")
        if getattr(signal, name) is not None
    }
    start = signal.from_images
    if start is not None:
        guarded["from_images"] = lambda captions: _guard_image_signal(_guard(start, where, RunError)(captions), where)
    return replace(signal, **guarded)


def _guard_image_signal(inner: ImageSignal, where: str) -> ImageSignal:
    observe = _guard(
        inner.observe, where, RunError, (ValueError, OSError, MemoryError)
    )  # of the image, see ImageSignal
    return _GuardedImageSignal(observe, _guard(inner.add, where, RunError), _guard(inner.finish, where, RunError))


class _GuardedImageSignal(NamedTuple):
    observe: Callable[[Image.Image], Any]
    add: Callable[[int, Any], None]
    finish: Callable[[], SignalOutput]
