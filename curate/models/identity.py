"""Find an open_clip model by its name and hash its files, without loading it.

Its identity is in run.json and in the keys of tables. Weights named by a tag or a hub are downloaded by open_clip.
"""

import difflib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from curate.base.errors import RecipeError, RunError, naming
from curate.base.registry import version
from curate.base.wording import one_line
from curate.models.weights import alone_with, find_digest
from curate.recipe.files import MAX_CONFIG, read_whole
from curate.recipe.measure import Embedder
from curate.recipe.section import fault, path_at

ONNX = "onnx:"
_CONFIG = "open_clip_config.json"
_LIBRARIES = ("open_clip_torch", "torch", "torchvision", "pillow")


# Where the path begins in a model's name, if it is a folder, and in `pretrained`, if it is a file instead of a tag.
_FOLDER = path_at(lambda model: next((len(kind) for kind in ("local-dir:", ONNX) if model.startswith(kind)), None))
_FILE = path_at(lambda name: 0 if "/" in name or name.endswith((".pt", ".pth", ".bin", ".safetensors")) else None)


class OpenClip(Embedder):
    """A model of open_clip or ONNX Runtime, and how to run it."""

    runtime_fields: ClassVar[frozenset[str]] = frozenset({"device", "batch"})

    model: Annotated[str, Field(min_length=1), _FOLDER] = Field(examples=["ViT-B-32"])
    """A model's name in open_clip, `hf-hub:ORG/REPO`, `local-dir:FOLDER`, or `onnx:FOLDER`. FOLDER is relative to the
    recipe's folder."""
    pretrained: Annotated[str, _FILE] | None = Field(None, examples=["laion2b_s34b_b79k"])
    """Weights: a tag of open_clip, or a file. Required if `model` is a name in open_clip."""
    device: str = Field("auto", examples=["cuda:0"], pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto`, `cpu`, `mps`, `cuda` (all GPUs), or one GPU, such as `cuda:0`. The device changes scores only by
    rounding."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", examples=["bf16"])
    """Precision of the model. `auto`: `fp32` on CPUs, `fp16` on GPUs."""
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=65536, strict=True)] = Field("auto", examples=[256])
    """Images and texts per batch. The batch size changes scores only by rounding. `auto`: depends on the device."""
    context_length: int | None = Field(None, examples=[248], gt=0, le=4096, strict=True)
    """Maximum tokens of a caption. If it is larger than the model's own, curate stretches the position embeddings, as
    Long-CLIP does. null: the model's own."""

    @property
    def is_onnx(self) -> bool:
        return self.model.startswith(ONNX)

    @property
    def where(self) -> str:
        """Its position in the recipe, for messages."""
        return f"measure.clip {self.name!r}"

    def resolve_precision(self, device: str) -> str:
        """Return the precision; `auto` is fp32 on a CPU and for ONNX graphs, and fp16 on a GPU."""
        return ("fp32" if self.is_onnx or device == "cpu" else "fp16") if self.precision == "auto" else self.precision

    @model_validator(mode="after")
    def _fits_onnx(self) -> Self:
        graphs, accepted = f"{ONNX}FOLDER runs its graphs unchanged", "accepted: a model of open_clip"
        refused = {
            "pretrained": (self.pretrained, f"{ONNX}FOLDER has its own weights"),
            "precision": (self.precision not in ("auto", "fp32"), f"{graphs}; accepted: auto, fp32"),
            "context_length": (self.context_length, f"{graphs}, and their positions cannot be stretched; {accepted}"),
            "words": (self.scores_words, f"{graphs}, and they do not output their attention; {accepted}"),
            "device": (self.device == "mps", "ONNX Runtime does not support it; accepted: auto, cpu, cuda, cuda:N"),
        }
        for key, (is_given, reason) in refused.items():
            if self.is_onnx and is_given:
                raise fault(key, f"{getattr(self, key)!r} is given, but {reason}")
        return self


def identify(options: OpenClip, device: str) -> dict[str, Any]:
    """Return the identity of a model on a device; see `curate.models.clip_model.identify`."""
    config, preprocess, weights = _find_files(options)
    context = config.get("text_cfg", {}).get("context_length", 77)
    size = config.get("vision_cfg", {}).get("image_size")
    preprocess = preprocess | ({} if size is None else {"size": size})  # the model's own size, like in open_clip
    if options.context_length and options.context_length <= context:
        length = options.context_length
        raise RecipeError(f"{options.where}: context_length {length} must be above the model's own {context}")
    return {
        "model": options.model if not options.model.startswith("local-dir:") else "local-dir",
        "pretrained": "file" if weights == options.pretrained else options.pretrained,
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "weights": {"file": os.path.basename(weights), "sha256": find_digest(weights)},
        "preprocess": preprocess,
        "dimension": config["embed_dim"],
        "context_length": options.context_length or context,
        "precision": options.resolve_precision(device),
        "versions": {name: version(name) for name in _LIBRARIES},
        "device": device,
    }


def check_weights(options: OpenClip, identity: Mapping[str, Any]) -> None:
    """Raise RunError if this machine's weights differ from those identified, RecipeError if they are missing."""
    *_, path = _find_files(options)
    check_digests(options.where, {path: find_digest(path)}, {path: identity["weights"]["sha256"]})


def check_digests(where: str, digests: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise RunError, which begins with `where`, if files have other digests than expected; both are by name."""
    for name in sorted({*digests, *expected}):
        digest, other = str(digests.get(name)), str(expected.get(name))
        if digest != other:
            both = f"{name} has sha256 {digest[:16]}… on {platform.node()}, but the run uses one with {other[:16]}…"
            raise RunError(f"{where}: {both}; accepted: the same files on all machines, until the run is finished")


def resolve_device(options: OpenClip) -> str:
    """Return the device; `auto` depends on this machine. Raises RecipeError if the requested one is missing."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    return choose_device(options, counts, f"torch {torch.__version__}", "auto, cpu, or a device of this machine")


def choose_device(options: OpenClip, counts: Mapping[str, int], library: str, accepted: str) -> str:
    """Return the first kind of device that a library finds for `auto`; otherwise the requested device.

    Raises RecipeError if that is missing.
    """
    if options.device == "auto":
        return next(kind for kind, count in counts.items() if count)
    kind, _, number = options.device.partition(":")
    if int(number or 0) >= counts[kind]:
        found = f"{counts['cuda']} CUDA devices" if counts["cuda"] else "no CUDA device"
        request = f"the recipe sets device: {options.device}, but {library} finds {found} on this machine"
        raise RecipeError(f"{options.where}: {request}; accepted: {accepted}")
    return options.device


def _find_files(options: OpenClip) -> tuple[dict[str, Any], dict[str, Any], str]:
    try:
        with naming(options.where), alone_with(f"{options.model} {options.pretrained}"):
            return _find(options)
    except (OSError, ValueError, RuntimeError, LookupError) as error:  # from the hub, the network, JSON
        name = f"{options.model}{f' ({options.pretrained})' if options.pretrained else ''}"
        problem = f"{name} cannot be found or downloaded: {one_line(error, 400).rstrip('.')}"
        remedy = "Without network: give a folder as model (local-dir:FOLDER, onnx:FOLDER) or a file of weights as "
        remedy += "pretrained, or put its files into the Hugging Face cache. HF_HUB_OFFLINE=1 prevents downloads"
        raise RecipeError(f"{options.where}: {problem}. {remedy}") from None


def _find(options: OpenClip) -> tuple[dict[str, Any], dict[str, Any], str]:
    import open_clip
    from open_clip import factory, pretrained
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    schema, name = factory.parse_model_name(options.model)
    defaults = vars(PreprocessCfg())
    if schema is not None:
        if options.pretrained:
            raise RecipeError(f"pretrained is only for plain model names; {options.model} has its own weights")
        if schema == "local-dir":
            path, weights = Path(name) / _CONFIG, factory._find_checkpoint_in_dir(Path(name))
            if not path.is_file():
                graphs = "; it has ONNX graphs: write onnx:FOLDER" if any(Path(name).glob("**/*.onnx")) else ""
                raise RecipeError(f"{name}: not a folder with {_CONFIG}{graphs}")
        else:
            path, weights = (pretrained.download_pretrained_from_hf(name, filename=file) for file in (_CONFIG, None))
        settings = json.loads(read_whole(str(path), MAX_CONFIG))
        if not weights:
            raise RecipeError(f"{name}: no weights; accepted: open_clip_model.safetensors or another checkpoint there")
        preprocess = merge_preprocess_dict(defaults, settings.get("preprocess_cfg", {}))
        return settings["model_cfg"], preprocess, str(weights)
    config = open_clip.get_model_config(name.replace("/", "-"))
    if config is None:
        near = ", ".join(difflib.get_close_matches(name, open_clip.list_models(), 3, 0))
        raise RecipeError(f"open_clip has no model {name!r}; similar names: {near}")
    if options.pretrained is not None and os.path.isfile(options.pretrained):
        return config, defaults, options.pretrained
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = open_clip.get_pretrained_cfg(name, options.pretrained) if options.pretrained else None
    if not tag:
        missing = f"no pretrained {options.pretrained!r}" if options.pretrained else "pretrained is missing"
        raise RecipeError(f"{missing}; accepted for {name}: {', '.join(tags) or 'no tag'}, or a file of weights")
    return config, merge_preprocess_dict(defaults, tag), str(open_clip.download_pretrained(tag))
