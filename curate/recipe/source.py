"""A source in a recipe's `input`, with the keys that all formats share. `curate.pool` has the other keys, by format."""

from collections.abc import Iterable
from functools import cache
from operator import not_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, Union

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, PlainSerializer, Tag, field_validator
from pydantic import ValidationInfo as Info

from curate.base.errors import RecipeError
from curate.base.registry import Registry
from curate.recipe import section as fields
from curate.recipe.secrets import name_variables, read_variables
from curate.recipe.section import Column, Section

FORMATS = Registry[Any](
    "input format", ".pool.registry:KINDS", "curate.formats", ".pool.formats.input_format:InputFormat"
)
_UNKNOWN = "unknown format"
_Named = PlainSerializer(name_variables, when_used="json")
_Storage = Annotated[dict[str, Any], AfterValidator(read_variables), _Named]


class Join(Section):
    """Adds columns from your own files. A row of a file belongs to the sample with the same key, uid, or URL.

    Use `join` for your own scores, for the decisions of another run, or for an allowlist. An allowlist is a file of
    uids, with `columns: {listed: uid}` and the rule `listed IS NOT NULL`.

    - The files must have a column with the name in `on`. If a value occurs twice in this column, the run does not
      start.
    - Samples that the files do not list get null.
    - If a file changes, curate reads only the joined columns again.
    - curate reads a `.npy` of uids as a table with the columns `uid` and `times` (int32), the number of times that the
      uid occurs.
    """

    path: fields.UserPaths = Field(examples=["scores.parquet"])
    """Parquet or CSV files, or a .npy of uids, such as a DataComp subset file."""
    on: str = Field(examples=["uid", "page_url"], min_length=1)
    """Column that the source and your files share: `key`, `url`, `uid`, or a text column of the source."""
    columns: dict[fields.NewName, Annotated[str, Field(min_length=1)]] = Field(
        examples=[{"aesthetic": "aesthetic_score"}], min_length=1
    )
    """Columns to add. Write `NEW: OLD`, where OLD is the name in the files and NEW the name for rules."""


class Source(Section):
    """A source of samples. All formats have these keys. The sections below list the other keys of each format.

    A recipe cannot combine sources that have images with sources that have none.

    - curate writes a source's other columns to the table `scores`, with the same names.
    - If the input has no uids, curate computes them. A uid is a hash of the URL and the caption. If there is no URL, it
      is a hash of the image and the caption.
    - If a file in a range is missing, the run does not start.
    """

    gives: ClassVar[tuple[Column, ...]] = (
        Column("samples", "uid", "string", "Id of the image-caption pair: 32 hex digits."),
        Column("samples", "source", "string", "Name of the source."),
        Column("samples", "shard", "string", "Input file of the row."),
        Column("samples", "key", "string", "Name of the sample in its file."),
        Column("samples", "url", "string", "URL, if the input has one."),
        Column("samples", "caption", "string", "Caption, such as the image's alt-text."),
        Column("samples", "words", "int32", "Number of words in the caption, separated by white space."),
        Column("samples", "characters", "int32", "Number of characters in the caption."),
        Column("samples", "offset", "int64", "Position in the input file. curate uses it to read the sample again."),
        Column("samples", "status", "string", "`ok`, or the reason why the sample cannot be read."),
        Column("samples", "error", "string", "Error message, if the sample cannot be read."),
    )

    neutral_fields: ClassVar[frozenset[str]] = frozenset()  # keys of a format that do not determine the source's rows

    name: fields.Name = Field(examples=["cc12m"])
    """Name of the source, unique in the recipe."""
    format: Annotated[str, fields.KindOf(FORMATS)] = Field(examples=["parquet"])
    """Format of the source."""
    path: fields.UserPaths = Field(examples=["s3://bucket/cc12m/{00000..01242}.tar"])
    """Input files: local paths or fsspec URLs, with ranges and globs. For format `run`, a finished run's folder."""
    storage: _Storage = Field({}, examples=[{"anon": True}, {"secret": "env:MY_SECRET"}])
    """Options for the fsspec file system. If a value is `env:NAME`, each machine uses the value of its environment
    variable NAME."""
    join: Annotated[tuple[Join, ...], fields.one_or_several(Join)] = Field(
        (), exclude_if=not_, examples=[{"path": "scores.parquet", "on": "uid", "columns": {"aesthetic": "score"}}]
    )
    """Columns to add from your own files."""

    def error(self, message: object) -> RecipeError:
        """Return an error about the source."""
        return RecipeError(f"input {self.name!r}: {message}")

    @field_validator("*")
    @classmethod
    def _paths_are_of_the_recipe(cls, value: Any, info: Info) -> Any:
        is_path, absolute = info.field_name == "path", info.context or str
        if is_path and (not value or (isinstance(value, tuple) and "" in value)):
            raise ValueError("names no file; accepted: a path, or a list of paths")
        # sections from other packages have such types
        if isinstance(value, Path) or (is_path and isinstance(value, str)):
            return (str if is_path else Path)(absolute(str(value)))
        return value

    @field_validator("join")
    @classmethod
    def _names_differ(cls, join: tuple[Join, ...]) -> tuple[Join, ...]:
        if twice := fields.find_twice(name for section in join for name in section.columns):
            raise ValueError(f"two columns are named {twice!r}; give each a name of its own")
        return join

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths as listed, before ranges and globs are expanded."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def input_run(self) -> str | None:
        """The folder of the run whose kept rows this source reads, or None."""
        return None

    def placed_in(self, run: str, reuse: str | None = None, is_alone: bool = True) -> Self:
        """Return the source with its folders in this run and in the run to reuse. Most sources do not use any.

        `is_alone`: whether one process does all the work.
        """
        return self

    def row_fields(self) -> dict[str, Any]:
        """Return the settings that determine the source's rows: all but its location and the columns that it adds."""
        neutral = dict.fromkeys(("name", "path", "storage", "join", *self.neutral_fields), True)
        return self.model_dump(exclude={"columns": {"scores"}, **neutral})


def find_source(sources: Iterable[Source], name: str) -> Source:
    """Return the source with this name."""
    return next(source for source in sources if source.name == name)


class UnknownSource(Source):
    """A source with a missing or unknown format, so its keys cannot be checked."""

    model_config = ConfigDict(extra="ignore")


@cache
def source_sections() -> Any:
    """Return the type of a source of any format: a union of all formats' sections, from which `format` selects one."""
    sections = {**{key: kind.section for key, kind in FORMATS.kinds().items()}, _UNKNOWN: UnknownSource}

    def key_of(value: Any) -> str:
        key = value.get("format") if isinstance(value, dict) else getattr(value, "format", None)
        return key if isinstance(key, str) and key in sections else _UNKNOWN

    tagged = tuple(Annotated[section, Tag(key)] for key, section in sections.items())
    return Annotated[Union[tagged], Discriminator(key_of)]  # noqa: UP007 (of a tuple)


AnySource = Annotated[Source, fields.BuiltFrom(source_sections)]
