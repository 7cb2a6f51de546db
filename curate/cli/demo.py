"""`curate demo`: a small pool, drawn here, and a full run over it."""

import os
import sys
from importlib.resources import files
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from curate.cli.run import execute
from curate.demo.pool import write_pool
from curate.demo.score import Caught, score
from curate.errors import RecipeError
from curate.job import RUN_FILE
from curate.shards.commit import Folder


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Where to put the pool, the recipe and the run.")
    ] = "curate-demo",
) -> None:
    """Draw a small pool with planted defects and curate it: offline, in about a minute."""
    pool, recipe, run = f"{out}/pool", f"{out}/recipe.yaml", f"{out}/run"
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error}") from None
    if not os.path.exists(f"{pool}/truth.parquet"):
        print(
            f"drawing 2,000 scenes with planted defects into {pool} (the pool is drawn, not photographed) …",
            file=sys.stderr,
        )
        write_pool(pool, samples=2000, seed=0, shards=4)
    if not os.path.exists(recipe):
        with open(recipe, "w", encoding="utf-8") as file:
            file.write(files("curate.demo").joinpath("recipe.yaml").read_text(encoding="utf-8"))
    print(f"curate run {recipe} --out {run}", file=sys.stderr)
    execute(recipe, run, None, [], "stat", [])
    counts = Folder(run).read_json(RUN_FILE)["counts"]
    print("\nWhat the rules caught of what was planted (a wrong caption takes a model to find: a later rule's work)")
    Console(width=max(100, Console().width)).print(_table(score(f"{pool}/truth.parquet", run), list(counts)))
    print(f"The pool is in {pool}, the recipe in {recipe}; change a rule and run it again with --reuse {run}.")


def _table(caught: list[Caught], rules: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("planted")
    table.add_column("rows", justify="right")
    for rule in rules:
        table.add_column(rule, justify="right")
    for line in caught:
        table.add_row(line.defect, str(line.planted), *(str(line.rules.get(rule, "·")) for rule in rules))
    return table
