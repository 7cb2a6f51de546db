"""What stays the same during a run: recipe, pool, identities, and where files are. The driver sends it to every worker.

Each step has a settings class. Its `of(context)` takes only what the step reads, and defines the keys of the step's
output. A finished run can be opened again from its folder, with the same context and units, but without the pool. Steps
that read tables (rules, deduplication, counts, draws) work on it as they do in the run. Steps that read the pool do
not.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.base.errors import RecipeError
from curate.base.registry import is_installed
from curate.pool.plan import Pool, Unit
from curate.recipe.deciding import SELECTIONS
from curate.recipe.measure import Measure
from curate.recipe.recipe import Recipe, parse_recipe
from curate.recipe.source import Source
from curate.run.units import WorkerLocation
from curate.store.chunks import chunks_of
from curate.store.facts import RunFacts, read_facts
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore
from curate.store.tables import ChunkTables, OpenTables, UnitTables


class StepSettings:
    """Base of a step's settings. It opens units' tables only in the run folder."""

    store: RunStore

    def tables(self, unit: Unit) -> UnitTables:
        return UnitTables(self.store, unit.index, last=unit.last)

    def open_tables(self, unit: Unit) -> OpenTables:
        """Return a unit's tables, which stay open for one pass."""
        return OpenTables(self.store, unit.index, last=unit.last)


@dataclass(frozen=True)
class RunContext:
    """Everything about one run that does not change while it works."""

    recipe: Recipe  # after defaults are filled in
    pool: Pool  # what all units have in common
    store: RunStore
    reuse: RunStore | None = None  # the run whose tables are reused if they have the same keys
    metadata_key: str = ""  # digest of the metadata entries; empty without `match`
    models: dict[str, Any] = field(default_factory=dict)  # identity of each signal's model, by the signal's name
    engine_ids: dict[str, str] = field(default_factory=dict)  # identities of engines' models, versions of templates
    evaluation_key: str = ""  # digest of the evaluation set; empty without `dedup.against`
    counts_key: str = ""  # digest of files that the selection reads, such as `balance.counts`; empty if there are none
    blocklist_key: str = ""  # digest of forgotten items (see `curate.store.forgotten`); empty if none
    retries_key: str = ""  # digest of the URLs to retry (see `download.retry_record`); empty if none
    place: WorkerLocation = WorkerLocation.THIS_PROCESS  # where steps run
    share: float = 1.0  # share of the pool in these units: less than 1 if a plan measures a part to estimate the whole
    lease: str = ""  # id of the lease that workers renew (see `curate.store.lease`); empty if none
    tables: tuple[str, ...] | None = None  # names of units' tables; None: the recipe determines them

    @property
    def sources(self) -> tuple[Source, ...]:
        """The recipe's sources, with their folders in the run."""
        reuse, is_alone = self.reuse.url if self.reuse else None, self.place is WorkerLocation.THIS_PROCESS
        return tuple(source.placed_in(self.store.url, reuse, is_alone) for source in self.recipe.input)

    def unit_tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables from the run folder, from a chunk in it, or from the run to reuse."""
        return UnitTables(self.store, unit.index, self._elsewhere(unit), unit.last)

    def open_tables(self, unit: Unit) -> OpenTables:
        """Return the same tables as `unit_tables`, which stay open for one pass."""
        return OpenTables(self.store, unit.index, self._elsewhere(unit), unit.last, self.tables)

    def _elsewhere(self, unit: Unit) -> UnitTables | None:
        reuse: UnitTables | None = None
        if self.reuse is not None and unit.reuse_index is not None:
            if unit.reuse_chunk is not None:
                reuse = ChunkTables(self.reuse, unit.reuse_index, chunk=unit.reuse_chunk)
            reuse = UnitTables(self.reuse, unit.reuse_index, reuse)
        if unit.chunk is not None:
            reuse = ChunkTables(self.store, unit.index, reuse, chunk=unit.chunk)
        return reuse


def open_context(folder: RunStore) -> tuple[RunContext, list[Unit]]:
    """Return a finished run's context and units. A chunk counts as one unit.

    Signals from packages that are not installed are left out. Raises RecipeError if this version cannot read the
    recipe.
    """
    facts = read_facts(folder)
    sources = [source for source, count in facts.units for _ in range(count)]
    chunks = chunks_of(facts.units_per_file or [1] * len(sources))
    units = [Unit(first, sources[first], (), last=None if first == last else last) for first, last in chunks]
    files = folder.files("tables/scores") if facts.pool.scores else []
    columns = folder.schema(files[0]) if files else ()
    pool = Pool(  # without its row groups, because nothing is read or joined again
        key=facts.keys["pool"],
        has_images=facts.pool.images,
        rows=None,
        supplied=frozenset(facts.pool.supplied),
        scores=pa.schema([field for field in columns if field.name in facts.pool.scores]),
        output=None,
        embeddings=facts.pool.embeddings,
    )
    context = RunContext(
        recipe=_recipe(folder, facts),
        pool=pool,
        store=folder,
        metadata_key=facts.metadata.digest if facts.metadata else "",
        models=facts.models,
        engine_ids=facts.engine_ids,
        blocklist_key=facts.forgotten.key if facts.forgotten else "",
        tables=tuple(name for name in facts.keys if name not in ("pool", "shards")),
    )
    return context, units


def check_signals(folder: RunStore, facts: RunFacts) -> None:
    """Raise RecipeError if a run used signals from packages that are not installed."""
    if unknown := [key for key in _unknown_signals(facts) if facts.recipe["measure"][key] not in (None, {}, [])]:
        packages = f"package {', '.join(_not_installed(facts))}" if _not_installed(facts) else "another package"
        used = f"signal{'s' * (len(unknown) > 1)} {', '.join(unknown)} of {packages}"
        raise RecipeError(f"{folder.url}: this run used {used}, which is not installed; install it")


def _unknown_signals(facts: RunFacts) -> list[str]:
    """Return the keys of `measure` that no installed signal has, whether they are used or not."""
    return [key for key in facts.recipe.get("measure") or {} if key not in Measure.full().model_fields]


def _not_installed(facts: RunFacts) -> list[str]:
    """Return the packages that a run used and that are not installed, with their versions."""
    return [f"{name} {version}" for name, version in facts.packages.items() if not is_installed(name)]


def _recipe(folder: RunStore, facts: RunFacts) -> Recipe:
    measure = facts.recipe.get("measure") or {}
    installed = {key: value for key, value in measure.items() if key not in _unknown_signals(facts)}
    selection = facts.selection.key if facts.selection else None
    recipe = {key: value for key, value in facts.recipe.items() if key != selection or key in SELECTIONS.kinds()}
    try:
        return parse_recipe(recipe | {"measure": installed}, f"{folder.url}/{RUN_FILE}")
    except RecipeError as error:
        if missing := _not_installed(facts):
            problem = f"this run used package {', '.join(missing)}, which is not installed"
            raise RecipeError(f"{folder.url}: {problem}; install it ({error})") from None
        problem = f"This is a run of curate {facts.curate}, and this version does not read its recipe"
        remedy = f"run the recipe again into another folder with --reuse {folder.url}"
        raise RecipeError(f"{error}\n{problem}: {remedy}, or open the run with curate {facts.curate}") from None
