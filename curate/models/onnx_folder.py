"""Read a folder with CLIP as ONNX graphs: `onnx:DIR`, in the layout of optimum and transformers.js.

In: `config.json`, `preprocessor_config.json`, `tokenizer.json`, and `vision_model.onnx` and `text_model.onnx`, or one
`model.onnx`, in DIR/onnx or in DIR. Out: the model's identity; `Pixels`, which preprocesses images; `Tokenizer`. Both
work like open_clip. An image is resized in its own mode, cropped like in torchvision, and then converted to RGB. Texts
are repaired by ftfy; then HTML entities are decoded and white space is reduced. If a caption contains the name of a
special token, this is plain text.
"""

import hashlib
import html
import json
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from curate.base.errors import RecipeError, reraised
from curate.base.registry import version
from curate.base.wording import one_line
from curate.models.identity import ONNX, OpenClip, check_digests
from curate.models.weights import find_digest, read_file

_ACCEPTED = "accepted: a folder with config.json, preprocessor_config.json, tokenizer.json, and the graphs: "
_ACCEPTED += "vision_model.onnx and text_model.onnx, or only model.onnx, in this folder or in its subfolder onnx"
_GRAPHS = ("vision_model.onnx", "text_model.onnx"), ("model.onnx",)
_LIBRARIES = ("tokenizers", "ftfy", "pillow", "numpy")
_MAX_JSON = 64 << 20  # bytes
_NORMALIZERS = ["NFC", "Replace", "Lowercase"]  # of OpenAI's tokenizer; open_clip's cleaning already does the same
# Protobuf's bytes of an entry `location`, which names a file of weights beside the graph, and the name's length
_LOCATION = re.compile(rb"\n\x08location\x12([\x00-\xff])")


class _TextConfig(BaseModel):
    max_position_embeddings: int = Field(77, ge=2, strict=True)  # transformers omits defaults


class _Config(BaseModel):
    model_type: Literal["clip"]  # its text tower is causal
    projection_dim: int = Field(512, ge=2, strict=True)
    text_config: _TextConfig = _TextConfig()


