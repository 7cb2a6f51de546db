"""Local files that a recipe names: finds missing ones, and copies small ones to other machines.

Small files belong to signals and captions: heads, exemplars, clusters, lists, templates, examples. If a run works on
other machines, the run folder gets copies, and steps get a recipe that names the copies. Table keys do not depend on
where the files are. The run folder always has the metadata, blocklists and evaluation sets. Folders, CLIP weights and
`input` paths are not copied: they must be on a shared disk, or be URLs.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from curate.base import ids
from curate.base.errors import RecipeError
from curate.base.wording import format_bytes, pluralize
from curate.read.listing import list_files
from curate.recipe.captions import Captions
from curate.recipe.errors import locate
from curate.recipe.measure import Measure
from curate.recipe.recipe import Recipe
from curate.store.store import RunStore

MAX_BYTES = 64_000_000
_MISSING = "missing_file"
_MADE_BY = {  # the command that makes a file, by a pattern that matches its key
    r"match\.metadata": "`curate metadata build` makes one (see curate/match/README.md)",
    r"(measure\.clusters\.\w+|sample\.quotas)\.centroids": "`curate run` with relate.clusters makes models/NAME.npy",
}


@contextmanager
def naming_all_missing(recipe: Recipe) -> Iterator[None]:
    """Add all missing local files to a RecipeError from the block, each with the command that makes it."""
    try:
        yield
    except RecipeError as error:
        text = str(error)
        others = ""
        for key, path, missing_file in find_missing(recipe):
            command = next((f"; {remedy}" for pattern, remedy in _MADE_BY.items() if re.fullmatch(pattern, key)), "")
            if path in text or missing_file in text:
                text += command
            else:
                others += f"\n{key}: {missing_file}{command}"
        raise RecipeError(text + others) from None


def find_missing(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Return key, path and missing part of each local path in the recipe. Paths may have ranges and globs."""

    def check(path: str) -> str:
        if "://" not in path and not os.path.isdir(path):
            try:
                list_files((path,), {})
            except RecipeError as error:
                raise PydanticCustomError(_MISSING, "{what}", {"what": str(error), "path": path}) from None
        return path

    data = json.loads(recipe.model_dump_json())
    try:
        type(recipe).model_validate(data, context=check)
    except ValidationError as error:
        errors = [problem for problem in error.errors() if problem["type"] == _MISSING]
        keys = [".".join(locate(data, problem["loc"])) for problem in errors]
        missing = [(key, problem["ctx"]["path"], problem["msg"]) for key, problem in zip(keys, errors, strict=True)]
        return [problem for problem in missing if not problem[0].endswith(".store")]  # the run creates this folder
    return []


def place_inputs(recipe: Recipe, store: RunStore, folder: str) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe for other machines, and the small local files that it names, by their new names.

    The new names are below `folder` in the run folder. Nothing is written. Raises RecipeError if the files have more
    than MAX_BYTES.
    """
    files: dict[str, str] = {}
    weights = {getattr(section, "pretrained", None) for _, _, section in recipe.measure.requested}

    def copy(path: str) -> str:
        if "://" in path or path in weights or os.path.isdir(path):
            return path
        parent, _, name = path.rpartition("/")
        try:
            listed = [file.path.rpartition("/") for file in list_files((path,), {})]
        except RecipeError:  # the error is reported when the file is opened
            return path
        if any(directory != parent for directory, _, _ in listed):  # then a pattern is in the name of a folder
            return path
        copy = f"{folder}/{ids.digest([parent])[:8]}"
        files.update({f"{copy}/{file}": f"{parent}/{file}" for _, _, file in listed})
        return f"{store.url}/{copy}/{name}"

    changed = {"measure": _move(Measure.full(), recipe.measure, copy)}
    if recipe.captions:
        changed["captions"] = _move(Captions.full(), recipe.captions, copy)
    sizes = {path: os.path.getsize(path) for path in files.values()}
    if (total := sum(sizes.values())) > MAX_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        error = f"other machines need {pluralize(len(sizes), 'local file')} of {format_bytes(total)} in all"
        of_them = f"the largest, {largest}, has {format_bytes(sizes[largest])}"
        larger = "give larger files as URLs, of a store or as file:///… in a folder that all machines share"
        raise RecipeError(f"{error}; {of_them}; accepted: at most {format_bytes(MAX_BYTES)}; {larger}")
    return recipe.model_copy(update=changed), files


def copy_inputs(files: dict[str, str], store: RunStore) -> None:
    """Write the files to the run folder. Raises OSError."""
    for name, path in files.items():
        with open(path, "rb") as file:
            store.write_bytes(name, file.read())


def _move(section: Any, value: Any, copy: Callable[[str], str]) -> Any:
    return section.model_validate(json.loads(value.model_dump_json()), context=copy)
