"""What auditing, publishing and forgetting read of a run."""

from dataclasses import dataclass

from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import Recipe
from curate.run.columns import table_names
from curate.run.context import RunContext
from curate.store.layout import caption_statistics_file
from curate.store.store import RunStore
from curate.store.tables import UnitTables


@dataclass(frozen=True)
class PublishSettings:
    """What auditing, publishing and forgetting read."""

    store: RunStore
    recipe: Recipe
    pool: Pool
    table_names: tuple[str, ...]  # the tables that each unit has
    has_blocklist: bool  # whether something is kept out on request

    @classmethod
    def of(cls, context: RunContext) -> "PublishSettings":
        """Return those of a run."""
        has_blocklist = bool(context.blocklist_key)
        return cls(context.store, context.recipe, context.pool, table_names(context), has_blocklist)

    def tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables."""
        return UnitTables(self.store, unit.index)

    def unit_files(self, unit: Unit) -> list[str]:
        """Return the files of a unit that are published."""
        files = [self.tables(unit).file(name) for name in self.table_names]
        return [*files, caption_statistics_file(unit.index)] if self.recipe.captions else files