@dataclass(frozen=True)
class OnnxFolder:
    """The content of a folder. Invalid files raise RecipeError."""

    where: str  # prefix of messages
    graphs: tuple[Path, ...]  # of images and of texts, or one of both
    config: dict[str, Any]
    pixels: "Pixels"
    tokenizer: bytes  # tokenizer.json
    dimension: int  # of the embeddings
    context_length: int  # number of tokens, including begin and end

    @classmethod
    def of(cls, options: OpenClip) -> "OnnxFolder":
        where = f"{options.where}: {options.model}"
        folder = Path(options.model.removeprefix(ONNX))
        config = _read_json(folder / "config.json", where)
        try:
            settings = _Config.model_validate(config)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"]))
            raise RecipeError(f"{where}: config.json: {key}: {problem['msg']}, not {problem['input']!r:.80}") from None
        pixels = Pixels.of(_read_json(folder / "preprocessor_config.json", where), where)
        layouts = [[parent / name for name in names] for names in _GRAPHS for parent in (folder / "onnx", folder)]
        graphs = next((paths for paths in layouts if all(path.is_file() for path in paths)), None)
        if graphs is None:
            raise RecipeError(f"{where}: no graphs; {_ACCEPTED}")
        tokenizer = _read(folder / "tokenizer.json", where)
        context_length = settings.text_config.max_position_embeddings
        return cls(where, tuple(graphs), config, pixels, tokenizer, settings.projection_dim, context_length)

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each graph and of each file of weights that it names, by name. Raises RecipeError."""
        digests = {}
        try:
            for graph in self.graphs:
                with open(graph, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    names = {os.fsdecode(content[m.end() : m.end() + m[1][0]]) for m in _LOCATION.finditer(content)}
                for name in (graph.name, *sorted(names)):
                    if not re.fullmatch(r"[\w.-]{1,127}", name) or name in (".", ".."):
                        where = f"{self.where}: {graph.name}"
                        raise RecipeError(f"{where} names weights in {name[:100]!r}; accepted: a file in its folder")
                    digests[name] = find_digest(str(graph.parent / name))
        except (OSError, ValueError) as error:  # ValueError for an empty file
            raise RecipeError(f"{self.where}: {graph}: {one_line(error)}") from None
        return digests


def identify(options: OpenClip, device: str) -> dict[str, Any]:
    """Return the identity of a model on a device; see `curate.models.clip_model.identify`."""
    import onnxruntime

    folder = OnnxFolder.of(options)
    files = folder.digests()
    digest = "".join(sorted(files.values()))
    if len(files) > 1:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return {
        "model": "onnx",
        "pretrained": None,
        "config": hashlib.sha256(json.dumps(folder.config, sort_keys=True).encode()).hexdigest(),
        "weights": {"file": ", ".join(graph.name for graph in folder.graphs), "sha256": digest, "files": files},
        "tokenizer": hashlib.sha256(folder.tokenizer).hexdigest(),
        "preprocess": vars(folder.pixels) | {"resample": int(folder.pixels.resample)},
        "dimension": folder.dimension,
        "context_length": folder.context_length,
        "precision": "fp32",
        "versions": {"onnxruntime": onnxruntime.__version__, **{name: version(name) for name in _LIBRARIES}},
        "device": device,
    }


def check_weights(options: OpenClip, identity: Mapping[str, Any]) -> None:
    """See `curate.models.identity.check_weights`."""
    folder = OnnxFolder.of(options)
    files = folder.digests() | {"tokenizer.json": hashlib.sha256(folder.tokenizer).hexdigest()}
    check_digests(folder.where, files, identity["weights"]["files"] | {"tokenizer.json": identity["tokenizer"]})


def _read(path: Path, where: str) -> bytes:
    return read_file(f"{where}: {path.name}", str(path), _MAX_JSON, _ACCEPTED)


def _read_json(path: Path, where: str) -> dict[str, Any]:
    with reraised(RecipeError, f"{where}: {path.name} is not a JSON object", ValueError, TypeError, RecursionError):
        return dict(json.loads(_read(path, where)))


@dataclass(frozen=True)
class Pixels:
    """The preprocessing of images by preprocessor_config.json."""

    size: int | tuple[int, int]  # the shortest side, or height and width, pixels
    crop: tuple[int, int] | None  # height and width
    resample: Image.Resampling
    factor: float | None  # multiplies pixels; None divides them by 255
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "Pixels":
        try:
            if not config.get("do_resize", True) or config.get("do_pad", False):
                raise ValueError("do_resize must be true, and do_pad must be false")
            size = _size(config["size"])
            crop = _size(config["crop_size"]) if config.get("do_center_crop", True) else None
            crop = (crop, crop) if isinstance(crop, int) else crop
            if crop is not None and np.greater(crop, size).any():
                raise ValueError(f"crop_size {crop} is larger than size {size}")
            if crop is None and isinstance(size, int):
                raise ValueError(f"without do_center_crop, size {config['size']} gives images of different shapes")
            factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
            mean, std = (
                tuple(float(v) for v in config[f"image_{name}"]) if config.get("do_normalize", True) else (default,) * 3
                for name, default in (("mean", 0.0), ("std", 1.0))
            )
            if len(mean) != 3 or len(std) != 3 or not all(std):
                raise ValueError("image_mean and image_std must each have three numbers, and no std may be 0")
            is_255th = abs(factor * 255 - 1) < 1e-6
            return cls(size, crop, Image.Resampling(config.get("resample", 3)), None if is_255th else factor, mean, std)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            accepted = "transformers' CLIPImageProcessor: size {shortest_edge: N} and crop_size, or size {height: N, "
            accepted += "width: N}; resample; rescale_factor; image_mean, image_std"
            raise RecipeError(f"{where}: preprocessor_config.json: {one_line(error)}; accepted: {accepted}") from None

    def view(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return an image of any mode as uint8 [height, width, 3]."""
        width, height = image.size
        if isinstance(self.size, int):
            longest = int(self.size * max(width, height) / min(width, height))
            new = (self.size, longest) if width <= height else (longest, self.size)
        else:
            new = self.size[1], self.size[0]
        if new != image.size:
            image = image.resize(new, self.resample)
        if self.crop is not None:
            top, left = (round((a - b) / 2) for a, b in zip((image.height, image.width), self.crop, strict=True))
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))

    def normalize(self, views: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return the model's input, float32 [n, 3, height, width], with the floats of ToTensor and Normalize."""
        pixels = np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2), np.float32)
        if self.factor is None:
            pixels /= np.float32(255)
        else:
            pixels *= np.float32(self.factor)
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        pixels -= mean
        pixels /= std
        return pixels


def _size(value: Any) -> int | tuple[int, int]:
    """Return the shortest side, or height and width. Raises ValueError, KeyError or TypeError."""
    if isinstance(value, dict):
        value = value["shortest_edge"] if set(value) == {"shortest_edge"} else (value["height"], value["width"])
    sides = value if isinstance(value, tuple) else (value,)
    if not all(type(side) is int and 0 < side <= 8192 for side in sides):
        raise ValueError(f"{value!r} is not a number of pixels from 1 to 8192")
    return value  # type: ignore[no-any-return]


class Tokenizer:
    """Tokenizes texts: open_clip's cleaning, then `tokenizer.json`."""

    def __init__(self, content: bytes) -> None:
        """Read a tokenizer.json. Raises ValueError if it is not a tokenizer of CLIP."""
        from tokenizers import Tokenizer, normalizers, processors

        self._tokenizer = Tokenizer.from_buffer(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a caption's own <|endoftext|> is text
        normalizer = json.loads(content).get("normalizer") or {}
        self._lowers = [step["type"] for step in normalizer.get("normalizers", [])] == _NORMALIZERS
        if self._lowers:
            self._tokenizer.normalizer = normalizers.Sequence([])
        ends, word = (self._tokenizer.encode(text).ids for text in ("", "a"))
        if len(ends) != 2 or ends != [word[0], word[-1]]:
            raise ValueError("tokenizer.json does not add a start and an end token to each text")
        self._tokenizer.post_processor = processors.Sequence([])
        self._begin, self.end = ends  # the ids around a text

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, including begin and end, without truncation."""
        import ftfy

        text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
        ids = self._tokenizer.encode(text.lower() if self._lowers else text).ids
        return [self._begin, *ids, self.end]
