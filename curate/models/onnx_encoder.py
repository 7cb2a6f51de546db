"""Encode images and texts with ONNX Runtime, from a folder with CLIP as ONNX graphs (`onnx:DIR`, see `onnx_folder`).

On a CPU, threads (one per core) share a batch; each GPU has its own session. Two graphs are faster than a single one
(model.onnx), which must also compute a text with every batch of images, and an image with every batch of texts.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from curate.base.errors import RunError
from curate.base.numeric.arrays import F32
from curate.base.process import CORES, ModelPool, threads
from curate.models.encoder import Encoded, Encoder, Side, Tokens, pad
from curate.models.identity import OpenClip, choose_device
from curate.models.onnx_folder import OnnxFolder, Tokenizer, check_weights, identify
from curate.models.weights import open_session

__all__ = ("check_weights", "identify", "open_encoder", "resolve_device")

_BATCH = {"cpu": 32, "cuda": 256}
_PIECE = 4  # minimum of images or texts per thread: with fewer, matrix products are slow
_CUDA = "CUDAExecutionProvider"
_KINDS = {"float": np.float32, "float16": np.float16, "int64": np.int64, "int32": np.int32}


def resolve_device(options: OpenClip) -> str:
    """Return the device; `auto` depends on this machine. Raises RecipeError if the requested one is missing."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    counts = {"cuda": _count_gpus() if _CUDA in providers else 0, "cpu": 1}
    accepted = "auto or cpu; to use a GPU of this machine, install onnxruntime-gpu instead of onnxruntime"
    library = f"onnxruntime {onnxruntime.__version__} (with {', '.join(providers)})"
    return choose_device(options, counts, library, accepted)


def _count_gpus() -> int:
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0
    except (OSError, AttributeError):
        return 0


class _Graph(NamedTuple):
    """A session, and its inputs that calls do not provide."""

    where: str  # its origin, for messages
    session: Any
    output: str
    dimension: int  # of the output's vectors
    fillers: dict[str, npt.NDArray[Any]]  # for inputs that do not affect the output

    def run(self, feeds: dict[str, npt.NDArray[Any]]) -> F32:
        """Return unit vectors, float32 [n, dimension]; `feeds` may have more inputs than the graph. Raises RunError."""
        feeds = self.fillers | feeds
        kinds = {node.name: _KINDS[node.type.removeprefix("tensor(").rstrip(")")] for node in self.session.get_inputs()}
        inputs = {name: feeds[name].astype(kind, copy=False) for name, kind in kinds.items()}
        features = self.session.run([self.output], inputs)[0].astype(np.float32, copy=False)
        rows = max(map(len, inputs.values()))  # fillers have one row
        if features.shape != (rows, self.dimension):
            accepted = f"{[rows, self.dimension]} (batch size, and projection_dim in config.json)"
            raise RunError(f"{self.where}: {self.output} has the shape {list(features.shape)}; accepted: {accepted}")
        length = np.linalg.norm(features, axis=1, keepdims=True)
        unit: F32 = features / np.maximum(length, np.float32(1e-12))  # like torch's `normalize`
        return unit


class _Graphs(NamedTuple):
    images: _Graph
    texts: _Graph
    is_cut: bool  # the graph accepts texts of any length up to the context


@dataclass
class OnnxEncoder(Encoder):
    """CLIP as ONNX graphs."""

    _folder: OnnxFolder
    _tokenizer: Tokenizer
    _use: Callable[[], AbstractContextManager[_Graphs]]
    _threads: int

    def _tokenize(self, texts: list[str]) -> Tokens:
        return pad([self._tokenizer.encode(text) for text in texts], self._folder.context_length)

    def _start(self, side: Side, items: Any) -> Encoded:
        encode = partial(self._in_halves, partial(self._encode, side))
        piece = max(_PIECE, -(-len(items) // self._threads))
        pieces = [items[at : at + piece] for at in range(0, len(items), piece)]
        parts = list((threads("onnx").map if self._threads > 1 else map)(encode, pieces))
        return lambda: np.concatenate([half for part in parts for half in part])

    def _encode(self, side: Side, items: Any) -> F32:
        with self._use() as graphs:
            if side == "images":
                return graphs.images.run({"pixel_values": self._folder.pixels.normalize(items)})
            mask = np.arange(items.shape[1]) <= (items == self._tokenizer.end).argmax(axis=1)[:, None]
            return graphs.texts.run({"input_ids": items, "attention_mask": mask})


def open_encoder(options: OpenClip, device: str) -> OnnxEncoder:
    """Return the model, loaded on a device. Raises RecipeError or RunError if it cannot be loaded."""
    folder = OnnxFolder.of(options)
    tokenizer = Tokenizer(folder.tokenizer)
    load = partial(_load, folder, tokenizer)
    if device == "cpu":
        loaded = load(device)

        def use() -> AbstractContextManager[_Graphs]:
            return nullcontext(loaded)
    else:
        devices = [f"cuda:{number}" for number in range(_count_gpus())] if device == "cuda" else [device]
        use = ModelPool(load, lambda: devices).use
    with use() as graphs:
        is_cut = graphs.is_cut
    batch = _BATCH[device.partition(":")[0]] if options.batch == "auto" else options.batch
    threads = CORES if device == "cpu" else 1
    return OnnxEncoder(folder.dimension, folder.pixels.view, batch, is_cut, folder, tokenizer, use, threads)


def _load(folder: OnnxFolder, tokenizer: Tokenizer, device: str) -> _Graphs:
    sessions = [open_session(path, device) for path in folder.graphs]
    shapes = {node.name: node.shape for session in sessions for node in session.get_inputs()}
    outputs = {node.name for session in sessions for node in session.get_outputs()}
    if not {"pixel_values", "input_ids"} <= {*shapes} <= {"pixel_values", "input_ids", "attention_mask"}:
        accepted = "pixel_values, input_ids, and optionally attention_mask"
        raise RunError(f"{folder.where}: the graphs have inputs {', '.join(shapes)}; accepted: {accepted}")
    if not {"image_embeds", "text_embeds"} <= outputs:
        accepted = "image_embeds and text_embeds, from a model that was exported with its projections"
        raise RunError(f"{folder.where}: the graphs have outputs {', '.join(sorted(outputs))}; accepted: {accepted}")
    if any(isinstance(shape[0], int) for shape in shapes.values()):
        raise RunError(f"{folder.where}: the graphs have a fixed batch size; accepted: graphs for batches of any size")
    word = pad([tokenizer.encode("a")], folder.context_length)
    is_cut = not isinstance(shapes["input_ids"][1], int)
    fillers: dict[str, npt.NDArray[Any]] = {
        "pixel_values": folder.pixels.normalize([folder.pixels.view(Image.new("RGB", (8, 8)))]),
        "input_ids": word.ids[:, : word.counts[0]] if is_cut else word.ids,
    }
    fillers["attention_mask"] = np.ones_like(fillers["input_ids"])
    sides = (sessions[0], "image_embeds"), (sessions[-1], "text_embeds")
    images, texts = (_Graph(folder.where, *side, folder.dimension, fillers) for side in sides)
    for graph in (images, texts):  # a model that cannot run should fail when it is loaded
        graph.run({})
    return _Graphs(images, texts, is_cut)
