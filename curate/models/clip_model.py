"""Identify and load a recipe's CLIP model, with open_clip, or with ONNX Runtime for `onnx:FOLDER`."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from curate.base import ids
from curate.base.errors import CurateError, RunError, needing
from curate.base.process import process_cache
from curate.base.wording import one_line
from curate.models.encoder import Encoder
from curate.models.identity import OpenClip


def identify(options: OpenClip, is_local: bool = True) -> dict[str, Any]:
    """Return a model's identity from its files, without loading it; download them if they are named by a tag or a hub.

    With `is_local`, it will run on this machine. Raises RecipeError if a library, the model, its weights, or the device
    is missing.
    """
    library = _library(options)
    device = library.resolve_device(options) if is_local or options.device == "auto" else options.device
    return dict(library.identify(options, device))


def load_encoder(options: OpenClip, identity: Mapping[str, Any] | None = None) -> Encoder:
    """Return the model, loaded once per process, and shared by threads; `identity` is from `identify`.

    Each of several GPUs gets the model when there is work for it, unless the recipe names one (`cuda:0`). Raises
    RecipeError or RunError if it cannot be loaded, or its weights are not those that were identified.
    """
    library = _library(options)
    device = library.resolve_device(options)
    identity = identify(options) if identity is None else identity
    content = {name: value for name, value in identity.items() if name not in ("device", "precision")}
    key = ids.digest(["encoder", content, device, options.resolve_precision(device), options.batch])

    def load() -> Encoder:
        library.check_weights(options, identity)
        try:
            encoder: Encoder = library.open_encoder(options, device)
        except CurateError:
            raise
        except Exception as error:  # of many types, from torch, open_clip, onnxruntime, tokenizers
            raise RunError(f"{options.where}: {options.model} cannot be loaded: {one_line(error, 400)}") from None
        return encoder

    return process_cache(key, load)


def _library(options: OpenClip) -> ModuleType:
    """Return the module that runs a model; both modules have the same public functions."""
    if options.is_onnx:
        from curate.models import onnx_encoder

        return onnx_encoder
    with needing(f"{options.where}: a library is not installed", "'.[clip]' in a checkout of curate"):
        import open_clip  # noqa: F401
        import torch  # noqa: F401
    from curate.models import open_clip_encoder

    return open_clip_encoder
