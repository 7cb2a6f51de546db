"""A finished run, opened again by what it left: the same context and units, without the pool.

In: a run folder. Out: the RunContext whose tables stand there, and its units, without parts: what looks at tables (rules,
deduplication, counts, draws) works on them as it did in the run; what would read the pool does not.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore


def open_ledger(folder: RunStore) -> tuple[RunContext, list[Unit]]:
    """The context of a finished run, and its units in order.

    Raises:
        RecipeError: the recipe in run.json is not one that this version knows.
    """
    run = folder.read_json(RUN_FILE)
    sources = [source for source, count in run["units"] for _ in range(count)]
    units = [Unit(index, source, ()) for index, source in enumerate(sources)]
    pool = run["pool"]
    context = RunContext(
        recipe=parse_recipe(run["recipe"], f"{folder.url}/{RUN_FILE}"),
        pool=Pool(
            key=run["keys"]["pool"],
            images=pool["images"],
            rows=None,
            brings=frozenset(pool["brings"]),
            scores=_score_columns(folder, pool["scores"]),
            output=None,
            embeddings=pool["embeddings"],
        ),
        store=folder,
        metadata_key=run["metadata"]["digest"] if run["metadata"] else "",
        models=run["models"],
        engine_ids=run["writers"],
        blocklist_key=run.get("forgotten", {}).get("key", ""),
    )
    return context, units


def _score_columns(folder: RunStore, names: list[str]) -> pa.Schema:
    """Those columns of table `scores`, with their types."""
    files = folder.files("tables/scores") if names else []
    if not files:
        return pa.schema([])
    with folder.open(files[0]) as file:
        there = pq.read_schema(file)
    return pa.schema([there.field(name) for name in names])
