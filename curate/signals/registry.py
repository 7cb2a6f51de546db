"""The kinds of signals: what a recipe's section `measure` adds to `scores`, in order. A new kind is one line here.

A signal's key is the digest of all that its values depend on but the samples: equal keys, equal columns, so what an
older run measured is reused column by column.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

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
from curate.signals.signal import Built, ImageSignal, Known, Signal, SignalKind
from curate.wording import one_line

_MODULES = (
    *(language, clip, precomputed, heads, contexts, classes, axes, clusters, fooling),
    *(imagenet_words, nsfw, text_area),
)
KINDS: tuple[SignalKind, ...] = tuple(module.KIND for module in _MODULES)


def find_signals(measure: Measure, identities: Mapping[str, Any]) -> tuple[Signal, ...]:
    """Return the recipe's signals, in the order of their columns; `identities` are from `identify_models`."""
    found: dict[str, Signal] = {}
    for key, name, section in measure.requested:
        for signal in _find_kind(key).build(name, section, Built(identities, found)):
            found[signal.name] = signal
    return tuple(found.values())


def identify_models(measure: Measure, supplied: Mapping[str, int], is_local: bool = True) -> dict[str, Any]:
    """Return what each signal's values depend on beyond the recipe, by name; files are hashed, and models downloaded.

    `supplied` and `is_local` are what `Known` says. Raises RecipeError where a model, a file, a library or a device is missing.
    """
    found: dict[str, Any] = {}
    for key, name, section in measure.requested:
        identity = _find_kind(key).identify(name, section, Known(found, supplied, is_local))
        if identity is not None:
            found[name] = identity
    return found


def load_encoder_of(signals: Sequence[Signal], model: str, is_anywhere: bool = False) -> Encoder:
    """Return the model of that name, loaded: the run's device, or, where `is_anywhere`, the best one of this machine."""
    load = next(signal.encoder for signal in signals if signal.name == model)
    assert load is not None, "the recipe was checked"
    return load(is_anywhere)


def _find_kind(key: str) -> SignalKind:
    """Return a kind of signals; exceptions of one of another package become errors that name it."""
    kind: SignalKind = SIGNALS.find(key)
    package = SIGNALS.package(key)
    if package is None:
        return kind

    def build(name: str, section: Any, built: Built) -> list[Signal]:
        return [_guard_signal(signal, package) for signal in kind.build(name, section, built)]

    identify = _guard(kind.identify, f"measure.{key}: signal of package {package}", RecipeError)
    return replace(kind, identify=identify, build=_guard(build, f"signal {key!r} of package {package}", RunError))


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


def _guard_image_signal(inner: ImageSignal, where: str) -> Any:
    """Return an `ImageSignal`; what `observe` may raise of an image is passed."""
    return SimpleNamespace(
        observe=_guard(inner.observe, where, RunError, (ValueError, OSError, MemoryError)),
        add=_guard(inner.add, where, RunError),
        finish=_guard(inner.finish, where, RunError),
    )
