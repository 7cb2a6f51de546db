"""What sections of a recipe are made of: their base class, the types of names, and the mark of fields that hold paths.

Paths in a recipe are relative to its folder. A field says by its type that it holds some (`UserPath`, `UserPaths`), and
`resolve_paths` makes all of them absolute, in sections of any depth, those of foreign kinds included.
"""

import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from curate.errors import RecipeError
from curate.registry import Registry

ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are not changed after loading.

    `runtime_fields` names the fields that say where and how fast something is computed, not what: they may change in a rerun.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    runtime_fields: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class PathMark:
    """Marks a field whose text is a path, or may be one."""

    # Where in the text the path begins; None where the text is no path, but a model's name, say.
    start: Callable[[str], int | None] = lambda text: 0


UserPath = Annotated[str, PathMark()]
"""A file, folder or URL; relative to the recipe's folder."""
UserPaths = UserPath | tuple[UserPath, ...]
"""One or several; ranges and globs too."""
ModelPath = Annotated[str, Field(min_length=1), PathMark(lambda text: 0 if text.startswith(".") else None)]
"""A model's folder where it begins with a dot; else its name on a hub, or a path as it is."""

S = TypeVar("S", bound=BaseModel)
K = TypeVar("K", bound="KindsSection")


@dataclass(frozen=True)
class BuiltFrom:
    """Marks a field whose section is made of what a registry holds, when it is first needed; the field's type is its base.

    `make` gives a section, or a union of sections. The field's type is to be `SerializeAsAny[Base]`, so that what the made
    section adds is serialised too.
    """

    make: Callable[[], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Return the base's schema, behind the validation by the made section."""

        def validate(value: Any) -> Any:
            return TypeAdapter(self.make()).validate_python(value)

        return core_schema.no_info_before_validator_function(validate, handler(source))


class KindsSection(Section):
    """Base of a section to which each kind of a registry adds a field; `full` is the class that has them."""

    registry: ClassVar[Registry[Any]]

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        """Return the kinds that add a field."""
        return tuple(cls.registry.kinds().values())

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        """Return the type and the default of a kind's field."""
        return kind.section | None, None

    @classmethod
    def full(cls) -> type[Self]:
        """Return the section with a field for each kind that there is. Raises RecipeError, as `Registry.kinds`."""
        return _with_kinds(cls, cls.kinds())

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (type(self).__base__,), self.__getstate__()  # its class is made in each process


@cache
def _with_kinds(base: type[K], kinds: tuple[Any, ...]) -> type[K]:
    fields: dict[str, Any] = {kind.key: base.kind_field(kind) for kind in kinds}
    return create_model(base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields)


def _empty(base: type[K]) -> K:
    """Return a section that is to be filled by `__setstate__`."""
    section = base.full()
    return section.__new__(section)


class OneKind(KindsSection):
    """Base of a section that holds the section of just one kind."""

    @property
    def kind(self) -> str:
        """The key of the kind."""
        return next(self._chosen())

    @property
    def section(self) -> Any:
        """Its section."""
        return getattr(self, self.kind)

    def _chosen(self) -> Iterator[str]:
        return (kind.key for kind in self.kinds() if getattr(self, kind.key) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(list(self._chosen())) != 1:
            raise ValueError(f"give either {' or '.join(map(self.shown, self.kinds()))}")
        return self

    @classmethod
    def shown(cls, kind: Any) -> str:
        """Return what messages show of a kind."""
        return str(kind.key)


def kind_of(registry: Registry[Any]) -> AfterValidator:
    """Return the check that a value is the key of one of the registry's kinds."""

    def check(key: str) -> str:
        try:
            registry.find(key)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return key

    return AfterValidator(check)


def find_twice(names: Iterable[str]) -> str | None:
    """Return the first name, by the alphabet, that occurs more than once."""
    return min((name for name, count in Counter(names).items() if count > 1), default=None)


def field_hint(model: type[BaseModel], name: str) -> Any:
    """Return the type of a model's field, with its annotations."""
    field = model.model_fields[name]
    return Annotated[field.annotation, *field.metadata, None]


def fault(key: str, what: str) -> PydanticCustomError:
    """Return an error, to be raised by a section's validator, that is reported under a dotted key of that section."""
    return PydanticCustomError("fault", "{what}", {"what": what, "key": key})


def value_fields(value: Any) -> Any:
    """Return a section, or what holds sections, as plain data without any `runtime_fields`."""
    if isinstance(value, Section):
        names = [name for name in type(value).model_fields if name not in value.runtime_fields]
        return {name: value_fields(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: value_fields(item) for key, item in value.items()}
    return [value_fields(item) for item in value] if isinstance(value, tuple) else value


def resolve_paths(section: S, absolute: Callable[[str], str]) -> S:
    """Return a section in which every path, at any depth, is what `absolute` makes of it as it was written."""
    model = type(section)
    old = {name: getattr(section, name) for name in model.model_fields}
    new = {name: _resolve(value, field_hint(model, name), absolute) for name, value in old.items()}
    changed = {name: value for name, value in new.items() if value is not old[name]}
    return section.model_copy(update=changed) if changed else section


def _resolve(value: Any, hint: Any, absolute: Callable[[str], str]) -> Any:
    """Return a value of the type `hint`; the same object where no path is in it."""
    if isinstance(value, BaseModel):
        return resolve_paths(value, absolute)
    for one, marks in alternatives(hint):
        if isinstance(value, str) and one is str:
            starts = [mark.start(value) for mark in marks if isinstance(mark, PathMark)]
            for at in (at for at in starts if at is not None):
                return value[:at] + absolute(value[at:])
        elif isinstance(value, tuple) and typing.get_origin(one) is tuple:
            items = tuple(_resolve(item, typing.get_args(one)[0], absolute) for item in value)
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        elif isinstance(value, dict) and typing.get_origin(one) is dict:
            named = {key: _resolve(item, typing.get_args(one)[1], absolute) for key, item in value.items()}
            return named if any(named[key] is not value[key] for key in value) else value
    return value


def alternatives(hint: Any, outer: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield the types that a type hint allows but None, unions and annotations taken apart, each with its annotations."""
    if typing.get_origin(hint) is Annotated:
        yield from alternatives(hint.__origin__, (*hint.__metadata__, *outer))
    elif typing.get_origin(hint) in (Union, types.UnionType):
        for one in typing.get_args(hint):
            yield from alternatives(one, outer)
    elif hint is not type(None):
        made = [mark.make() for mark in outer if isinstance(mark, BuiltFrom)]
        if made:
            yield from alternatives(made[0], tuple(mark for mark in outer if not isinstance(mark, BuiltFrom)))
        else:
            yield hint, outer
