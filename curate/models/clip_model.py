"""A recipe's CLIP model, by what runs it: open_clip, or ONNX Runtime where it is a folder of graphs (`onnx:DIR`).

A model of files that may be anyone's is tried first, once a machine, in a process whose memory and time are limited: a
graph, a configuration or a tokenizer of few bytes may ask for any amount of both.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

import curate
from curate.base import ids
from curate.base.errors import CurateError, RunError, needing
from curate.base.process import memory_limited, process_cache
from curate.base.wording import format_bytes, one_line
from curate.models.encoder import Encoder
from curate.models.identity import ONNX, OpenClip
from curate.models.weights import alone_with

_SECONDS, _MEMORY = 40, 2 << 30  # of a CPU, and bytes more than libraries take, for a trial
_PER_SECOND, _TIMES = 100 << 20, 5  # bytes of weights for which it has a second more, and how often these in memory
_faults: dict[str, str] = {}  # of models that were tried in this process: its other threads do not try them again
_FAULT = "\0"  # before what is wrong, in its output: libraries print too


def identify(options: OpenClip, is_local: bool = True) -> dict[str, Any]:
    """Return what a model is, from its files, without loading it; download them where they are named by a tag or a hub.

    Keys: model, pretrained, weights (file name and sha256), preprocess, dimension, context_length, precision, versions
    and what else scores depend on; and device. Where `is_local`, it will run on this machine: a missing device is an
    error now.

    Raises RecipeError where a library, the model, its weights or the device is not there.
    """
    library = _library(options)
    device = library.resolve_device(options) if is_local or options.device == "auto" else options.device
    identity: dict[str, Any] = library.identify(options, device)
    return identity


def load_encoder(options: OpenClip, identity: Mapping[str, Any] | None = None) -> Encoder:
    """Return the model, loaded once per process, and shared by threads; `identity` is from `identify`.

    Of several GPUs each gets the model once there is work for it, unless the recipe names one (`cuda:0`). Raises
    RecipeError or RunError where it cannot be loaded, or its weights are not those that were identified.
    """
    library = _library(options)
    device = library.resolve_device(options)
    identity = identify(options) if identity is None else identity
    content = {name: value for name, value in identity.items() if name not in ("device", "precision")}
    key = ids.digest(["encoder", content, device, options.resolve_precision(device), options.batch])

    def load() -> Encoder:
        size = library.check_weights(options, identity)
        # Of no tag of open_clip's, and not the demo's
        if identity["pretrained"] in (None, "file") and not (options.is_onnx and _is_shipped(options, content)):
            _try_out(options, ids.digest(content), size)
        encoder: Encoder = library.open_encoder(options, device)
        return encoder

    return process_cache(key, load)


def _is_shipped(options: OpenClip, content: Mapping[str, Any]) -> bool:
    """Return whether a folder of graphs holds what comes with curate, by its digests."""
    folder = Path(curate.__file__).parent / "demo" / "clip"
    shipped = identify(options.model_copy(update={"model": f"{ONNX}{folder}"}), False)
    return content == {name: shipped[name] for name in content}


def _try_out(options: OpenClip, key: str, size: int) -> None:
    """Have a process load a model and encode with it, unless one of this machine has. Raises RunError."""
    with alone_with(f"trial {key}") as note:
        if key in _faults:
            raise RunError(_faults[key])
        if note.read():
            return
        seconds, memory = _SECONDS + size // _PER_SECOND, _MEMORY + _TIMES * size
        cpu = {"device": "cpu", "precision": "auto", "batch": "auto"}
        settings = options.model_dump(include={*OpenClip.model_fields}) | cpu
        call = f"from {__name__} import _try; _try({settings}, {seconds}, {memory})"
        command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path}; {call}"]
        # A thread per core would, on a machine of many, take up memory and time for nothing
        variables = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
        done = subprocess.run(command, check=False, env=variables, capture_output=True, text=True, errors="replace")
        if done.returncode:
            limits = f"tried in a process with {seconds} s of a CPU and {format_bytes(memory)} of memory"
            why = f"measure.clip {options.name!r}: {options.model} cannot be loaded: {one_line(done.stderr[-300:])}"
            fault = done.stdout.rpartition(_FAULT)[2] if _FAULT in done.stdout else why
            _faults[key] = f"{fault} (status {done.returncode}; {limits})"
            raise RunError(_faults[key])
        note.write("loaded")


def _try(settings: Mapping[str, Any], seconds: int, memory: int) -> None:
    options = OpenClip(**settings)
    library = _library(options)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with memory_limited(memory):
        try:
            encoder: Encoder = library.open_encoder(options, "cpu")
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
            encoder.encode_images([encoder.view(Image.fromarray(noise))])
            encoder.encode_texts(["a photo of 2 dogs"])
        except CurateError as error:
            sys.stdout.write(f"{_FAULT}{error}")
            sys.exit(1)


def _library(options: OpenClip) -> ModuleType:
    """Return the module of what runs a model; both have the same public functions."""
    if options.is_onnx:
        from curate.models import onnx_encoder

        return onnx_encoder
    where = f"measure.clip {options.name!r}"
    with needing(f"{where}: a library is not installed", "'.[clip]' in a checkout of curate"):
        import open_clip  # noqa: F401
        import torch  # noqa: F401
    from curate.models import open_clip_encoder

    return open_clip_encoder
