"""Helpers for models of Hugging Face's transformers: names, devices, loading, images, halved batches.

A model is a local folder from `save_pretrained`, or a name on the hub. Code in it never runs.
"""

import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from curate.base.errors import RecipeError, needing
from curate.base.wording import one_line
from curate.models.weights import find_digest
from curate.read.image import as_rgb, rotate_by_exif
from curate.recipe.files import MAX_CONFIG, read_whole

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16"]
T = TypeVar("T")
R = TypeVar("R")


def model_name(model: str) -> str:
    """Return a model's name for tables. For a folder, it consists of the model's kind and a digest of the files."""
    path = Path(model)
    if not path.is_dir():
        return model
    state = hashlib.sha256()
    try:
        kind = str(json.loads(read_whole(str(path / "config.json"), MAX_CONFIG))["model_type"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        kind = "model"
    for file in sorted(path.iterdir()):
        if file.is_file():
            state.update(f"{file.name} {find_digest(str(file))}\n".encode())
    return f"{kind}@{state.hexdigest()[:12]}"


def find_devices(where: str, device: Device) -> list[str]:
    """Return the available devices. Raises RecipeError without torch, or if CUDA is requested and missing."""
    with needing(f"{where}: transformers with PyTorch is needed", "'.[guided]' in a checkout of curate"):
        import torch
        import transformers  # noqa: F401
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        request = f"device is cuda, but torch {torch.__version__} finds no CUDA device on this machine"
        raise RecipeError(f"{where}: {request}; accepted: auto, cpu, or a machine with one")
    return each_device("cuda" if has_cuda and device != "cpu" else "cpu")


def each_device(device: str) -> list[str]:
    """Return the devices that a name means: `cuda` means every visible GPU; any other name is one device."""
    import torch

    count = torch.cuda.device_count() if device == "cuda" else 1
    return [device] if count < 2 else [f"cuda:{number}" for number in range(count)]


def load(where: str, loading: Callable[[], T]) -> T:
    """Return the result of `loading`. Raises RecipeError if there is no such model, no network, or an invalid file."""
    try:
        return loading()
    except Exception as error:  # of many types, from the hub, the network, JSON, safetensors
        reason = one_line(error, 300).rstrip(".") or type(error).__name__
        accepted = "a folder with the model's files, or a name on the Hugging Face hub"
        offline = "without a network, its files must be in the cache; HF_HUB_OFFLINE=1 prevents downloads"
        raise RecipeError(f"{where}: cannot be loaded: {reason}. Accepted: {accepted}; {offline}") from None


def open_picture(data: bytes) -> Image.Image:
    """Return the image after EXIF rotation and in RGB, like `measure` does. Raises Pillow's errors."""
    return as_rgb(rotate_by_exif(Image.open(io.BytesIO(data)))).convert("RGB")


def in_halves(items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R | Exception]:
    """Return the results of `work` for the items. If it raises, try each half, so that only bad items fail."""
    if not items:
        return []
    failed: Exception
    try:
        return list(work(items))
    except Exception as error:  # of many types: out of memory, or from an item or the model
        failed = error.with_traceback(None)  # its frames would keep the batch in memory
    if len(items) == 1:
        return [failed]
    if is_memory(failed):
        free_memory()
    half = len(items) // 2
    return [*in_halves(items[:half], work), *in_halves(items[half:], work)]


def is_memory(error: Exception) -> bool:
    """Return whether the GPU or the machine ran out of memory."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in message or "allocate memory" in message


def to_dtype(precision: str) -> Any:
    """Return torch's dtype for a `Precision`."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def free_memory() -> None:
    """Release the GPU memory that torch caches, if torch is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
