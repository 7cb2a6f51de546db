"""An engine's file, `--on FILE`: YAML of Beam options under their own names.

In: the file, and Beam's parser of options. Out: the words that say the same on a command line, by option. A list is an
option that is repeated, a mapping one that is repeated as key=value (`spark_conf`) or one JSON text, a boolean a flag.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import yaml

from curate.base.errors import RecipeError
from curate.recipe.faults import shorten
from curate.recipe.files import read_whole
from curate.recipe.strict_yaml import MAX_CHARACTERS, load_yaml, say_yaml_error

_INIT = "`curate init --on ENGINE` writes one"


def read_engine(path: str, parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Return the words of each option, also of those that the parser does not know: somebody else may.

    Raises:
        RecipeError: the file cannot be read, is no YAML or no mapping, or a value is none that its option takes.
    """
    try:
        data = load_yaml(read_whole(path, MAX_CHARACTERS).decode())
    except yaml.YAMLError as error:
        raise RecipeError(f"--on {path}: not valid YAML: {say_yaml_error(error)}") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"--on {path}: cannot be read: {error}; accepted: YAML of Beam options; {_INIT}") from None
    if data is not None and not isinstance(data, dict):
        raise RecipeError(
            f"--on {path}: holds {shorten(data)}; accepted: a mapping of Beam options, such as runner: spark"
        )
    options = {}
    for key, value in (data or {}).items():
        where = f"--on {path}: {key}"
        if not isinstance(key, str) or key.startswith("-") or "=" in key:
            name = str(key).lstrip("-").partition("=")[0]
            raise RecipeError(f"{where}: is not the name of an option; accepted: the name alone, as in {name}: VALUE")
        words = list(_to_words(key, value, parser._option_string_actions.get(f"--{key}"), where))
        try:
            parser.parse_known_args(words)
        except argparse.ArgumentError as error:
            raise RecipeError(f"{where}: {error.message}") from None
        except ValueError as error:  # of JSON
            raise RecipeError(f"{where}: {error} (found {shorten(value)})") from None
        options[key] = words
    return options


def _to_words(key: str, value: Any, action: argparse.Action | None, where: str) -> Iterator[str]:
    """Yield an option's words. Raises RecipeError where it does not take the value."""
    is_flag = action is not None and action.nargs == 0
    is_repeated = action is None or not (is_flag or isinstance(action, argparse._StoreAction))
    if is_flag or (action is None and isinstance(value, bool)):
        if not isinstance(value, bool):
            raise RecipeError(f"{where}: found {shorten(value)}; accepted: true or false")
        yield from [f"--{key}"] if value else []
    elif isinstance(value, dict) and action is not None and action.type is json.loads:
        yield f"--{key}={json.dumps(value, default=str)}"
    elif isinstance(value, dict) and is_repeated:
        yield from (f"--{key}={name}={_text(item, f'{where}.{name}')}" for name, item in value.items())
    elif isinstance(value, list) and is_repeated:
        yield from (f"--{key}={_text(item, where)}" for item in value)
    elif isinstance(value, dict | list):
        raise RecipeError(f"{where}: found {shorten(value)}; accepted: one value, as text or a number")
    else:
        yield f"--{key}={_text(value, where)}"


def _text(value: Any, where: str) -> str:
    """Return a value as a command line has it, booleans as Spark does. Raises RecipeError where it is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise RecipeError(f"{where}: found {shorten(value)}; accepted: text, a number, true or false; else in quotes")
