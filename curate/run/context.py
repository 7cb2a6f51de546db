"""A run's constants, made once by the driver and sent to every worker: what the run is of, and where its files are.

Steps take from it what they read (each has a settings class, made by `of(context)`), and own the keys of what they write.
"""

from dataclasses import dataclass, field
from typing import Any

from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import Recipe
from curate.store.store import RunStore
from curate.store.tables import UnitTables

# Raised when a step's code changes what it writes.
VERSIONS = {"measure": 1, "matches": 1, "decisions": 1, "captions": 2, "shards": 1}


@dataclass(frozen=True)
class RunContext:
    """One run."""

    recipe: Recipe  # as resolved
    pool: Pool  # what all units have in common
    store: RunStore
    reuse: RunStore | None = None  # the run whose tables are adopted where their keys are equal
    metadata_key: str = ""  # digest of the metadata's entries; empty without `match`
    models: dict[str, Any] = field(default_factory=dict)  # what each signal's model is, by the signal's name
    engine_ids: dict[str, str] = field(default_factory=dict)  # each engine's model, and each template's version
    evaluation_key: str = ""  # digest of the evaluation set; empty without `dedup.against`
    blocklist_key: str = ""  # digest of what is forgotten (see `curate.store.forgotten`); empty where nothing is
    is_local_runner: bool = True  # whether the runner works on this machine alone

    def unit_tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables in the run folder, and in the run to reuse."""
        reuse = None
        if self.reuse is not None and unit.reuse_index is not None:
            reuse = UnitTables(self.reuse, unit.reuse_index)
        return UnitTables(self.store, unit.index, reuse)
