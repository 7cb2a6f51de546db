"""Compute linear and MLP heads over an embedding, such as aesthetic predictors and safety detectors.

In: a `.safetensors` file, or a `.pth` or `.pt` file with a state dict (never with code), both read without torch; and
embeddings float32[n, d], rows of norm 1. Out: float32[n]. A head's identity is its file's sha256. LAION's files work:

    aesthetic v1 (2022)   weight [1, d], bias [1]                              activation none   output none
    aesthetic v2          layers.0, 2, 4, 6, 7: d → 1024 → 128 → 64 → 16 → 1   activation none   output none
    safety, H14           layers.0, 3, 6, 9, 12, 15, 16: 1024 → … → 1          activation relu   output none

The layers are the 2-D weights with their biases, in the numeric order of their names; dropout has no weights. A file
does not say which activation its layers use, so it is an argument. After the last layer, there is only `output`. The
numbers in the names are positions in a `Sequential`. Two layers have an activation between them if their numbers have
a gap (12 and 15 above), but not if they are consecutive (15 and 16 above). If all numbers are consecutive, or names do
not end in a plain number, there is an activation between any two layers.

Layers with nothing between them are multiplied into one when loaded (in float64). So v2, which is linear, costs one
product with a vector, and differs from torch's forward pass only by rounding, about 1e-6 of the score.

Sources: LAION-AI/aesthetic-predictor and CLIP-based-NSFW-Detector, christophschuhmann/improved-aesthetic-predictor.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32
from curate.base.wording import one_line
from curate.models.tensor_files import read_safetensors, read_torch_file
from curate.models.weights import read_file

Activation = Literal["none", "relu", "gelu", "silu"]  # between layers: the exact gelu (erf), and x · sigmoid(x)
Output = Literal["none", "sigmoid"]  # after the last layer

MAX_BYTES = 256 << 20  # a larger file is not a head, but a model
ROWS = 4096  # rows per step, so that hidden layers stay small

_ACCEPTED = "accepted: a .safetensors file, or a .pth or .pt file with a state dict, with only linear layers (weights "
_ACCEPTED += "[out, in], biases [out]), in the order of the numbers in their names, and the last with one output"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NUMBERS = re.compile(r"([0-9]{1,18})")


class Layer(NamedTuple):
    """x ↦ x · weight + bias."""

    weight: F32  # [in, out]
    bias: F32  # [out]


@dataclass(frozen=True, eq=False)
class Head:
    """A function from an embedding to a number."""

    digest: str  # sha256 of its file, hex
    dimension: int  # d, of the embedding
    layers: tuple[Layer, ...]  # in order
    activation: Activation  # between any two layers
    output: Output  # after the last one

    def apply(self, embeddings: F32) -> F32:
        """Return the head's number, float32[n], for each embedding, float32[n, dimension] of norm 1."""
        scores = np.empty(len(embeddings), np.float32)
        for start in range(0, len(embeddings), ROWS):
            x = np.asarray(embeddings[start : start + ROWS], np.float32)
            for i, layer in enumerate(self.layers):
                x = (_activate(self.activation, x) if i else x) @ layer.weight + layer.bias
            scores[start : start + ROWS] = _sigmoid(x[:, 0]) if self.output == "sigmoid" else x[:, 0]
        return scores


def load_head(path: str, activation: Activation, output: Output) -> Head:
    """Read a head from a file: `.safetensors`, `.pth` or `.pt`; a local path or any fsspec URL.

    The state dict may be under `state_dict`, `model_state_dict`, or `model`, and its names may have any prefix.

    Raises RecipeError if the file cannot be read, contains code, is too large, or is not a chain of linear layers that
    ends in one output.
    """
    if not path.lower().endswith((".safetensors", ".pth", ".pt")):
        raise RecipeError(f"head {path}: found another kind of file; {_ACCEPTED}")
    content = read_file(f"head {path}:", path, MAX_BYTES, _ACCEPTED)
    names, layers = zip(*_chain(_state_dict(content, path), path), strict=True)
    merged = tuple(_merge(layers, _joints(names) if activation != "none" else [False] * (len(names) - 1)))
    return Head(hashlib.sha256(content).hexdigest(), len(merged[0].weight), merged, activation, output)


