"""What sections of a recipe are made of: their base class, the types of names, and the mark of fields that hold paths.

Paths in a recipe are relative to its folder. A field says by its type that it holds some (`UserPath`, `UserPaths`), and
`resolve_paths` makes all of them absolute, in sections of any depth, those of foreign kinds included.
"""

import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import PydanticCustomError, core_schema

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
    """Marks a field whose text is a path, or may be one.

    Attributes:
        start: where in the text the path begins; None where the text is no path, but a model's name, say.
    """

    start: Callable[[str], int | None] = lambda text: 0


UserPath = Annotated[str, PathMark()]
"""A file, folder or URL; relative to the recipe's folder."""
UserPaths = UserPath | tuple[UserPath, ...]
"""One or several; ranges and globs too."""
ModelPath = Annotated[str, Field(min_length=1), PathMark(lambda text: 0 if text.startswith(".") else None)]
"""A model's folder where it begins with a dot; else its name on a hub, or a path as it is."""

S = TypeVar("S", bound=BaseModel)


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
    """Return a section in which every path is what `absolute` makes of it.

    Args:
        section: a checked section; sections within it are resolved too.
        absolute: from a path as it was written to one that is not relative.
    """
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
