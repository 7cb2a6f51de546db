"""`curate demo`: generates a small pool, and runs a recipe on it."""

import os
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

from typer import Option

from curate.ask.report.page import write_report
from curate.ask.text_pages import render_page
from curate.base.errors import RecipeError, reraised
from curate.base.process import at_interrupt
from curate.base.wording import format_bytes
from curate.cli.common import print_lines
from curate.cli.run import run as run_recipe
from curate.demo.pool import write_pool
from curate.demo.score import rate_rules, score
from curate.store.facts import read_facts
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore

_TRUTH = "truth.parquet"  # the last file of a pool
# The slowest kernels. While the pool is written, another process compiles them, which takes seconds once per machine.
_KERNELS = ("curate.base.numeric.text_hash", "curate.match.matcher")
_FREE = "accepted: a new or empty folder, or the folder of an earlier demo"


def demo(out: Annotated[str, Option("--out", "-o", metavar="DIR")] = "curate-demo") -> None:
    """Generate a small pool, curate it, and print which rules caught its defects."""
    pool, recipe, run = f"{out}/pool", f"{out}/recipe.yaml", f"{out}/run"
    with reraised(RecipeError, f"--out {out}: cannot be written", OSError):
        _check_free(out)
        os.makedirs(out, exist_ok=True)
    if not os.path.exists(recipe):
        _write_recipe(out, recipe)
    if not os.path.exists(f"{pool}/{_TRUTH}"):
        print(f"generating a pool of 2,000 pictures, some with defects on purpose, in {pool}", file=sys.stderr)
        compile_kernels = "; ".join(f"import {module}; {module}.compile_kernels()" for module in _KERNELS)
        command, silent = [sys.executable, "-c", compile_kernels], subprocess.DEVNULL
        at_interrupt(subprocess.Popen(command, stdout=silent, stderr=silent).kill)
        write_pool(pool, samples=2000, seed=0, shards=4)
    print(f"curate run {recipe} --out {run}", file=sys.stderr)
    run_recipe(recipe, run)
    counts = read_facts(RunStore(run)).counts
    caught = score(f"{pool}/{_TRUTH}", run)
    print_lines(*render_page("demo", caught=caught, rules=list(counts), rates=rate_rules(caught, list(counts))).lines)
    page, size = write_report(run)
    print(f"\nOpen {page} in a browser: it shows the whole run on one page ({format_bytes(size)}).")
    print(f"Change a rule in {recipe}, then run it again: curate run {recipe} --out {out}/run2 --reuse {run}")


def _check_free(out: str) -> None:
    if not os.path.isdir(out) or not os.listdir(out):
        return
    if os.path.exists(f"{out}/{RUN_FILE}"):
        raise RecipeError(f"--out {out}: is a run folder; {_FREE}")
    if os.path.isfile(f"{out}/pool/{_TRUTH}"):
        return
    recipe = Path(out, "recipe.yaml")  # a demo writes this file first, so that an interrupted demo can continue
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    if text.partition("\n")[0] != _packaged_recipe().partition("\n")[0]:
        raise RecipeError(f"--out {out}: contains {min(os.listdir(out))!r} and no earlier demo; {_FREE}")


def _packaged_recipe() -> str:
    return files("curate.demo").joinpath("recipe.yaml").read_text(encoding="utf-8")


def _write_recipe(out: str, recipe: str) -> None:
    """Write the CLIP model, and then the recipe, which shows that the folder is a demo's."""
    with as_file(files("curate.demo").joinpath("clip")) as model:
        shutil.copytree(model, f"{out}/clip", dirs_exist_ok=True)
    Path(recipe).write_text(_packaged_recipe(), encoding="utf-8")
