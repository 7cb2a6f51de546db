"""The settings of captioning in a run, and the key of the tables that it writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.stages import VERSIONS
from curate.decide.rules.row_counts import count_columns
from curate.expressions.check import check_count
from curate.match.unit import MatchSettings
from curate.pool.plan import Unit
from curate.recipe.captions import Captions
from curate.recipe.gates import GATES
from curate.recipe.measure import Embedder
from curate.recipe.source import Source
from curate.run.columns import visible_columns
from curate.run.context import RunContext
from curate.signals.registry import find_signals
from curate.signals.signal import Signal
from curate.store.store import RunStore


@dataclass(frozen=True)
class CaptionSettings:
    """The settings of captioning in a run."""

    captions: Captions
    seed: int
    # Each engine's model, as tables name it, and each template's version; see `identify_engines`.
    engine_ids: Mapping[str, str]
    sources: tuple[Source, ...]
    visible: pa.Schema  # the columns that rules see
    match: MatchSettings | None  # None without match
    scorer: Embedder | None  # the model whose kept embeddings gates compare texts to, if any
    signals: tuple[Signal, ...]
    reuse: RunStore | None  # the run whose answers are reused

    @classmethod
    def of(cls, context: RunContext) -> "CaptionSettings":
        recipe = context.recipe
        assert recipe.captions is not None
        signals = find_signals(recipe.measure, context.models)
        named = recipe.captions.gates.of
        return cls(
            captions=recipe.captions,
            seed=recipe.seed,
            engine_ids=context.engine_ids,
            sources=context.sources,
            visible=visible_columns(recipe, signals, context.pool),
            match=MatchSettings.of(context) if recipe.match else None,
            scorer=next((model for model in recipe.measure.kept if model.name == named and model.encodes), None),
            signals=signals,
            reuse=context.reuse,
        )

    @property
    def has_models(self) -> bool:
        """Whether a model runs in the worker's process."""
        engines = (self.captions.engines[task.section.engine].section for task in self.captions.requested)
        return bool(self.captions.regions or self.scorer) or any(engine.is_local for engine in engines)

    @property
    def key_fields(self) -> list[Any]:
        """Everything that determines texts besides the kept rows, as plain data."""
        packages = (GATES.package(key) for key in GATES.kinds() if key not in self.captions.gates.off)
        return [VERSIONS["caption"], self.captions.cache_key_fields(self.engine_ids), *filter(None, packages)]

    def key(self, unit: Unit, decisions_key: str | None) -> str:
        """Return the key of a unit's `answers`, `captions` and `regions`, from the key of its `decisions`."""
        return ids.digest([decisions_key, unit.key, self.key_fields])


def check_captions(context: RunContext) -> None:
    """Check captions against the pool's columns. Raises RecipeError."""
    settings, pool = CaptionSettings.of(context), context.pool
    captions = settings.captions
    if not pool.has_images:
        names = [task.section.key for task in captions.requested if task.section.needs_images]
        names += ["regions"] if captions.regions else []
        names += ["output.syn_json"] if captions.output.syn_json else []
        if names:
            raise RecipeError(f"captions.{names[0]}: needs images, but the pool has none")
        for name in [] if pool.output is None else pool.output.names:
            if name.lower() in ("captions", "curated_caption"):
                raise RecipeError(f"captions: the pool has a column {name!r}, which captions would add; rename it")
    for task in captions.requested:
        if isinstance(task.section.per_row, str):
            columns = count_columns(settings.visible, settings.match is not None)
            check_count(f"captions.{task.name}.per_row", task.section.per_row, columns)
