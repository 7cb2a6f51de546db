"""Registries: the kinds of one thing (signals, say), the package's own in a stated order, then those of other packages.

The package's own kinds are a tuple in a registry file of their folder. Third-party ones register through entry points: a package that
states one in the registry's group is found once it is installed, on every worker that has it. Kinds are loaded on first
use, by dotted name, so that `recipe` can look kinds up whose folders import `recipe`.
"""

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean, one_line

_with_foreign = ContextVar("with_foreign", default=True)

K = TypeVar("K")


GROUPS = (
    "curate.signals",
    "curate.formats",
    "curate.gates",
    "curate.outputs",
    "curate.selections",
    "curate.statistics",
)  # of entry points: the kinds of thing that other packages may add


def has_plugins() -> bool:
    """Return whether a package of foreign kinds is installed."""
    return any(map(_entry_points, GROUPS))


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def only_builtin() -> Iterator[None]:
    """Look up the package's own kinds alone, as a page about them does."""
    token = _with_foreign.set(False)
    try:
        yield
    finally:
        _with_foreign.reset(token)


def _entry_points(group: str) -> importlib.metadata.EntryPoints:
    """Return what installed packages state in a group."""
    found: importlib.metadata.EntryPoints = _installed().select(group=group)
    return found


@cache  # each look reads a file of every package
def _installed() -> Any:  # its type is another one from Python 3.12 on
    return importlib.metadata.entry_points()


@dataclass(frozen=True)
class Registry(Generic[K]):
    """The kinds of one thing; the `key` of each names it in a recipe."""

    what: str  # the thing, as messages call it: signal
    builtin: str  # the tuple of the package's own kinds, as module:NAME
    group: str | None = None  # the entry points of foreign kinds, each named as its kind's key; None: there can be none

    def kinds(self) -> Mapping[str, K]:
        """Return all kinds by key: the package's own in their order, then foreign ones by name.

        Raises RecipeError, which names packages, for a foreign kind that cannot be loaded and for two kinds of one key.
        """
        return _load(self, _with_foreign.get())[0]

    def find(self, key: str) -> K:
        """Return one kind. Raises RecipeError where there is none of that key; names the nearest."""
        kinds = self.kinds()
        if key not in kinds:
            accepted = f"{did_you_mean(key, kinds)}accepted: {', '.join(kinds) or 'none'}"
            raise RecipeError(f"no {self.what} is named {key!r}; {accepted}")
        return kinds[key]

    def package(self, key: str) -> str | None:
        """Return the package that a foreign kind comes from, with its version; None for the package's own."""
        return _load(self, _with_foreign.get())[1].get(key)


@cache  # by the registry: what is installed does not change while a process runs
def _load(registry: Registry[Any], with_foreign: bool) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Return a registry's kinds, and the packages of the foreign ones."""
    module, _, name = registry.builtin.partition(":")
    kinds = {kind.key: kind for kind in getattr(importlib.import_module(module), name)}
    packages: dict[str, str] = {}
    found = _entry_points(registry.group) if registry.group and with_foreign else ()
    for entry in sorted(found, key=lambda entry: entry.name):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if entry.name in kinds:
            other = packages.get(entry.name, "curate itself")
            twice = f"two {registry.what}s are named {entry.name!r}"
            raise RecipeError(f"{twice}: one of {other}, one of package {package}; uninstall one")
        kinds[entry.name] = _load_foreign(registry.what, entry, package)
        packages[entry.name] = package
    return MappingProxyType(kinds), MappingProxyType(packages)


def _load_foreign(what: str, entry: importlib.metadata.EntryPoint, package: str) -> Any:
    """Return the kind that an entry point states. Raises RecipeError, which names its package."""
    where = f"{what} {entry.name!r} of package {package}"
    try:
        kind = entry.load()
    except Exception as error:  # another package's code: of any kind
        raise RecipeError(
            f"{where}: {entry.value} cannot be loaded: {type(error).__name__}: {one_line(error, 400)}; "
            "repair or uninstall the package"
        ) from error
    if (key := getattr(kind, "key", None)) != entry.name:
        raise RecipeError(f"{where}: {entry.value} has the key {key!r}; accepted: the entry point's name")
    return kind
