"""The names that a plugin package may import. Each is imported from its own module when it is first used.

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
    from curate.base.errors import CurateError as CurateError
    from curate.base.errors import RecipeError as RecipeError
    from curate.base.errors import RunError as RunError
    from curate.base.ids import digest as digest
    from curate.base.ids import hash_uids as hash_uids
    from curate.base.process import process_cache as process_cache
    from curate.captions.gates.gate import Candidates as Candidates
    from curate.captions.gates.gate import Gate as Gate
    from curate.captions.gates.gate import Option as Option
    from curate.captions.kinds.kind import CaptionKind as CaptionKind
    from curate.decide.dedup.groups import Groups as Groups
    from curate.decide.dedup.passes.dedup_pass import ImageNearness as ImageNearness
    from curate.decide.dedup.passes.dedup_pass import KeyPass as KeyPass
    from curate.decide.dedup.passes.dedup_pass import Nearness as Nearness
    from curate.decide.dedup.passes.dedup_pass import NearnessKind as NearnessKind
    from curate.decide.draw.selection import Choice as Choice
    from curate.decide.draw.selection import Outcome as Outcome
    from curate.decide.draw.selection import RowsLeft as RowsLeft
    from curate.decide.draw.selection import Selection as Selection
    from curate.decide.draw.selection import SelectionRun as SelectionRun
    from curate.decide.statistics.statistic import ExactSums as ExactSums
    from curate.decide.statistics.statistic import Statistic as Statistic
    from curate.emit.layout import Shard as Shard
    from curate.emit.output_format import OutputFormat as OutputFormat
    from curate.emit.settings import EmitSettings as EmitSettings
    from curate.llm.engine import Answer as Answer
    from curate.llm.engine import Engine as Engine
    from curate.llm.engine import EngineKind as EngineKind
    from curate.llm.engine import EngineOptions as EngineOptions
    from curate.llm.engine import Request as Request
    from curate.pool.formats.input_format import Batch as Batch
    from curate.pool.formats.input_format import FileColumns as FileColumns
    from curate.pool.formats.input_format import InputFormat as InputFormat
    from curate.pool.formats.input_format import InputPart as InputPart
    from curate.pool.formats.input_format import InputSample as InputSample
    from curate.pool.formats.input_format import PartRows as PartRows
    from curate.pool.formats.input_format import PlannedSource as PlannedSource
    from curate.read.errors import InputError as InputError
    from curate.read.listing import list_files as list_files
    from curate.recipe.files import read_whole as read_whole
    from curate.recipe.measure import OnEmbeddings as OnEmbeddings
    from curate.recipe.relate import OnKept as OnKept
    from curate.recipe.section import Column as Column
    from curate.recipe.section import Section as Section
    from curate.recipe.section import UserFile as UserFile
    from curate.recipe.section import UserPath as UserPath
    from curate.recipe.section import UserPaths as UserPaths
    from curate.recipe.source import Source as Source
    from curate.relate.relation import Asking as Asking
    from curate.relate.relation import EmbeddedRows as EmbeddedRows
    from curate.relate.relation import Model as Model
    from curate.relate.relation import Reading as Reading
    from curate.relate.relation import Relation as Relation
    from curate.run.units import Combine as Combine
    from curate.run.units import Fold as Fold
    from curate.run.units import WorkerLocation as WorkerLocation
    from curate.signals.on_embeddings import Method as Method
    from curate.signals.on_embeddings import check_unchanged as check_unchanged
    from curate.signals.on_embeddings import embedding_signal as embedding_signal
    from curate.signals.signal import BuildContext as BuildContext
    from curate.signals.signal import Collector as Collector
    from curate.signals.signal import Embeddings as Embeddings
    from curate.signals.signal import EmbeddingSignal as EmbeddingSignal
    from curate.signals.signal import IdentifyContext as IdentifyContext
    from curate.signals.signal import ImageObserver as ImageObserver
    from curate.signals.signal import ImageSignal as ImageSignal
    from curate.signals.signal import ModelSignal as ModelSignal
    from curate.signals.signal import PrecomputedSignal as PrecomputedSignal
    from curate.signals.signal import SignalKind as SignalKind
    from curate.signals.signal import SignalOutput as SignalOutput
    from curate.signals.signal import TextSignal as TextSignal
    from curate.signals.signal import image_signal as image_signal
    from curate.store.facts import SelectionWords as SelectionWords
    from curate.store.tables import UnitTables as UnitTables
    from pipelines.engines.base import PipelineEngine as PipelineEngine


_RENAMED = {  # names of earlier versions
    "Built": "BuildContext",
    "InputFault": "InputError",
    "Known": "IdentifyContext",
    "Place": "WorkerLocation",
}


@cache
def _modules() -> dict[str, str]:
    """Return the module that has each name, as the imports above say it for type checkers; sorted by name."""
    [block] = (node for node in ast.parse(inspect.getsource(sys.modules[__name__])).body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return dict(sorted((alias.name, str(node.module)) for node in imports for alias in node.names))


__all__ = list(_modules())


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