def _state_dict(content: bytes, path: str) -> dict[str, F32]:
    """Return the tensors by name, as float32. Never runs code in the file."""
    is_safe = path.lower().endswith(".safetensors")
    try:
        loaded = read_safetensors(content) if is_safe else read_torch_file(content, MAX_BYTES)
    except ValueError as error:
        remedy = "" if is_safe else ". To take a head out of a saved module: torch.save(module.state_dict(), …)"
        raise RecipeError(f"head {path}: found {error}; {_ACCEPTED}{remedy}") from error
    if isinstance(loaded, Mapping):
        loaded = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), loaded)
    if not isinstance(loaded, Mapping) or not loaded:
        raise RecipeError(f"head {path}: found {type(loaded).__name__} without tensors; {_ACCEPTED}")
    tensors = {}
    for key, value in loaded.items():
        if not (isinstance(key, str) and isinstance(value, np.ndarray) and value.dtype.kind == "f"):
            raise _wrong(path, loaded, f"{key} is {getattr(value, 'dtype', type(value).__name__)}, not floats")
        tensors[key] = np.asarray(value, np.float32)
        if not np.isfinite(tensors[key]).all():
            raise _wrong(path, loaded, f"{key} contains NaN or infinity")
    return tensors


def _chain(tensors: dict[str, F32], path: str) -> Iterator[tuple[str, Layer]]:
    parts: dict[str, dict[str, F32]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        parts.setdefault(name, {})[kind] = tensor
        if {"weight": 2, "bias": 1}.get(kind) != tensor.ndim:
            raise _wrong(path, tensors, f"{key} is not part of a linear layer")
    width = None
    for name in sorted(parts, key=lambda name: [int(s) if i % 2 else s for i, s in enumerate(_NUMBERS.split(name))]):
        if (weight := parts[name].get("weight")) is None:
            raise _wrong(path, tensors, f"{name} has a bias, but no weight")
        bias = parts[name].get("bias", np.zeros(len(weight), np.float32))
        if bias.shape != (len(weight),) or width not in (None, weight.shape[1]) or 0 in weight.shape:
            raise _wrong(path, tensors, f"{name or 'the layer'} does not fit the layer before it")
        width = len(weight)
        yield name, Layer(np.ascontiguousarray(weight.T), bias)
    if width != 1:
        raise _wrong(path, tensors, f"the last layer has {width} outputs")


def _joints(names: tuple[str, ...]) -> list[bool]:
    tails = [name.rpartition(".") for name in names]
    if len({parent for parent, _, _ in tails}) > 1 or not all(_NUMBERS.fullmatch(tail) for _, _, tail in tails):
        return [True] * (len(names) - 1)
    is_wide = [int(b) - int(a) > 1 for (_, _, a), (_, _, b) in itertools.pairwise(tails)]
    return is_wide if any(is_wide) else [True] * len(is_wide)


def _merge(layers: tuple[Layer, ...], joints: list[bool]) -> Iterator[Layer]:
    """Yield the layers; multiply those with nothing between them into one (in float64)."""
    weight, bias = (part.astype(np.float64) for part in layers[0])
    for layer, joint in zip(layers[1:], joints, strict=True):
        if joint:
            yield Layer(weight.astype(np.float32), bias.astype(np.float32))
            weight, bias = (part.astype(np.float64) for part in layer)
        else:
            if len(weight) * max(layer.weight.shape[1], layer.weight.size // 1000) > MAX_BYTES // 4:
                raise RecipeError(f"head: a layer with {len(weight)} inputs is too large to multiply with the next")
            weight, bias = weight @ layer.weight, bias @ layer.weight + layer.bias
    yield Layer(weight.astype(np.float32), bias.astype(np.float32))


def _activate(activation: Activation, x: F32) -> F32:
    if activation == "relu":
        return np.maximum(x, np.float32(0))
    if activation == "silu":
        return x * _sigmoid(x)
    from scipy.special import erf  # imported here, because it is slow

    return np.asarray(0.5 * x * (1 + erf(x.astype(np.float64) / math.sqrt(2))), np.float32)


def _sigmoid(x: F32) -> F32:
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, and 1 / infinity is the right 0
        return np.float32(1) / (np.float32(1) + np.exp(-x))


def _wrong(path: str, tensors: Mapping[Any, Any], problem: str) -> RecipeError:
    shown = [f"{str(key)[:80]} {list(getattr(value, 'shape', ()))}" for key, value in tensors.items()]
    keys = ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
    return RecipeError(f"head {path}: {one_line(problem, 300)}; found {keys}; {_ACCEPTED}")
