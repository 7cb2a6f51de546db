"""A finished run, opened again from its folder: the same context and units, without the pool.

In: a run folder. Out: the run's context, and its units, without parts: what reads tables (rules, deduplication, counts, draws)
works on them as it did in the run; what would read the pool does not.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import RecipeError
from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import Recipe, parse_recipe
from curate.run.context import RunContext
from curate.store.facts import RunFacts, read_facts
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore


def open_context(folder: RunStore) -> tuple[RunContext, list[Unit]]:
    """Return a finished run's context, and its units. Raises RecipeError where its recipe is of another version."""
    facts = read_facts(folder)
    sources = [source for source, count in facts.units for _ in range(count)]
    units = [Unit(index, source, ()) for index, source in enumerate(sources)]
    context = RunContext(
        recipe=_recipe(folder, facts),
        pool=Pool(
            key=facts.keys["pool"],
            images=facts.pool.images,
            rows=None,
            supplied=frozenset(facts.pool.supplied),
            scores=_score_columns(folder, facts.pool.scores),
            output=None,
            embeddings=facts.pool.embeddings,
        ),
        store=folder,
        metadata_key=facts.metadata.digest if facts.metadata else "",
        models=facts.models,
        engine_ids=facts.engine_ids,
        blocklist_key=facts.forgotten.key if facts.forgotten else "",
    )
    return context, units


def _recipe(folder: RunStore, facts: RunFacts) -> Recipe:
    try:
        return parse_recipe(facts.recipe, f"{folder.url}/{RUN_FILE}")
    except RecipeError as error:
        raise RecipeError(
            f"{error}\nThis is a run of curate {facts.curate}, and this version does not read its recipe: run the recipe again "
            f"into another folder with --reuse {folder.url}, or open the run with curate {facts.curate}"
        ) from None


def _score_columns(folder: RunStore, names: list[str]) -> pa.Schema:
    """Return those columns of table `scores`, with their types."""
    files = folder.files("tables/scores") if names else []
    if not files:
        return pa.schema([])
    with folder.open(files[0]) as file:
        there = pq.read_schema(file)
    return pa.schema([there.field(name) for name in names])
