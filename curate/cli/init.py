"""`curate init`: a commented recipe to begin with; `curate schema`: what editors know of recipes."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from curate.errors import RecipeError


def kinds() -> list[str]:
    """Return the names of the package's recipes."""
    names = (file.name for file in files("pipelines.recipes").iterdir())
    return sorted(name.removesuffix(".yaml").replace("_", "-") for name in names if name.endswith(".yaml"))


def init(
    kind: Annotated[
        str, typer.Argument(metavar="[KIND]", help=f"One of {', '.join(kinds())}.", autocompletion=kinds)
    ] = "basic",
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The recipe to write.")] = "recipe.yaml",
) -> None:
    """Write a commented recipe to begin with."""
    if kind not in kinds():
        raise RecipeError(f"there is no recipe {kind!r}; accepted: {', '.join(kinds())}")
    text = files("pipelines.recipes").joinpath(f"{kind.replace('-', '_')}.yaml").read_text(encoding="utf-8")
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(f"--out {out}: is there already; accepted: a new file, such as --out {kind}.yaml") from None
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error}") from None
    print(f"wrote {out}: edit what it says of your pool, then\n")
    print(f"  curate plan {out}                  checks it; shows inputs and the expected yield, and writes nothing")
    print(f"  curate run {out} --out {Path(out).stem}-run    runs it")


def schema() -> None:
    """Print the JSON schema of recipes, by which editors complete keys and mark faults."""
    from curate.recipe.json_schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
