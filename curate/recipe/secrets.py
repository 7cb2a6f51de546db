"""Secrets in file system options: `env:NAME` means an environment variable, which each process reads itself.

A value knows its variable: only the variable's name is sent to other processes, and shown.
"""

import os
import platform
import re
from collections.abc import Callable
from typing import Any, Self

from curate.base.errors import RecipeError
from curate.recipe.section import PASSWORD, fault

_PREFIX = "env:"
_SECRET = re.compile(
    r"(?i)^(key|token|auth)$|secret|passw|credential|authorization|cookie|(access|account|api|private)_?key"
    r"|(sas|session|access|id)_?token|connection_string"
)
# gcsfs accepts these as a token, and paths; neither is a secret
_NO_SECRET = re.compile(r"anon|cloud|google_default|browser|cache|[^{]*/.*\.json")


class Variable(str):
    """The value of an environment variable; empty if it is not set."""

    name: str

    @classmethod
    def read(cls, name: str) -> Self:
        """Return the variable's value in this process."""
        value = cls(os.environ.get(name, ""))
        value.name = name
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).read, (self.name,)

    def __repr__(self) -> str:
        return repr(f"{_PREFIX}{self.name}")


def read_variables(options: Any) -> Any:
    """Return options with the variables' values. An impossible name is an error, which does not show it."""

    def read(key: str, value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith(_PREFIX):
            return value
        name = value.removeprefix(_PREFIX)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise fault(key, "env: needs the name of an environment variable; accepted: a text such as env:MY_SECRET")
        return Variable.read(name)

    return _replace(options, read)


def name_variables(options: Any) -> Any:
    """Return options as the recipe has them, with the names of variables instead of their values."""
    return _replace(options, lambda _, value: f"{_PREFIX}{value.name}" if isinstance(value, Variable) else value)


def check_variables(source: str, storage: dict[str, Any]) -> None:
    """Raise RecipeError if a variable in a source's options is not set in this process."""
    for key, value in _leaves(storage):
        if isinstance(value, Variable) and not value:
            missing = f"the environment variable {value.name} is not set on {platform.node()}"
            raise RecipeError(f"input {source!r}: storage.{key}: {missing}; accepted: one that all workers have")


def refuse_literals(source: str, storage: dict[str, Any]) -> None:
    """Raise RecipeError, without showing it, if a source's options contain a secret that would be sent to workers."""
    for key, value in _leaves(storage):
        is_text = isinstance(value, str) and value and not isinstance(value, Variable)
        if is_text and _SECRET.search(key.rpartition(".")[2]) and not _NO_SECRET.fullmatch(value):
            problem = f"input {source!r}: storage.{key} contains a secret, which would be sent to workers"
            accepted = f"{_PREFIX}NAME, a variable that is set on every worker; or no key, if a role gives access"
            raise RecipeError(f"{problem}; accepted: {accepted}")


def refuse_password(url: str) -> None:
    """Raise RecipeError, without showing it, if a URL contains a password."""
    if password := PASSWORD.search(url):
        scheme = url[: password.start()]
        name = re.sub(r"\W", "", scheme.rpartition(":")[2]).upper()
        shown = f"{scheme}://…@{url[password.end() :]}: a password in a URL would be written to run.json and to logs"
        raise RecipeError(f"{shown}; accepted: a URL without it; set FSSPEC_{name}_PASSWORD in the environment")


def _leaves(options: Any) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    _replace(options, lambda key, value: leaves.append((key, value)))
    return leaves


def _replace(options: Any, change: Callable[[str, Any], Any], key: str = "") -> Any:
    """Return options after applying `change` to each dotted key and value."""
    if isinstance(options, dict):
        return {name: _replace(inner, change, f"{key}.{name}" if key else str(name)) for name, inner in options.items()}
    if isinstance(options, list):
        return [_replace(inner, change, key) for inner in options]
    return change(key, options)
