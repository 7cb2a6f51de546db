"""Registries: the kinds of one thing (signals, say), the package's own in a stated order, then those of other packages.

Other packages state an entry point in the registry's group. Kinds are loaded on first use, by dotted name, so that
`recipe` can look kinds up whose folders import `recipe`.
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
_PREFIX = "curate."  # of groups of entry points: each registry that other packages may add to has one
version = cache(importlib.metadata.version)  # each look reads the metadata of a package


def has_plugins() -> bool:
    """Return whether a package of foreign kinds is installed."""
    return any(group.startswith(_PREFIX) for group in _installed().groups)


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(version(package))
    return False


@cache  # each look reads a file of every package
def _installed() -> Any:  # its type is another one from Python 3.12 on
    return importlib.metadata.entry_points()


def warn_of_broken(error: object = "") -> None:
    """Warn, once, of each kind that could not be loaded so far; not where an error tells why."""
    while _untold:
        if (reason := _untold.pop(0)) not in str(error):
            _log.warning("warning: %s", reason)


_REGISTRIES: list["Registry[Any]"] = []  # that other packages may add to
_untold: list[str] = []  # why kinds cannot be loaded


@dataclass(frozen=True)
class Registry(Generic[K]):
    """The kinds of one thing; the `key` of each names it in a recipe."""

    what: str  # the thing, as messages call it: signal
    builtin: str  # the tuple of the package's own kinds, as module:NAME; one that begins with a dot is in curate
    group: str | None = None  # the entry points of foreign kinds, each named as its kind's key; None: there can be none
    interface: str = ""  # what a foreign kind is an object of, as module:NAME
    by_class: bool = False  # a kind is a class derived from the interface, not an object

    def __post_init__(self) -> None:
        if self.group:
            _REGISTRIES.append(self)

    def kinds(self) -> Mapping[str, K]:
        """Return all kinds by key: the package's own in their order, then foreign ones by name, but for `broken`.

        Raises RecipeError, which names packages, for two kinds of one key.
        """
        return _load(self)[0]

    def find(self, key: str) -> K:
        """Return one kind. Raises RecipeError where there is none of that key; names the nearest."""
        kinds = self.kinds()
        if key in self.broken:
            raise RecipeError(self.broken[key])
        if key not in kinds:
            accepted = f"{did_you_mean(key, kinds)}accepted: {', '.join(kinds) or 'none'}"
            raise RecipeError(f"no {self.what} is named {key!r}; {accepted}")
        return kinds[key]

    @property
    def broken(self) -> Mapping[str, str]:
        """Why each foreign kind that cannot be loaded cannot, by its key; the text names its package."""
        return _load(self)[2]

    def package(self, key: str) -> str | None:
        """Return the package that a foreign kind comes from, with its version; None for the package's own."""
        foreign = _load(self)[1].get(key)
        return foreign.package if foreign else None

    def accepts(self, kind: Any) -> bool:
        base = _import(self.interface) if self.interface else object
        return isinstance(kind, type) and issubclass(kind, base) if self.by_class else isinstance(kind, base)


@cache  # by the registry: what is installed does not change while a process runs
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
            raise RecipeError(f"{twice}: one of {other}, one of package {package}; uninstall one")
        kinds[entry.name] = loaded
        foreign[entry.name] = ForeignKind(f"{registry.what} {entry.name!r}", package, entry.module, loaded)
    FOREIGN.update({kind.label: kind for kind in foreign.values()})
    return MappingProxyType(kinds), MappingProxyType(foreign), MappingProxyType(broken)


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module, "curate"), attribute)


def _load_foreign(registry: Registry[Any], entry: importlib.metadata.EntryPoint, package: str) -> Any:
    """Return the kind that an entry point states; None where it is one of another registry of the group.

    Raises RecipeError, which names its package, where it cannot be loaded or is no kind.
    """
    sharing = [other for other in _REGISTRIES if other.group == registry.group]
    label = f"{' or '.join(dict.fromkeys(other.what for other in sharing))} {entry.name!r} of package {package}"
    try:
        kind = entry.load()
    except Exception as error:  # another package's code: of any kind
        reason = describe_error(error, entry.module.partition(".")[0])
        raise RecipeError(f"{label}: {entry.value} cannot be loaded: {reason}; repair or uninstall it") from error
    if not any(other.accepts(kind) for other in sharing) or getattr(kind, "key", None) != entry.name:
        bases = " or ".join(other.interface.rpartition(":")[2] for other in sharing)
        accepted = f"a kind ({bases}) with the entry point's name as its key"
        raise RecipeError(f"{label}: {entry.value} is {kind!r:.200}; accepted: {accepted}")
    return kind if registry.accepts(kind) else None
