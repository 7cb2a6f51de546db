"""A source of a recipe's `input`: what all have. The keys of one format are in its file of `curate.pool.formats`."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
)

from curate.recipe.section import BuiltFrom, KindOf, Name, NewName, OneOrSeveral, Section, UserPaths, find_twice
from curate.registry import Registry

FORMATS: Registry[Any] = Registry("input format", "curate.pool.formats.registry:KINDS", "curate.formats")
_UNKNOWN = "unknown format"


class Join(Section):
    """Columns that files of the user's own add to a source's rows: those of the row that has the same key, URL or uid.

    `columns` maps the new name of each column to its name in the files.
    """

    path: UserPaths  # Parquet, CSV, or a .npy of uids
    on: Literal["key", "url", "uid"]
    columns: dict[NewName, Annotated[str, Field(min_length=1)]] = Field(min_length=1)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as listed; ranges and globs not yet expanded."""
        return (self.path,) if isinstance(self.path, str) else self.path


class Source(Section):
    """One input of the pool; every row is tagged with its name.

    `optional_fields` are left out of plain data where they are empty, so that keys are those of before they were there.
    """

    optional_fields: ClassVar[frozenset[str]] = frozenset({"join"})

    name: Name
    format: Annotated[str, KindOf(FORMATS)]
    path: UserPaths
    storage: dict[str, Any] = Field({})  # options of the fsspec file system, such as {anon: true}
    join: Annotated[tuple[Join, ...], OneOrSeveral()] = ()

    @field_validator("path")
    @classmethod
    def _some_path(cls, path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not path or ("" in path and not isinstance(path, str)):
            raise ValueError("names no file; accepted: a path, or a list of paths")
        return path

    @field_validator("join")
    @classmethod
    def _names_differ(cls, join: tuple[Join, ...]) -> tuple[Join, ...]:
        if twice := find_twice(name for one in join for name in one.columns):
            raise ValueError(f"two columns are named {twice!r}; give each a name of its own")
        return join

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = serialise(self)
        return {name: value for name, value in plain.items() if name not in self.optional_fields or value}

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as listed; ranges and globs not yet expanded."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def input_run(self) -> str | None:
        """The folder of the run whose kept rows the source's are; None where they are no run's."""
        return None

    def placed_in(self, run: str, reuse: str | None = None) -> Self:
        """Return the source with all that it has in a run's folder, or may take from that of another; here there is nothing."""
        return self

    def row_fields(self) -> dict[str, Any]:
        """Return what determines the source's rows: all but where they are, and what only adds columns to them."""
        return self.model_dump(exclude={"name", "path", "storage", "join"})


def place_sources(sources: Iterable[Source], run: str, reuse: str | None = None) -> tuple[Source, ...]:
    """Return sources with what they have in a run's folder."""
    return tuple(source.placed_in(run, reuse) for source in sources)


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
