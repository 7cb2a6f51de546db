"""What a package that adds kinds of things to curate may import; each name is resolved when it is first used.

The groups of entry points, and packages to copy, are in `.github/CONTRIBUTING.md`. Each interface says what it asks
for; what a kind raises becomes an error that names its package and line.
"""

import ast
import importlib
import inspect
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.base.errors import CurateError, RecipeError, RunError
    from curate.base.ids import digest, hash_uids
    from curate.base.process import process_cache
    from curate.captions.gates.gate import Candidates, Gate, Option
    from curate.captions.kinds.kind import CaptionKind
    from curate.decide.dedup.groups import Groups
    from curate.decide.dedup.passes.dedup_pass import ImageNearness, KeyPass, Nearness, NearnessKind
    from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun
    from curate.decide.statistics.exact_sums import ExactSums
    from curate.decide.statistics.statistic import Statistic
    from curate.emit.layout import Shard
    from curate.emit.output_format import OutputFormat
    from curate.emit.settings import EmitSettings
    from curate.llm.engine import Answer, Engine, EngineKind, EngineOptions, Request
    from curate.pool.formats.input_format import (
        Batch,
        FileColumns,
        InputFormat,
        InputPart,
        InputSample,
        PartRows,
        PlannedSource,
    )
    from curate.read.faults import InputFault
    from curate.read.listing import list_files
    from curate.recipe.files import read_whole
    from curate.recipe.measure import OnEmbeddings
    from curate.recipe.relate import OnKept
    from curate.recipe.section import Column, Section, UserFile, UserPath, UserPaths
    from curate.recipe.source import Source
    from curate.relate.relation import Asking, EmbeddedRows, Model, Reading, Relation
    from curate.run.units import Combine, Fold, WorkerLocation
    from curate.signals.on_embeddings import Method, check_unchanged, embedding_signal
    from curate.signals.signal import (
        Built,
        Collector,
        Embeddings,
        EmbeddingSignal,
        ImageObserver,
        ImageSignal,
        Known,
        ModelSignal,
        PrecomputedSignal,
        SignalKind,
        SignalOutput,
        TextSignal,
        image_signal,
    )
    from curate.store.facts import SelectionWords
    from curate.store.tables import UnitTables
    from pipelines.engines.base import PipelineEngine

# fmt: off
__all__ = [
    "Answer", "Asking", "Batch", "Built", "Candidates", "CaptionKind", "Choice", "Collector", "Column", "Combine",
    "CurateError", "EmbeddedRows", "EmbeddingSignal", "Embeddings", "EmitSettings", "Engine", "EngineKind",
    "EngineOptions", "ExactSums", "FileColumns", "Fold", "Gate", "Groups", "ImageNearness", "ImageObserver",
    "ImageSignal", "InputFault", "InputFormat", "InputPart", "InputSample", "KeyPass", "Known", "Method", "Model",
    "ModelSignal", "Nearness", "NearnessKind", "OnEmbeddings", "OnKept", "Option", "Outcome", "OutputFormat",
    "PartRows", "PipelineEngine", "PlannedSource", "PrecomputedSignal", "Reading", "RecipeError",
    "Relation", "Request", "RowsLeft", "RunError", "Section", "Selection", "SelectionRun", "SelectionWords",
    "Shard", "SignalKind", "SignalOutput", "Source", "Statistic", "TextSignal", "UnitTables", "UserFile",
    "UserPath", "UserPaths", "WorkerLocation", "check_unchanged", "digest", "embedding_signal", "hash_uids",
    "image_signal", "list_files", "process_cache", "read_whole",
]
# fmt: on


_RENAMED = {"Place": "WorkerLocation"}  # names of earlier versions


@cache
def _modules() -> dict[str, str]:
    """Return the module that has each name, as the imports above say it for type checkers."""
    [block] = (node for node in ast.parse(inspect.getsource(sys.modules[__name__])).body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"curate.plugins.{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return __getattr__(_RENAMED[name])
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_modules()[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
