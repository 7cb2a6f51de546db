"""The settings for measuring, and the keys of the tables that it writes.

A key is a digest of everything that determines a table: the unit's inputs, the recipe's settings for reading them, and
the models and libraries that determine values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.base import ids
from curate.base.registry import version
from curate.base.stages import STAGE, VERSIONS
from curate.pool.plan import Pool, Unit
from curate.recipe.measure import Measure
from curate.recipe.source import Source, find_source
from curate.run.columns import score_schema, table_names
from curate.run.context import RunContext
from curate.signals.registry import find_signals
from curate.signals.signal import EmbeddingSignal, PrecomputedSignal, Signal, filled_columns

# Further inputs of `samples` only.
_SAMPLES = "uids of rows that could not be read; original_sha256; fields"
TABLES = tuple(STAGE["measure"].tables)


@dataclass(frozen=True)
class MeasureSettings:
    """The settings for measuring."""

    sources: tuple[Source, ...]
    measure: Measure
    pool: Pool
    models: Mapping[str, Any]  # identity of each model, by signal
    signals: tuple[Signal, ...]  # in the order of their columns
    tables: tuple[str, ...]  # the tables of TABLES in this run

    @classmethod
    def of(cls, context: RunContext) -> "MeasureSettings":
        recipe = context.recipe
        signals = find_signals(recipe.measure, context.models)
        tables = tuple(name for name in table_names(context) if name in TABLES)
        return cls(context.sources, recipe.measure, context.pool, context.models, signals, tables)

    def source(self, unit: Unit) -> Source:
        return find_source(self.sources, unit.source)

    def read_columns(self, source: str) -> pa.Schema:
        """Return the columns of `scores` that are read from a source."""
        groups = [group for group in self.pool.groups[source] if group.join is None]
        return pa.schema([self.pool.scores.field(name) for group in groups for name in group.columns])

    @cached_property
    def score_schema(self) -> pa.Schema:
        return score_schema(self.signals, self.pool)

    # ---- keys

    def key(self, table: str, unit: Unit) -> str:
        if table == "scores":
            signal_columns = {name for group in self.pool.groups[unit.source] for name in group.columns}
            others = [[field.name, str(field.type)] for field in self.pool.scores if field.name not in signal_columns]
            return ids.digest([*self.signal_keys(unit).items(), *([others] if others else [])])
        if table == "embeddings":
            keys = self.signal_keys(unit)
            return ids.digest([[model.name, keys[model.name]] for model in self.measure.kept])
        return ids.digest([self._rows_key(unit), self.value_versions])  # both are written in one pass

    def signal_keys(self, unit: Unit) -> dict[str, str]:
        """Return the key of the columns of each signal, and of each of the pool's groups, by name."""
        supplied = {signal.name for signal in self.signals if isinstance(signal, PrecomputedSignal)}
        keys: dict[str, Any] = {signal.name: signal.key for signal in self.signals}
        for signal in self.signals:
            if (signal.of if isinstance(signal, EmbeddingSignal) else signal.name) in supplied:
                keys[signal.name] = ids.digest([signal.key, [part.sidecar_fingerprint for part in unit.parts]])
        for group in self.pool.groups[unit.source]:
            columns = [[name, str(self.pool.scores.field(name).type)] for name in group.columns]
            keys[group.name] = ids.digest(columns if group.join is None else [group.digest, columns])
        return {name: ids.digest([self._rows_key(unit), key]) for name, key in keys.items()}

    def _rows_key(self, unit: Unit) -> str:
        source = self.source(unit).row_fields()
        image = self.measure.image
        decoding = [image.decode, image.max_pixels, f"pillow {version('pillow')}"] if self.pool.has_images else []
        decoding += [image.jpeg_side] if image.jpeg_side else []
        return ids.digest([VERSIONS["measure"], unit.key, source, decoding, self.pool.has_images])

    @cached_property
    def value_versions(self) -> list[Any]:
        """The signals and library versions that determine values of `samples`."""
        hashing = [f"scipy {version('scipy')}"] if self.pool.has_images and self.measure.image.phash else []
        filling = [signal.key for signal in self.signals if filled_columns([signal])]
        return [_SAMPLES, filling, hashing, version("pillow") if self.pool.has_images else ""]
