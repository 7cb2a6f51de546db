"""Base classes for sections of a recipe, and types for names, paths, and kinds.

Paths in a recipe are relative to its folder. Fields with paths have types such as `UserPath` and `UserPaths`. If you
validate data with a function as context, the function converts all these paths, at any depth, and also in sections from
other packages.
"""

import ast
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, get_args

import pydantic
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    TypeAdapter,
    ValidationError,
)
from pydantic import ValidationInfo as Info
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from curate.base.errors import RecipeError
from curate.base.registry import Registry
from curate.base.wording import did_you_mean


def is_none(value: object) -> bool:
    """Return whether a value is None. As `exclude_if`, it omits fields that are None from plain data and cache keys."""
    return value is None


@cache
def _check_name(name: str) -> str:
    import duckdb  # few recipes name columns

    query = "SELECT 1 FROM duckdb_keywords() WHERE keyword_category = 'reserved' AND keyword_name = ?"
    if duckdb.execute(query, [name.lower()]).fetchone():
        reason = f"{name!r} is a reserved word of SQL, so expressions could not name it"
        raise ValueError(f"{reason}; accepted: another name, such as '{name}_'")
    return name


def _form(name: str) -> Any:
    """Name the form of a text, such as "path". The reference shows the name, and the JSON schema has it as `format`."""
    return Field(json_schema_extra={"format": name})


ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$"), _form("name"), AfterValidator(_check_name)]
NewName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), _form("name"), AfterValidator(_check_name)]
"""The name of a column that needs no quotes in SQL."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$"), _form("name")]
AnyColumn = Annotated[str, _form("column")]
"""A column that rules can use."""
Expression = Annotated[str, _form("SQL expression")]
"""SQL over the columns that rules can use. Some keys accept more columns."""


class Column(NamedTuple):
    """A column that a section adds, for the reference of keys: its table, name, Arrow type, and meaning."""

    table: str
    name: str  # contains NAME if the recipe names the item that adds it
    type: str
    meaning: str


_ERRORS = frozenset(get_args(core_schema.ErrorType))


class Section(pydantic.BaseModel):
    """Base of every section. A section rejects unknown keys and infinite numbers, and cannot be changed after loading.

    The reference of keys shows a section's docstring, the text below each field (or its `description`), and the field's
    `examples`. The first line of the docstring must be a summary of one sentence.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    # Fields about where and how fast something is computed: they may change in a rerun.
    runtime_fields: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[Any] = None  # an example value for the section's key, as plain data
    gives: ClassVar[tuple[Column, ...]] = ()  # the columns that it adds

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _explain_keys(cls, data: Any, validate: pydantic.ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(data)
        except ValidationError as error:
            details = [cls._explain(line) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, details) from None

    @classmethod
    def _explain(cls, line: Any) -> InitErrorDetails:
        kind, context, key = line["type"], line.get("ctx", {}), str(line["loc"][-1]) if line["loc"] else ""
        if len(line["loc"]) == 1 and kind == "extra_forbidden":
            context = {"text": cls.unknown_key(key)}
        elif len(line["loc"]) == 1 and kind == "missing":
            examples = next(field.examples for name, field in cls.model_fields.items() if key in (name, field.alias))
            context = {"text": f"is missing{f'; accepted: such as {examples[0]!r}' if examples else ''}"}
        elif kind not in _ERRORS:
            context = {"text": line["msg"], **context}
        error = PydanticCustomError(kind, "{text}", context) if "text" in context else kind
        return InitErrorDetails(type=error, loc=line["loc"], input=line["input"], ctx=context)

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """Return the error message for an unknown key."""
        keys = [field.alias or name for name, field in cls.model_fields.items()]
        return f"unknown key; {did_you_mean(key, keys)}known keys: {', '.join(keys) or 'none'}"

    @classmethod
    def about(cls) -> dict[str, Any]:
        """Return the description and examples for a `Field` of this section, as keyword arguments."""
        summary = (cls.__doc__ or "").partition("\n")[0]
        return {"description": summary or None, "examples": None if cls.example is None else [cls.example]}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(schema)
        cls.describe(handler.resolve_ref_schema(reference))
        return reference

    @classmethod
    def describe(cls, schema: dict[str, Any]) -> None:
        """Add the texts below the section's fields to its JSON schema, as descriptions."""
        for base in reversed(cls.__mro__):
            for name, text in _texts_below(base) if issubclass(base, Section) else ():
                field = cls.model_fields.get(name)  # None if a derived section lacks it
                if field and field.description is None:
                    schema["properties"][field.alias or name]["description"] = text


@cache
def _texts_below(section: type[Section]) -> list[tuple[str, str]]:
    # Pydantic's `use_attribute_docstrings` would read them at every start: a tenth of a second.
    texts = []
    # for example, `create_model` made it, or its text is badly indented
    with suppress(OSError, TypeError, SyntaxError):
        [statement] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
        for field, text in pairwise(statement.body if isinstance(statement, ast.ClassDef) else ()):
            match field, text:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                    texts.append((name, " ".join(words.split())))
    return texts


PASSWORD = re.compile(r"://[^/?#@:]*:[^/?#@]+@")  # such a text is a secret, as in storage options


def path_at(start: Callable[[str], int | None] = lambda text: 0) -> AfterValidator:
    """Mark a text that may contain a path. `start` returns where the path begins, or None if the text has no path.

    A model's name, for example, has no path.
    """

    def resolve(text: str, info: Info) -> str:
        if PASSWORD.search(text):
            accepted = "storage: {username: NAME, password: env:MY_PASSWORD} of an input"
            raise fault("", f"a password in a URL would be written to run.json and to logs; accepted: {accepted}")
        at = start(text) if text and info.context else None
        return text if at is None else text[:at] + info.context(text[at:])  # type: ignore[misc]

    return AfterValidator(resolve)


def _form_of(value: Any) -> str:
    if isinstance(value, dict | pydantic.BaseModel):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "an integer" if isinstance(value, int | float) else "a string"


TEXT, INTEGER, LIST, MAPPING = Tag("a string"), Tag("an integer"), Tag("a list"), Tag("a mapping")
BY_FORM = Discriminator(_form_of)
"""Marks a union of types with these tags: the form in which a recipe has a value says which one is meant."""

UserPath = Annotated[str, _form("path"), path_at()]
"""A file, folder or URL; relative to the recipe's folder."""
UserFile = Annotated[str, Field(min_length=1), _form("path"), path_at()]
"""A path like `UserPath` that must not be empty."""
UserPaths = Annotated[Annotated[UserPath, TEXT] | Annotated[tuple[UserPath, ...], LIST], BY_FORM]
"""One or several paths, which may have ranges and globs."""
ModelPath = Annotated[str, Field(min_length=1), path_at(lambda text: 0 if text.startswith(".") else None)]
"""A model: a folder if the text begins with a dot; otherwise, a name on a hub, or a path that stays as it is."""

K = TypeVar("K", bound="KindsSection")


class Requested(NamedTuple):
    """A section that a recipe has: the key of its kind, a unique name, and the section itself."""

    kind: str
    name: str
    section: Any


@dataclass(frozen=True)
class BuiltFrom:
    """Marks a field whose section is built from a registry's kinds at its first use. Dumps have all its fields."""

    make: Callable[[], Any]  # returns a section, or a union of sections

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any, info: Info) -> Any:
            return TypeAdapter(self.make()).validate_python(value, context=info.context)

        return core_schema.with_info_before_validator_function(validate, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = self.make()
        schema = handler(TypeAdapter(section).core_schema)
        # pydantic calls the hook only on a field's own type
        if isinstance(section, type) and issubclass(section, Section):
            section.describe(handler.resolve_ref_schema(schema))
        return schema


class KindsSection(Section):
    """Base of a section that has a field for each kind in a registry. `full` returns the class with these fields."""

    registry: ClassVar[Registry[Any]]

    @classmethod
    def kinds(cls) -> tuple[Any, ...]:
        return tuple(cls.registry.kinds().values())

    @classmethod
    def kind_field(cls, kind: Any) -> tuple[Any, Any]:
        """Return the type and default of a kind's field."""
        return kind.section | None, Field(None, **kind.section.about())

    @classmethod
    def full(cls, doc: str | None = None) -> type[Self]:
        """Return the class with a field for each kind, described by `doc`. Raises the errors of `Registry.kinds`."""
        return _with_kinds(cls, cls.kinds(), doc or cls.__doc__)

    @property
    def requested(self) -> list[Requested]:
        """All sections that the recipe has here, in the order of the kinds. A kind may have one section or several."""
        sections: list[Requested] = []
        for key in self.registry.kinds():
            value = getattr(self, key, None)
            if isinstance(value, dict):
                sections += [Requested(key, name, section) for name, section in value.items()]
            elif isinstance(value, tuple):
                names = (getattr(section, "name", f"{key}.{index}") for index, section in enumerate(value))
                sections += [Requested(key, name, section) for name, section in zip(names, value, strict=True)]
            elif value is not None:
                sections.append(Requested(key, key, value))
        return sections

    @classmethod
    def unknown_key(cls, key: str) -> str:
        text = super().unknown_key(key)
        if cls.registry.group and "did you mean" not in text:
            other = f"unknown key; it may be a {cls.registry.what} of a package that is not installed"
            text = "; ".join([text.replace("unknown key", other), *cls.registry.broken.values()])
        return str(cls.registry.broken.get(key, text))

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (type(self).__base__,), self.__getstate__()  # each process creates its class


@cache
def _with_kinds(base: type[K], kinds: tuple[Any, ...], doc: str | None) -> type[K]:
    fields: dict[str, Any] = {kind.key: base.kind_field(kind) for kind in kinds}
    return pydantic.create_model(base.__name__, __base__=base, __module__=base.__module__, __doc__=doc, **fields)


def _empty(base: type[K]) -> K:
    section = base.full()
    return section.__new__(section)


class OneKind(KindsSection):
    """Base of a section that contains the section of exactly one kind."""

    @property
    def kind(self) -> str:
        return self.requested[0].kind

    @property
    def section(self) -> Any:
        return self.requested[0].section

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(self.requested) != 1:
            raise ValueError(f"give either {' or '.join(kind.key for kind in self.kinds())}")
        return self


@dataclass(frozen=True)
class KindOf:
    """Marks a text that must be the key of a registry's kind; with `or_broken`, also of one that failed to import."""

    registry: Registry[Any]
    or_broken: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self.registry.kinds())}

    def _check(self, key: str) -> str:
        try:
            if not (self.or_broken and key in self.registry.broken):
                self.registry.find(key)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return key


