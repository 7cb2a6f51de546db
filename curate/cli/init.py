"""`curate init`: a commented recipe, or an engine's options; `curate schema`: the JSON schema of recipes."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean
from curate.recipe.files import shipped_folder


def kinds() -> list[str]:
    """Return the names of the package's recipes."""
    names = (file.name for file in files("pipelines.recipes").iterdir())
    return sorted(name.removesuffix(".yaml").replace("_", "-") for name in names if name.endswith(".yaml"))


def engines() -> list[str]:
    """Return the names of the engines whose options the package has."""
    return sorted(path.stem for path in shipped_folder("infra").glob("*.yaml") if path.name != "prices.yaml")


def init(
    kind: Annotated[
        str | None,
        Argument(metavar="[KIND]", help=f"One of {', '.join(kinds())}; by default basic.", autocompletion=kinds),
    ] = None,
    on: Annotated[
        str | None,
        Option(metavar="ENGINE", help=f"Options of an engine instead: {', '.join(engines())}.", autocompletion=engines),
    ] = None,
    out: Annotated[
        str | None, Option("--out", "-o", metavar="FILE", help="The file; by default recipe.yaml, or ENGINE.yaml.")
    ] = None,
) -> None:
    """Write a commented recipe, or an engine's options, to begin with."""
    if on is None:
        kind, out = kind or "basic", out or "recipe.yaml"
        if kind not in kinds():
            raise RecipeError(f"no recipe {kind!r}; {did_you_mean(kind, kinds())}accepted: {', '.join(kinds())}")
        _write(files("pipelines.recipes").joinpath(f"{kind.replace('-', '_')}.yaml").read_text("utf-8"), out, kind)
        print(f"wrote {out}: edit it for your pool, then\n")
        run = f"curate run {out} --out {Path(out).stem}-run"
        what = "checks it; shows inputs and the expected yield, and writes nothing"
        print(f"  {f'curate plan {out}':{len(run)}}   {what}\n  {run}   runs it")
        return
    if kind is not None:
        raise RecipeError(f"{kind} --on {on}: accepted: a recipe's name or --on ENGINE, not both")
    if on not in engines():
        raise RecipeError(f"--on {on}: no such engine; {did_you_mean(on, engines())}accepted: {', '.join(engines())}")
    out = out or f"{on}.yaml"
    text = (shipped_folder("infra") / f"{on}.yaml").read_text("utf-8")
    _write(text, out, f"my-{on}")
    command = next(line for line in text.splitlines() if "curate run" in line)  # how it is used, at its head
    print(f"wrote {out}: edit it for your machines, then\n")
    print(f"  {command.strip('# ').partition(' --on ')[0]} --on {out}")


def _write(text: str, out: str, other: str) -> None:
    """Write a new file. Raises RecipeError where there is one, whose name may be that of `other`."""
    try:
        with open(out, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(f"--out {out}: already exists; accepted: a new file, such as --out {other}.yaml") from None
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error}") from None


def schema() -> None:
    """Print the JSON schema of recipes, for editors.

    With it, an editor completes keys, shows what they mean, and marks faults.
    """
    from curate.recipe.json_schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
