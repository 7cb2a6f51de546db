"""Templates of prompts: versioned text files of the package, or a user's own file.

A template is text with fields in braces, such as {caption}. Those of chats are cut into turns by lines that hold
[system], [user] or [assistant] and nothing else. All other braces and brackets are text.

Captions are untrusted: a template is cut into turns and fields before a value is put in, which is never parsed again
and holds no line break (`as_data`). In chats it must be between delimiters that it cannot hold, as
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
    """What a template of a name is like; all fields but the optional ones must be in it, and no others."""

    name: str  # of the package's file, NAME.VERSION.txt in folder templates
    version: str  # a text that changes gets a new one
    fields: tuple[str, ...] = ()  # fields whose values are the package's own text
    data: tuple[str, ...] = ()  # fields whose values are untrusted: `as_data` is put in for them
    optional: tuple[str, ...] = ()  # fields as in `fields`, which a template may leave out
    is_chat: bool = True  # whether it is cut into turns
    others: str = ""  # which other fields there are, and when, for messages

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
    version: str  # the package's, such as v1; or `sha256:` and 12 digits, of a user's
    text: str  # with its fields

    @property
    def fields(self) -> frozenset[str]:
        """The fields that are in it."""
        return frozenset(_FIELD.findall(self.text))

    def prompt(self, **values: str) -> str:
        """Return the prompt that a model completes, with values for its fields; those of `Form.data` become data."""
        data = {field: as_data(value) if field in self.form.data else value for field, value in values.items()}
        return _FIELD.sub(lambda field: data[field[1]], self.text)  # in one pass: a value may look like a field

    def messages(self, **values: str) -> tuple[Message, ...]:
        """Return the turns of the chat, of a template that is one; as `prompt`."""
        return tuple(Message(role, replace(self, text=text).prompt(**values)) for role, text in _turns(self.text))


def read_lines(path: str, purpose: str) -> list[str]:
    """Return the lines of a user's file, which a recipe names for a purpose. Raises RecipeError if it is unreadable."""
    try:
        text = read_whole(path, _MAX_BYTES).decode()
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; the recipe names it as {purpose}") from None
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"{path}: cannot be read as {purpose}: {error}") from None
    return text.removeprefix("\ufeff").splitlines()


def load_template(form: Form, path: str | None = None, check: Callable[..., Iterable[str]] = lambda _: ()) -> Template:
    """Return the package's template, or the user's in its place, at a local path or any fsspec URL.

    Raises RecipeError, which names file and field, where it cannot be read; and with all faults, each a line, where it
    has an unknown field, lacks one, does not end with a turn of the user, shows a stranger's text without delimiters,
    or `check` yields some.
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
            yield f"line {line.strip()} begins no part; {near}accepted: {', '.join(f'[{role}]' for role in _ROLES)}"
    before, turns = _TURN.split(text)[0].strip(), _turns(text)
    if not turns or before:
        yield f"begins with {before[:40]!r}; accepted: a line [system] or [user] before any text"
    if turns and turns[-1][0] != "user":
        yield f"the last turn is [{turns[-1][0]}]; accepted: [user], which the model answers"
    for field in form.data:
        wrapped = f"<{field}>{{{field}}}</{field}>"
        if text.count(f"{{{field}}}") != text.count(wrapped):
            yield f"{{{field}}} is not between its delimiters; accepted: {wrapped}"


def _turns(text: str) -> list[tuple[str, str]]:
    parts = _TURN.split(text)[1:]
    return [(role, turn.strip()) for role, turn in zip(parts[::2], parts[1::2], strict=True)]
