"""A source of a recipe's `input`: what all have. The keys of one format are in its file of `curate.pool.formats`."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Union

from pydantic import ConfigDict, Discriminator, Field, SerializeAsAny, Tag, field_validator

from curate.recipe.section import BuiltFrom, Name, Section, UserPaths, kind_of
from curate.registry import Registry

FORMATS: Registry[Any] = Registry("input format", "curate.pool.formats.registry:KINDS", "curate.formats")
_UNKNOWN = "unknown format"


class Source(Section):
    """One input of the pool; every row is tagged with its name."""

    name: Name
    format: Annotated[str, kind_of(FORMATS)]
    path: UserPaths
    storage: dict[str, Any] = Field({})  # options of the fsspec file system, such as {anon: true}

    @field_validator("path")
    @classmethod
    def _some_path(cls, path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not path or ("" in path and not isinstance(path, str)):
            raise ValueError("names no file; accepted: a path, or a list of paths")
        return path

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as listed; ranges and globs not yet expanded."""
        return (self.path,) if isinstance(self.path, str) else self.path


def find_source(sources: Iterable[Source], name: str) -> Source:
    """Return the source of a recipe that has this name."""
    return next(source for source in sources if source.name == name)


class UnknownSource(Source):
    """A source whose format is missing or not known: nobody can say which keys it has."""

    model_config = ConfigDict(extra="ignore")


@cache
def source_sections() -> Any:
    """Return the type of a source of any format: a union of their sections, told apart by `format`."""
    sections = {**{key: kind.section for key, kind in FORMATS.kinds().items()}, _UNKNOWN: UnknownSource}

    def key_of(value: Any) -> str:
        key = value.get("format") if isinstance(value, dict) else getattr(value, "format", None)
        return key if isinstance(key, str) and key in sections else _UNKNOWN

    tagged = tuple(Annotated[section, Tag(key)] for key, section in sections.items())
    return Annotated[Union[tagged], Discriminator(key_of)]  # noqa: UP007 (of a tuple)


AnySource = Annotated[SerializeAsAny[Source], BuiltFrom(source_sections)]
