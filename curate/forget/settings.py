"""What forgetting and blocking read of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from curate.pool.plan import Unit
from curate.recipe.source import Source
from curate.run.columns import table_names
from curate.run.context import RunContext
from curate.store.store import RunStore
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class ForgetSettings:
    """What forgetting and blocking read of a run.

    Attributes:
        store: the run folder.
        table_names: the tables that each unit of the run has.
        has_images: whether the pool has images.
        sources: the recipe's sources, by name.
    """

    store: RunStore
    table_names: tuple[str, ...]
    has_images: bool
    sources: Mapping[str, Source]

    @classmethod
    def of(cls, context: RunContext) -> Self:
        """Return the settings of a run."""
        return cls(
            store=context.store,
            table_names=table_names(context),
            has_images=context.pool.images,
            sources={source.name: source for source in context.recipe.input},
        )

    def tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables."""
        return UnitTables(self.store, unit.index)
