"""What an open_clip model is: found by its name, hashed from its files, never loaded here.

In: a section `OpenClip` of a recipe. Out: its identity, which run.json shows and table keys hold. Weights that are
named by a tag or a hub are downloaded, as open_clip does.
"""

import difflib
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from curate.base.errors import RecipeError, RunError, needing
from curate.base.wording import one_line
from curate.models.weights import alone_with, find_digest
from curate.recipe.measure import Embedder
from curate.recipe.section import fault, path_at

ONNX = "onnx:"
_LIBRARIES = ("open_clip_torch", "torch", "torchvision", "pillow")


def _folder_start(model: str) -> int | None:
    """Return where a model's name is a folder's path."""
    return next((len(kind) for kind in ("local-dir:", ONNX) if model.startswith(kind)), None)


def _weights_start(weights: str) -> int | None:
    """Return where weights are a file's path, and no tag."""
    return 0 if "/" in weights or weights.endswith((".pt", ".pth", ".bin", ".safetensors")) else None


class OpenClip(Embedder):
    """A model of open_clip or ONNX Runtime, and how it is run."""

    runtime_fields: ClassVar[frozenset[str]] = frozenset({"device", "batch"})

    model: Annotated[str, Field(min_length=1), path_at(_folder_start)] = Field(examples=["ViT-B-32"])
    """A name of open_clip; `hf-hub:ORG/REPO`; `local-dir:FOLDER` in its layout; `onnx:FOLDER`. FOLDER is local,
    relative to the recipe's."""
    pretrained: Annotated[str, path_at(_weights_start)] | None = Field(None, examples=["laion2b_s34b_b79k"])
    """A tag of open_clip, or a file of weights. Only for a plain model name, which needs it."""
    device: str = Field("auto", examples=["cuda:0"], pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto`, `cpu`, `mps`, `cuda` (all GPUs) or one such as `cuda:0`. Changes scores only by rounding."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", examples=["bf16"])
    """Precision of weights, sums. `auto`: `fp32` on a CPU, `fp16` on a GPU."""
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=65536, strict=True)] = Field("auto", examples=[256])
    """Images and texts per batch; changes scores only by rounding. `auto` chooses by the device."""
    context_length: int | None = Field(None, examples=[248], gt=0, le=4096, strict=True)
    """Tokens of the text tower, stretched for longer captions (Long-CLIP). null: the model's own."""

    @property
    def is_onnx(self) -> bool:
        """Whether it is a folder of graphs, which ONNX Runtime runs."""
        return self.model.startswith(ONNX)

    @model_validator(mode="after")
    def _fits_onnx(self) -> Self:
        if not self.is_onnx:
            return self
        graphs, accepted = f"{ONNX}FOLDER is computed as its graphs are", "a model of open_clip"
        if self.pretrained is not None:
            raise fault("pretrained", f"{self.pretrained!r} is given, and {ONNX}FOLDER has weights of its own")
        if self.precision not in ("auto", "fp32"):
            raise fault("precision", f"{self.precision} is given, and {graphs}; accepted: auto, fp32, or {accepted}")
        if self.context_length is not None:
            raise fault("context_length", f"{graphs}, whose positions cannot be stretched; accepted: {accepted}")
        if self.scores_words:
            raise fault("words", f"{graphs}, which do not tell their attention; accepted: {accepted}")
        if self.device == "mps":
            raise fault("device", "mps is given, and ONNX Runtime has none; accepted: auto, cpu, cuda, cuda:N")
        return self


def identify(options: OpenClip, is_local: bool = True) -> dict[str, Any]:
    """See `curate.models.clip_model.identify`."""
    where = f"measure.clip {options.name!r}"
    with needing(f"{where}: a library is not installed", "'.[clip]' in a checkout of curate"):
        import open_clip  # noqa: F401
        import torch  # noqa: F401

        versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    device = resolve_device(options) if is_local or options.device == "auto" else options.device
    config, preprocess, weights = _find_files(options)
    context = config.get("text_cfg", {}).get("context_length", 77)
    size = config.get("vision_cfg", {}).get("image_size")
    preprocess = preprocess | ({} if size is None else {"size": size})  # the model's own, as open_clip does it
    if options.context_length and options.context_length <= context:
        raise RecipeError(f"{where}: context_length {options.context_length} is not above the model's own {context}")
    return {
        "model": options.model if not options.model.startswith("local-dir:") else "local-dir",
        "pretrained": "file" if _is_file(options) else options.pretrained,
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
        "weights": {"file": os.path.basename(weights), "sha256": find_digest(weights)},
        "preprocess": preprocess,
        "dimension": config["embed_dim"],
        "context_length": options.context_length or context,
        "precision": resolve_precision(options, device),
        "versions": versions,
        "device": device,
    }


def check_weights(options: OpenClip, identity: Mapping[str, Any]) -> None:
    """Raise RunError where this machine's weights are not those that were identified, RecipeError where it has none."""
    _, _, weights = _find_files(options)
    digest, expected = find_digest(weights), identity["weights"]["sha256"]
    if digest != expected:
        raise RunError(
            f"measure.clip {options.name!r}: {weights} has sha256 {digest[:16]}… on {platform.node()}, and the run "
            f"is of weights with {expected[:16]}…; accepted: the same file on all machines, until the run is finished"
        )


def resolve_device(options: OpenClip) -> str:
    """Return the device that `auto` is on this machine. Raises RecipeError where another one is not there."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if options.device == "auto":
        return next(name for name, is_available in available.items() if is_available)
    kind, _, number = options.device.partition(":")
    if not available[kind] or (number and int(number) >= torch.cuda.device_count()):
        devices = f"{torch.cuda.device_count()} CUDA devices" if available["cuda"] else "no CUDA device"
        what = f"device {options.device} is requested, and torch {torch.__version__} finds {devices} here"
        raise RecipeError(f"measure.clip {options.name!r}: {what}; accepted: auto, cpu, or a device that is there")
    return options.device


def resolve_precision(options: OpenClip, device: str) -> str:
    """Return the precision that `auto` is: fp32 on a CPU and fp16 on a GPU."""
    return ("fp32" if device == "cpu" else "fp16") if options.precision == "auto" else options.precision


def _is_file(options: OpenClip) -> bool:
    return options.pretrained is not None and os.path.isfile(options.pretrained)


def _find_files(options: OpenClip) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return what `_find` does. Raises RecipeError."""
    where = f"measure.clip {options.name!r}"
    try:
        with alone_with(f"{options.model} {options.pretrained}"):
            return _find(options)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    except Exception as error:  # of many kinds: of the hub, of the network, of JSON
        name = f"{options.model}{f' ({options.pretrained})' if options.pretrained else ''}"
        raise RecipeError(
            f"{where}: {name} cannot be found or downloaded: {one_line(error, 400).rstrip('.')}. Without network: give "
            "a folder as model (local-dir:FOLDER, onnx:FOLDER) or a file of weights as pretrained, or put its files "
            "into the Hugging Face cache; with HF_HUB_OFFLINE=1 no download is tried"
        ) from None


def _find(options: OpenClip) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the model's configuration, its preprocessing and its file of weights."""
    import open_clip
    from open_clip import factory

    schema, name = factory.parse_model_name(options.model)
    defaults = vars(open_clip.transform.PreprocessCfg())
    if schema is not None:
        if options.pretrained:
            raise RecipeError(f"pretrained is for plain names; {options.model} has its own weights")
        if schema == "local-dir":
            path = Path(name) / "open_clip_config.json"
            if not path.is_file():
                graphs = "; it has ONNX graphs: write onnx:FOLDER" if any(Path(name).glob("**/*.onnx")) else ""
                raise RecipeError(f"{name}: no folder with open_clip_config.json{graphs}")
            files = json.loads(path.read_text("utf-8")), factory._find_checkpoint_in_dir(Path(name))
        else:
            files = factory._get_hf_config(name), open_clip.download_pretrained_from_hf(name)
        settings, weights = files
        if not weights:
            raise RecipeError(f"{name}: no weights; accepted: open_clip_model.safetensors or another checkpoint there")
        preprocess = factory.merge_preprocess_dict(defaults, settings.get("preprocess_cfg", {}))
        return settings["model_cfg"], preprocess, str(weights)
    config = open_clip.get_model_config(name.replace("/", "-"))
    if config is None:
        known = open_clip.list_models()
        close = ", ".join(difflib.get_close_matches(name, known, 3))
        hint = f"near: {close}" if close else f"it has {len(known)}, such as {', '.join(known[:3])}"
        raise RecipeError(f"open_clip has no model {name!r}; {hint}")
    if _is_file(options):
        return config, defaults, str(options.pretrained)
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = open_clip.get_pretrained_cfg(name, options.pretrained) if options.pretrained else None
    if not tag:
        missing = f"no pretrained {options.pretrained!r}" if options.pretrained else "pretrained is missing"
        raise RecipeError(f"{missing}; accepted for {name}: {', '.join(tags) or 'no tag'}, or a file of weights")
    return config, factory.merge_preprocess_dict(defaults, tag), str(open_clip.download_pretrained(tag))
