"""Registries for kinds of things, such as signals. Built-in kinds come first, in a fixed order; then kinds of plugins.

A plugin declares an entry point in the registry's group. Kinds are imported by dotted name when they are first used. So
`recipe` can look up kinds in folders that import `recipe`.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from curate.base.errors import RecipeError
from curate.base.foreign import FOREIGN, ForeignKind
from curate.base.wording import describe_error, did_you_mean

K = TypeVar("K")

_log = logging.getLogger(__name__)
_PREFIX = "curate."  # prefix of the entry-point groups of the registries that accept plugins
version = cache(importlib.metadata.version)  # each lookup reads a package's metadata


def has_plugins() -> bool:
    """Return whether any package with plugin kinds is installed."""
    return any(group.startswith(_PREFIX) for group in _installed().groups)


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(version(package))
    return False


@cache  # each lookup reads a file of every package
def _installed() -> Any:  # Python 3.12 and later return another type
    return importlib.metadata.entry_points()


def warn_of_broken(error: object = "") -> None:
    """Warn once about each kind that could not be loaded, unless an error has already named it."""
    while _untold:
        if (reason := _untold.pop(0)) not in str(error):
            _log.warning("warning: %s", reason)


_REGISTRIES: list["Registry[Any]"] = []  # registries that accept plugins
_untold: list[str] = []  # errors of kinds that cannot be loaded, which no message has reported yet


@dataclass(frozen=True)
class Registry(Generic[K]):
    """The kinds of one thing, such as all signals. A kind's `key` is its name in recipes."""

    what: str  # the noun for messages, such as signal
    builtin: str  # the tuple of built-in kinds, as module:NAME. A leading dot means `curate`
    group: str | None = None  # entry-point group of plugin kinds, whose names are the kinds' keys; None: no plugins
    interface: str = ""  # the class of plugin kinds, as module:NAME
    by_class: bool = False  # a kind is a class derived from `interface`, not an object

    def __post_init__(self) -> None:
        if self.group:
            _REGISTRIES.append(self)

    def kinds(self) -> Mapping[str, K]:
        """Return all kinds by key: built-in kinds in their order, then plugins by name. Kinds in `broken` are left out.

        Raises RecipeError, which names the packages, if two kinds have the same key.
        """
        return _load(self)[0]

    def find(self, key: str) -> K:
        """Return one kind. If there is none with this key, raises RecipeError, which names the most similar key."""
        kinds = self.kinds()
        if key in self.broken:
            raise RecipeError(self.broken[key])
        if key not in kinds:
            accepted = f"{did_you_mean(key, kinds)}accepted: {', '.join(kinds) or 'none'}"
            raise RecipeError(f"no {self.what} is named {key!r}; {accepted}")
        return kinds[key]

    @property
    def broken(self) -> Mapping[str, str]:
        """For each plugin kind that cannot be loaded: the error by key. The error names the package."""
        return _load(self)[2]

    def package(self, key: str) -> str | None:
        """Return the package of a plugin kind, with its version; None if the kind is built in."""
        foreign = _load(self)[1].get(key)
        return foreign.package if foreign else None

    def accepts(self, kind: Any) -> bool:
        base = _import(self.interface) if self.interface else object
        return isinstance(kind, type) and issubclass(kind, base) if self.by_class else isinstance(kind, base)


@cache  # per registry: installed packages do not change while a process runs
def _load(registry: Registry[Any]) -> tuple[Mapping[str, Any], Mapping[str, ForeignKind], Mapping[str, str]]:
    kinds = {kind.key: kind for kind in _import(registry.builtin)}
    foreign: dict[str, ForeignKind] = {}
    broken: dict[str, str] = {}
    entries = _installed().select(group=registry.group) if registry.group else ()
    for entry in sorted(entries, key=lambda entry: entry.name):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        try:
            loaded = _load_foreign(registry, entry, package)
        except RecipeError as error:
            _untold.append(str(error))
            broken[entry.name] = str(error)
            continue
        if loaded is None:
            continue
        if entry.name in kinds:
            other = foreign[entry.name].package if entry.name in foreign else "curate itself"
            twice = f"two {registry.what}s are named {entry.name!r}"
            raise RecipeError(f"{twice}: one in {other}, one in package {package}; uninstall one package")
        kinds[entry.name] = loaded
        foreign[entry.name] = ForeignKind(f"{registry.what} {entry.name!r}", package, entry.module, loaded)
    FOREIGN.update({kind.label: kind for kind in foreign.values()})
    return MappingProxyType(kinds), MappingProxyType(foreign), MappingProxyType(broken)


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module, "curate"), attribute)


def _load_foreign(registry: Registry[Any], entry: importlib.metadata.EntryPoint, package: str) -> Any:
    """Return the kind of an entry point; None if it belongs to another registry of the same group.

    Raises RecipeError, which names the package, if the kind cannot be loaded or is not a kind.
    """
    sharing = [other for other in _REGISTRIES if other.group == registry.group]
    label = f"{' or '.join(dict.fromkeys(other.what for other in sharing))} {entry.name!r} of package {package}"
    try:
        kind = entry.load()
    except Exception as error:  # plugin code may raise anything
        reason = describe_error(error, entry.module.partition(".")[0])
        raise RecipeError(f"{label}: {entry.value} cannot be loaded: {reason}; repair or uninstall it") from error
    if not any(other.accepts(kind) for other in sharing) or getattr(kind, "key", None) != entry.name:
        bases = " or ".join(other.interface.rpartition(":")[2] for other in sharing)
        accepted = f"a kind ({bases}) with the entry point's name as its key"
        raise RecipeError(f"{label}: {entry.value} is {kind!r:.200}; accepted: {accepted}")
    return kind if registry.accepts(kind) else None
