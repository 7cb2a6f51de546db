"""`curate demo`: a small pool, drawn here, and a full run over it."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import Annotated

import typer

from curate.cli.run import execute
from curate.demo.pool import write_pool
from curate.demo.score import Caught, Rate, rate, score
from curate.errors import RecipeError
from curate.report.page import write_report
from curate.store.facts import read_facts
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore
from curate.wording import format_bytes

_TRUTH = "truth.parquet"  # what a pool is finished by

_FREE = "accepted: a new or empty folder, or an earlier demo's"


def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Where to put the pool, the recipe and the run.")
    ] = "curate-demo",
) -> None:
    """Draw a small pool with planted defects and curate it: offline, in about a minute."""
    pool, recipe, run = f"{out}/pool", f"{out}/recipe.yaml", f"{out}/run"
    try:
        _check_free(out)
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error}") from None
    if not os.path.exists(recipe):
        _write_recipe(out, recipe)
    if not os.path.exists(f"{pool}/{_TRUTH}"):
        print(
            f"drawing 2,000 scenes with planted defects into {pool} (the pool is drawn, not photographed) …",
            file=sys.stderr,
        )
        write_pool(pool, samples=2000, seed=0, shards=4)
    print(f"curate run {recipe} --out {run}", file=sys.stderr)
    execute(recipe, run, None, [], "stat", [])
    counts = read_facts(RunStore(run)).counts
    caught = score(f"{pool}/{_TRUTH}", run)
    print("\nWhat became of what was planted")
    print("\n".join(_lines(caught, list(counts))))
    print(
        "\nHow right the rules were: precision is the share of dropped rows with a planted defect (of duplicates: that show"
    )
    print(
        "what the row that stays shows); recall that of the defects which a rule is for that fell to it, or before it"
    )
    print("\n".join(_rates(rate(caught, list(counts)))))
    page, size = write_report(run)
    print(f"\n{page} shows all of it on one page ({format_bytes(size)}): open it in a browser.")
    print(f"The pool is in {pool}, the recipe in {recipe}; change a rule and run it again with --reuse {run}.")


def _check_free(out: str) -> None:
    """Raise RecipeError where the folder holds something that no demo has put there."""
    if not os.path.isdir(out) or not os.listdir(out):
        return
    if os.path.exists(f"{out}/{RUN_FILE}"):
        raise RecipeError(f"--out {out}: is a run; {_FREE}")
    if os.path.isfile(f"{out}/pool/{_TRUTH}"):
        return
    recipe = f"{out}/recipe.yaml"  # the first thing that a demo writes: one that was interrupted goes on
    if os.path.isfile(recipe):
        with open(recipe, encoding="utf-8", errors="replace") as file:
            if file.readline() == _packaged_recipe().splitlines(keepends=True)[0]:
                return
    raise RecipeError(f"--out {out}: holds {min(os.listdir(out))!r} and no earlier demo; {_FREE}")


def _packaged_recipe() -> str:
    return files("curate.demo").joinpath("recipe.yaml").read_text(encoding="utf-8")


def _write_recipe(out: str, recipe: str) -> None:
    """The recipe, and the model that it scores with; without both where open_clip is not installed."""
    text = _packaged_recipe()
    if find_spec("open_clip") and find_spec("torch"):
        with as_file(files("curate.demo").joinpath("clip")) as model:
            shutil.copytree(model, f"{out}/clip", dirs_exist_ok=True)
    else:
        print("without CLIP scores, which find wrong captions: pip install 'curate[clip]'", file=sys.stderr)
        text = "".join(line for line in text.splitlines(keepends=True) if "clip" not in line)
    with open(recipe, "w", encoding="utf-8") as file:
        file.write(text)


def _rates(rates: list[Rate]) -> Iterator[str]:
    yield f"{'rule':12} {'dropped':>7} {'precision':>9} {'planted':>7} {'recall':>7}"
    for line in rates:
        precision, recall = ("–" if share is None else f"{share:.1%}" for share in (line.precision, line.recall))
        yield f"{line.rule:12} {line.dropped:>7} {precision:>9} {line.planted:>7} {recall:>7}"


def _lines(caught: list[Caught], rules: list[str]) -> Iterator[str]:
    """A line for each kind of defect: how many, and which rules they fell to."""
    yield f"{'planted':20} {'rows':>5}  fell to"
    for line in caught:
        fell = ", ".join(f"{rule} {line.rules[rule]}" for rule in rules if line.rules.get(rule))
        yield f"{line.defect:20} {line.planted:>5}  {fell}"