_MAX_SECTIONS = 1000  # per list: each takes milliseconds to check


def one_or_several(section: Any, min_length: int = 0) -> BeforeValidator:
    """Mark a list of such sections. A single section may replace the list. If it may be empty, null may replace it."""

    def to_list(value: Any) -> Any:
        if value is None and not min_length:
            return ()
        if isinstance(value, list) and len(value) > _MAX_SECTIONS:
            raise ValueError(f"found {len(value):,}; accepted: at most {_MAX_SECTIONS:,}")
        return [value] if isinstance(value, dict) else value

    several: Any = Annotated[tuple[section, ...], Field(min_length=min_length)]
    return BeforeValidator(to_list, json_schema_input_type=section | several | (several if min_length else None))


def find_twice(names: Iterable[str]) -> str | None:
    """Return the first name, in alphabetical order, that occurs more than once."""
    return min((name for name, count in Counter(names).items() if count > 1), default=None)


def fault(key: str, text: str) -> PydanticCustomError:
    """Return the error of a validator, for a dotted key in its section. An empty key stands for the section itself."""
    return PydanticCustomError("fault", "{text}", {"text": text, "key": key})


def without_runtime(section: Section, plain: dict[str, Any]) -> dict[str, Any]:
    """Return a section's plain data without `runtime_fields`, including those of nested sections."""
    return {
        key: without_runtime(inner, value) if isinstance(inner := getattr(section, key, None), Section) else value
        for key, value in plain.items()
        if key not in section.runtime_fields
    }
