"""What a package that adds kinds of things to curate may import; each name is resolved when it is first used.

| a kind of | entry-point group | the entry point names |
|---|---|---|
| signal | `curate.signals` | an object of SignalKind |
| input format | `curate.formats` | an object of a class derived from InputFormat |
| deduplication pass | `curate.passes` | an object of KeyPass (by equal keys) or NearnessKind (by nearness) |
| caption engine | `curate.caption_engines` | an object of EngineKind |
| caption | `curate.caption_kinds` | a class derived from CaptionKind |
| output format | `curate.output_formats` | an object of a class derived from OutputFormat |

An entry point is named as its kind's key, which names it in a recipe. What a kind raises becomes an error that names its package
and line. The docstring of each interface says what it asks for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

_NAMES = {
    "curate.base.errors": ("CurateError", "RecipeError", "RunError"),
    "curate.base.ids": ("digest",),
    "curate.base.process": ("process_cache",),
    "curate.captions.kinds.kind": ("CaptionKind",),
    "curate.decide.dedup.groups": ("Groups",),
    "curate.decide.dedup.passes.dedup_pass": ("ImageNearness", "KeyPass", "Nearness", "NearnessKind"),
    "curate.emit.layout": ("Shard",),
    "curate.emit.output_format": ("OutputFormat",),
    "curate.emit.settings": ("EmitSettings",),
    "curate.llm.engine": ("Answer", "Engine", "EngineKind", "EngineOptions", "Request"),
    "curate.pool.files.faults": ("InputFault",),
    "curate.pool.files.listing": ("list_files",),
    "curate.pool.formats.input_format": (
        *("Batch", "FileColumns", "InputFormat", "InputPart", "InputSample", "PartRows", "PlannedSource"),
    ),
    "curate.recipe.files": ("read_whole",),
    "curate.recipe.measure": ("OnEmbeddings",),
    "curate.recipe.section": ("Column", "Section", "UserFile", "UserPath", "UserPaths"),
    "curate.recipe.source": ("Source",),
    "curate.signals.image_signal": ("ImageObserver", "image_signal"),
    "curate.signals.on_embeddings": ("Method", "check_unchanged", "embedding_signal"),
    "curate.signals.signal": (
        *("Built", "Collector", "EmbeddingSignal", "Embeddings", "ImageSignal", "Known", "ModelSignal"),
        *("PrecomputedSignal", "SignalKind", "SignalOutput", "TextSignal"),
    ),
    "curate.store.tables": ("UnitTables",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
