"""Prompt templates: versioned text files in the package, or a user's own file.

A template is text with fields in braces, such as {caption}. In a chat template, lines with only [system], [user] or
[assistant] start a turn. All other braces and brackets are text.

Captions are untrusted. A template is split into turns and fields before values are filled in; values are never parsed
and contain no line break (`as_data`). In chats, they must be between delimiters that they cannot contain, such as
`<caption>{caption}</caption>`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean
from curate.captions.kinds.text import as_data
from curate.llm.engine import Message
from curate.recipe.files import read_whole


@dataclass(frozen=True)
class Form:
    """The fields that a template must have; it may have the optional ones too, and no others."""

    name: str  # the package's file is templates/NAME.VERSION.txt
    version: str  # raise it whenever the text changes
    fields: tuple[str, ...] = ()  # filled with the package's own text
    data: tuple[str, ...] = ()  # filled with untrusted text, cleaned by `as_data`
    optional: tuple[str, ...] = ()  # like `fields`, but a template may omit them
    is_chat: bool = True  # whether it has turns
    others: str = ""  # for messages: further fields, and when they exist

    @property
    def all_fields(self) -> tuple[str, ...]:
        return (*self.fields, *self.data, *self.optional)


_MAX_BYTES = 1 << 20
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_ROLES = ("system", "user", "assistant")
_TURN = re.compile(rf"^\[({'|'.join(_ROLES)})\][ \t]*$", re.MULTILINE)
_LIKE_TURN = re.compile(r"\s*\[\s*(\w+)\s*\]:?\s*")


@dataclass(frozen=True)
class Template:
    """A checked template."""

    form: Form
    version: str  # such as v1; for a user's file, `sha256:` and 12 digits
    text: str  # with unfilled fields

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it uses."""
        return frozenset(_FIELD.findall(self.text))

    def prompt(self, **values: str) -> str:
        """Return the prompt for a model to complete, with fields filled in; `as_data` cleans those in `Form.data`."""
        data = {field: as_data(value) if field in self.form.data else value for field, value in values.items()}
        return _FIELD.sub(lambda field: data[field[1]], self.text)  # one pass, since a value may look like a field

    def messages(self, **values: str) -> tuple[Message, ...]:
        """Return the turns of a chat template, filled in like `prompt`."""
        return tuple(Message(role, replace(self, text=text).prompt(**values)) for role, text in _turns(self.text))


def read_lines(path: str, purpose: str) -> list[str]:
    """Return the lines of a file that a recipe names; `purpose` is for messages. Raises RecipeError if unreadable."""
    try:
        text = read_whole(path, _MAX_BYTES).decode()
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; the recipe names it as {purpose}") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"{path}: cannot be read as {purpose}: {error}") from None
    return text.removeprefix("\ufeff").splitlines()


def load_template(form: Form, path: str | None = None, check: Callable[..., Iterable[str]] = lambda _: ()) -> Template:
    """Return the package's template, or the user's file at `path`, a local path or any fsspec URL.

    Raises RecipeError if the file cannot be read; and, with one line per error, if a field is unknown or missing, the
    last turn is not the user's, untrusted text has no delimiters, or `check` yields errors.
    """
    if path is None:
        file = files("curate.captions").joinpath("templates", f"{form.name}.{form.version}.txt")
        return Template(form, form.version, file.read_text("utf-8").strip())
    text = "\n".join(read_lines(path, f"the template of {form.name}"))
    template = Template(form, f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}", text.strip())
    if errors := [*_find_errors(template), *check(template)]:
        raise RecipeError("\n".join(f"{path}: {error}" for error in errors))
    return template


def _find_errors(template: Template) -> Iterator[str]:
    form, text = template.form, template.text
    accepted = f"fields of {form.name}: {', '.join(form.all_fields)}{form.others}"
    fields = dict.fromkeys(_FIELD.findall(text))
    for field in fields:
        if field not in form.all_fields:
            yield f"unknown field {{{field}}}; {did_you_mean(field, form.all_fields)}{accepted}"
    for field in form.all_fields:
        if field not in (*fields, *form.optional):
            yield f"field {{{field}}} is missing; {accepted}"
    if not form.is_chat:
        return
    for line in text.splitlines():
        if (name := _LIKE_TURN.fullmatch(line)) and not _TURN.match(line) and (near := did_you_mean(name[1], _ROLES)):
            yield f"line {line.strip()} is not a role; {near}accepted: {', '.join(f'[{role}]' for role in _ROLES)}"
    before, turns = _TURN.split(text)[0].strip(), _turns(text)
    if not turns or before:
        yield f"begins with {before[:40]!r}; accepted: a line [system] or [user] before any text"
    if turns and turns[-1][0] != "user":
        yield f"the last turn is [{turns[-1][0]}]; accepted: [user], which the model answers"
    for field in form.data:
        wrapped = f"<{field}>{{{field}}}</{field}>"
        if text.count(f"{{{field}}}") != text.count(wrapped):
            yield f"{{{field}}} is not inside its tags; accepted: {wrapped}"


def _turns(text: str) -> list[tuple[str, str]]:
    parts = _TURN.split(text)[1:]
    return [(role, turn.strip()) for role, turn in zip(parts[::2], parts[1::2], strict=True)]
