"""The kinds of signals in a recipe's section `measure`, in the order of their columns. New kinds are added here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import pyarrow as pa

from curate.base.errors import RecipeError, RunError
from curate.base.wording import one_line
from curate.models.encoder import Encoder
from curate.recipe.measure import SIGNALS, Measure
from curate.signals.signal import BuildContext, IdentifyContext, ModelSignal, Signal, SignalKind

_NAMES = "language clip precomputed heads contexts classes axes clusters normsim vas mirrored text_masked fooling "
_NAMES += "imagenet_words nsfw text_area"
KINDS: tuple[SignalKind, ...] = tuple(import_module(f"curate.signals.{name}").KIND for name in _NAMES.split())


def find_signals(measure: Measure, identities: Mapping[str, Any]) -> tuple[Signal, ...]:
    """Return the recipe's signals, in the order of their columns; `identities` are from `identify_models`."""
    signals: dict[str, Signal] = {}
    for key, name, section in measure.requested:
        for built in SIGNALS.find(key).build(name, section, BuildContext(identities, signals)):
            signals[built.name] = signal = replace(built, package=SIGNALS.package(key))
            if not all(isinstance(column, pa.Field) for column in signal.columns):
                raise RunError(f"{signal.label}: its columns are {signal.columns!r:.200}; accepted: Arrow fields")
    return tuple(signals.values())


def identify_models(measure: Measure, supplied: Mapping[str, int], is_local: bool = True) -> dict[str, Any]:
    """Return everything that determines each signal's values besides the recipe, by name.

    It hashes files and downloads models. For `supplied` and `is_local` see `IdentifyContext`. Raises RecipeError if a
    model, file, library, or device is missing.
    """
    identities: dict[str, Any] = {}
    for key, name, section in measure.requested:
        identity = SIGNALS.find(key).identify(name, section, IdentifyContext(identities, supplied, is_local))
        if identity is None:
            continue
        try:
            json.dumps(identity)
        except (TypeError, ValueError, RecursionError) as error:
            package = SIGNALS.package(key)
            problem = f"identify returned something that JSON cannot represent ({one_line(error, 200)})"
            raise RecipeError(f"signal {name!r} of package {package}: {problem}") from None
        identities[name] = identity
    return identities


def load_encoder_of(signals: Sequence[Signal], model: str, is_anywhere: bool = False) -> Encoder:
    """Return the model of that name, loaded on the run's device, or with `is_anywhere` on the best one here."""
    [signal] = [signal for signal in signals if signal.name == model]
    assert isinstance(signal, ModelSignal), "the recipe was checked"
    return signal.encoder(is_anywhere)
