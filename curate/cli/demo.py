"""`curate demo`: a small pool, drawn here, and a full run over it."""

import os
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated

import typer

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
    print("\n".join(_lines(score(f"{pool}/truth.parquet", run), list(counts))))
    print(f"The pool is in {pool}, the recipe in {recipe}; change a rule and run it again with --reuse {run}.")


def _lines(caught: list[Caught], rules: list[str]) -> Iterator[str]:
    """A line for each kind of defect: how many, and which rules they fell to."""
    yield f"{'planted':20} {'rows':>5}  fell to"
    for line in caught:
        fell = ", ".join(f"{rule} {line.rules[rule]}" for rule in rules if line.rules.get(rule))
        yield f"{line.defect:20} {line.planted:>5}  {fell}"
