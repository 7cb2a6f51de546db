"""`curate init` writes a commented recipe or an engine's options; `curate schema` prints the JSON Schema of recipes."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from typer import Argument, Option

from curate.base.errors import RecipeError, reraised
from curate.base.wording import did_you_mean, one_line
from curate.recipe.files import shipped_folder
from curate.recipe.source import FORMATS, Source, UnknownSource

_OPTIONS = 4  # number of a format's options that a recipe shows as comments


def kinds() -> list[str]:
    """Return the names of the recipes in the package."""
    names = (file.name for file in files("pipelines.recipes").iterdir())
    return sorted(name.removesuffix(".yaml").replace("_", "-") for name in names if name.endswith(".yaml"))


def engines() -> list[str]:
    """Return the names of the engines for which the package has a file with options."""
    return sorted(path.stem for path in shipped_folder("infra").glob("*.yaml") if path.name != "prices.yaml")


_YOURS = "Your data: a file, folder, glob, or URL (write ./NAME if it has a recipe's name). Or a recipe's name"
_YOURS = f"{_YOURS}; default: basic. The recipes are {', '.join(kinds())}."
_ENGINE = f"Write the options of this engine: {', '.join(engines())}."


def init(
    kind: Annotated[str | None, Argument(metavar="PATH|NAME", help=_YOURS, autocompletion=kinds)] = None,
    on: Annotated[str | None, Option(metavar="ENGINE", help=_ENGINE, autocompletion=engines)] = None,
    out: Annotated[str | None, Option("--out", "-o", metavar="FILE")] = None,
) -> None:
    """Write a recipe for the user's data, a copy of a recipe in the package, or an engine's options."""
    if on is None:
        kind, out = kind or "basic", out or "recipe.yaml"
        if kind in kinds():
            _write(_shipped(kind), out, kind)
        else:
            text, name = _recipe_for(kind, out)
            _write(text, out, name)
        print(f"wrote {out}; edit it for your pool, then run\n")
        run = f"curate run {out} --out {Path(out).stem}-run"
        purpose = "checks the recipe, and shows the inputs and how many samples it keeps"
        print(f"  {f'curate plan {out}':{len(run)}}   {purpose}\n  {run}   runs it")
        return
    if kind is not None:
        raise RecipeError(f"{kind} --on {on}: accepted: a path, a recipe's name, or --on ENGINE; not both")
    if on not in engines():
        raise RecipeError(f"--on {on}: no such engine; {did_you_mean(on, engines())}accepted: {', '.join(engines())}")
    out = out or f"{on}.yaml"
    text = (shipped_folder("infra") / f"{on}.yaml").read_text("utf-8")
    _write(text, out, f"my-{on}")
    command = next(line for line in text.splitlines() if "curate run" in line)  # in the comment at its beginning
    print(f"wrote {out}; edit it for your machines, then run\n")
    print(f"  {command.strip('# ').partition(' --on ')[0]} --on {out}")


def _shipped(name: str) -> str:
    return files("pipelines.recipes").joinpath(f"{name.replace('-', '_')}.yaml").read_text("utf-8")


def _recipe_for(path: str, out: str) -> tuple[str, str]:
    from curate.download.lists import kind_of
    from curate.pool.formats.found_files import FoundFiles, read_head
    from curate.pool.registry import recognize

    if not re.search(r"://|[*?[{]", path):
        if not os.path.exists(path):
            accepted = f"{did_you_mean(path, kinds())}accepted: a path that exists, or {', '.join(kinds())}"
            raise RecipeError(f"{path}: no such file or folder, and no recipe {path!r}; {accepted}")
        path = os.path.abspath(path) if os.path.dirname(out) else path  # because paths are relative to the recipe
    listed = FoundFiles.look(path, {})
    if (recognized := recognize(listed)) is None:
        head = read_head(listed.names[0], {}) if len(listed.names) == 1 else None
        columns = ", which cannot be read" if head is None and kind_of(listed.path) else ""
        columns = columns if head is None else f" with columns {', '.join(head.column_names)}"
        sections = (str(kind.section.__doc__) for kind in FORMATS.kinds().values())
        accepted = "; ".join(re.split(r"[.:;]\s", text)[0] for text in sections)
        raise RecipeError(f"{path}: {listed.describe()}{columns[:300]}; no format reads this; accepted: {accepted}")
    key, recognition = recognized
    print(f"{path}: {listed.describe()}; format: {key}")
    stem = os.path.basename(os.path.abspath(path)).partition(".")[0]
    name = re.sub("^(?![A-Za-z_])", "pool-", re.sub("[^A-Za-z0-9_]+", "-", stem).strip("-")).strip("-")
    source = "\n    ".join(_source_lines({"name": name, "format": key, **recognition.keys}, recognition.columns))
    parts = re.fullmatch(
        r".*?^name: .*?\n(.*)^input:\n.*?^(?=\w)(.*)", _shipped(recognition.template), re.DOTALL | re.MULTILINE
    )
    assert parts
    begin = f"{one_line(f'# Written by curate init for {path}: {listed.describe()}')}.\nname: {name}\n{parts[1]}"
    return f"{begin}input:\n  - {source}\n{parts[2]}", name


def _source_lines(keys: dict[str, Any], columns: Sequence[str]) -> Iterator[str]:
    yield from (_yaml(key, value) for key, value in keys.items())
    if columns:
        yield one_line(f"# its columns: {', '.join(columns)}")[:140]
    fields = FORMATS.find(keys["format"]).section.model_json_schema()["properties"]
    others = [key for key in fields if key not in keys and key not in Source.model_fields]
    for key in others[:_OPTIONS]:
        about = fields[key]["description"].partition(". ")[0]
        yield f"# {_yaml(key, fields[key]['examples'][0]):<34}  # {about.rstrip('.')}"


def _yaml(key: str, value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=sys.maxsize)
    return f"{key}: " + text.removesuffix("\n").removesuffix("\n...")


def _write(text: str, out: str, other: str) -> None:
    """Write a new file. If it exists, raise RecipeError, which suggests the name `other`."""
    if os.path.lexists(out):
        raise RecipeError(f"--out {out}: already exists; accepted: a new file, such as --out {other}.yaml")
    with reraised(RecipeError, f"--out {out}: cannot be written", OSError), open(out, "x", encoding="utf-8") as file:
        file.write(text)


def schema() -> None:
    """Print the JSON Schema of recipes."""
    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12), with all installed kinds of signals, formats and engines.

    It accepts every recipe that curate accepts. `curate plan` finds other errors, such as unknown columns in rules.
    """
    from curate.recipe.recipe import Recipe

    schema = Recipe.full().model_json_schema()
    sections = schema["$defs"]
    for key, kind in FORMATS.kinds().items():
        properties = sections[kind.section.__name__]["properties"]
        properties["format"] = {"const": key, "description": properties["format"]["description"]}
    unknown = {"$ref": f"#/$defs/{UnknownSource.__name__}"}
    for choices in schema["properties"]["input"]["anyOf"]:
        source = choices.get("items", choices)
        source["oneOf"] = [choice for choice in source["oneOf"] if choice != unknown]
    del sections[UnknownSource.__name__]
    for section in sections.values():
        if "description" in section:
            section["description"] = section["description"].partition("\n\nAttributes:")[0]  # then for developers
    for section in schema["properties"].values():
        if section.get("type") == "object" or "$ref" in section:  # or null: a YAML key may have no value
            names = section.keys() - {"default", "description", "examples", "title"}
            section["anyOf"] = [{name: section.pop(name) for name in [*section] if name in names}, {"type": "null"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of curate"}
