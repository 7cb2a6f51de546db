"""Generates the recipe reference, pipelines/recipes/*.md, from the models of a recipe's sections and the recipes there.

tests/recipe/pages/ has a template for each page. A template places the generated part for each section: the first line
of its docstring, an example, its keys with type, default and description, the columns it adds (`Section.gives`), and
the rest of its docstring up to `Attributes:`, which are for developers. Sections from other packages are left out.

`python -m tests.recipe.reference` writes the pages.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoints
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import jinja2
import yaml
from pydantic.fields import FieldInfo

from curate.base.errors import RecipeError
from curate.base.schema import SAMPLES
from curate.recipe.captions import Captions, CaptionSection
from curate.recipe.files import shipped_folder
from curate.recipe.measure import Measure
from curate.recipe.recipe import Recipe, parse_recipe
from curate.recipe.section import BuiltFrom, Column, OneKind, Section
from curate.recipe.source import FORMATS, Source

FOLDER = shipped_folder("pipelines") / "recipes"
_TEMPLATES = Path(__file__).parent / "pages"
# The page of each section of a recipe; the other keys are in README.md.
_PAGES = {
    "input": "input.md", "measure": "measure.md", "relate": "measure.md", "match": "match.md", "rules": "rules.md",
    "dedup": "rules.md", "balance": "selections.md", "sample": "selections.md", "captions": "captions.md",
    "output": "output.md",
}  # fmt: skip
PAGES = tuple(FOLDER / name for name in ("README.md", *dict.fromkeys(_PAGES.values())))
_CLIP = {"clip": {"model": "ViT-L-14", "pretrained": "openai", "embeddings": True}}
# What an example may need besides its section: the first one with which it is a recipe is shown with it.
_NEEDS: tuple[dict[str, Any], ...] = (
    {},
    {"match": {"metadata": "metadata.json"}},
    {"measure": _CLIP},
    {"measure": {"image": {"phash": True}}},
    {"captions": {"recaption": {"engine": "vlm"}}},
    {"captions": {"recaption": {"engine": "vlm", "styles": ["plain"]}}},
    {"captions": Recipe.model_fields["captions"].examples[0]},  # type: ignore[index]
)
_INPUT = {"name": "a", "format": "webdataset", "path": "a.tar"}

_FORMS = {
    "section": "keys that take one section",
    "section or list of sections": "keys that take one section or a list of sections",
    "mapping of names to sections": "keys that take a mapping of names to sections",
}
_PLAIN = {"string": "text", "boolean": "boolean", "integer": "integer", "number": "number"}

Fill = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A section of a page."""

    title: str  # its dotted key, with NAME where the recipe names something
    section: type[Section]
    fields: Mapping[str, FieldInfo]  # those of its fields that are listed
    fragment: dict[str, Any]  # an example, as plain data of a recipe without `input`

    @property
    def key(self) -> str:
        """The top-level key that it belongs to."""
        return self.title.partition(".")[0].partition(",")[0]

    @property
    def page(self) -> str:
        """The name of its page."""
        return _PAGES.get(self.key, "README.md")

    @property
    def level(self) -> int:
        """The level of its heading, from 2."""
        return 3 if "," in self.title else min(4, 1 + sum(step != "NAME" for step in self.title.split(".")))

    @property
    def anchor(self) -> str:
        """Its anchor, as GitHub makes it."""
        return re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")

    @property
    def link(self) -> str:
        """A link to it from the index, without the top-level key."""
        name = self.title if self.level == 2 else self.title[len(self.key) :].lstrip(",. ")
        return f"[`{name}`]({self.page}#{self.anchor})"

    @property
    def text(self) -> tuple[str, str]:
        """The first line of the docstring, and the rest for users."""
        summary, _, notes = inspect.cleandoc(self.section.__doc__ or "").partition("\n")
        return summary, notes.partition("\n\nAttributes:")[0].strip()

    @property
    def yaml(self) -> str:
        """The example."""
        return _yaml(self.fragment, None, 100)

    @property
    def gives(self) -> tuple[Column, ...]:
        """The columns that come of it, and not of all sections of its kind."""
        is_format = issubclass(self.section, Source) and self.section is not Source
        return () if is_format and self.section.gives is Source.gives else self.section.gives


@cache
def entries() -> tuple[Entry, ...]:
    """Return the sections in the order of a recipe."""
    return tuple(_walk(Recipe, "", dict, set()))


def has_new_example(entry: Entry) -> bool:
    """Return whether an entry has an example that no entry before it has."""
    return bool(entry.fragment) and entry is next(one for one in entries() if one.fragment == entry.fragment)


def keys_of(entry: Entry) -> list[list[str]]:
    """Return the rows of an entry's table, each a key and its other cells, without the keys of `sections_of`."""
    schema, linked = entry.section.model_json_schema()["properties"], "".join(sections_of(entry).values())
    rows = (_cells(name, field, schema[field.alias or name], entry.page) for name, field in entry.fields.items())
    return [row for row in rows if f"[{row[0]}]" not in linked]


def sections_of(entry: Entry) -> dict[str, str]:
    """Return links to the sections of keys whose meaning is the first line of a section on the same page, by form."""
    schema = entry.section.model_json_schema()["properties"]
    links: dict[str, list[str]] = {form: [] for form in _FORMS.values()}
    for name, field in entry.fields.items():
        inner, (key, kind, _, meaning) = _inner(field), _cells(name, field, schema[field.alias or name], entry.page)
        form = _FORMS.get(re.sub(r"\[(\w+)\]\(.*?\)", r"\1", kind))
        if form and inner and inner.page == entry.page and meaning == inner.text[0]:
            links[form].append(f"[{key}](#{inner.anchor})")
    return {form: ", ".join(keys) for form, keys in links.items() if keys}


@patch("curate.base.registry._installed", EntryPoints)
def reference_pages() -> dict[str, str]:
    """Return the pages in Markdown, by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= {
        "recipe": Entry("", Recipe, Recipe.model_fields, {}), "entries": entries(), "has_new_example": has_new_example,
        "keys_of": keys_of, "sections_of": sections_of, "recipes": list(_recipes()), "samples": SAMPLES.names[2:-3],
    }  # fmt: skip
    texts = {page.name: environment.get_template(page.name).render() for page in PAGES}
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in texts.items()}


class ShippedRecipe(NamedTuple):
    """A recipe of the package, as the comment at its head describes it: `# PURPOSE (SOURCE).` and `# Differs: …`."""

    name: str
    purpose: str
    source: str
    differs: str  # Markdown; empty where it does what was published


def _recipes() -> Iterator[ShippedRecipe]:
    for path in sorted(FOLDER.glob("*.yaml")):
        lines = path.read_text("utf-8").splitlines()
        match = re.fullmatch(r"# (.*?)(?: \(([^()]*arXiv[^()]*)\))?\.", lines[0])
        assert match, f"{path.name}: its first line is {lines[0]!r}"
        head = "\n".join(line[2:] for line in takewhile(lambda line: line.startswith("#"), lines))
        differs = head.partition("Differs: ")[2].partition("\n\n")[0]
        yield ShippedRecipe(path.stem, match[1], match[2] or "", differs)


# ---- the walk


def _walk(section: type[Section], title: str, fill: Fill, known: set[type[Section]]) -> Iterator[Entry]:
    """Yield the sections that a section's fields hold, each class once; `fill` makes recipe data of the section's."""
    for name, field in section.model_fields.items():
        if section is Recipe and name == "input":
            yield from _walk_sources(known)
            continue
        key, example = field.alias or name, (field.examples or [None])[0]
        for inner, steps in _sections(field):
            if inner not in known:
                path, fields = ".".join(filter(None, [title, key, *steps])), inner.model_fields
                # of one format
                if title == "input" and any(getattr(base, "model_fields", {}) for base in inner.__bases__):
                    path = f"{path}, format: {fill({})['input']['format']}"
                    fields = {name: field for name, field in fields.items() if name in inner.__annotations__}
                if issubclass(inner, CaptionSection):
                    if CaptionSection not in known:
                        yield Entry(f"{title}, shared keys", CaptionSection, CaptionSection.model_fields, {})
                    known.add(CaptionSection)
                    fields = {name: field for name, field in fields.items() if name not in CaptionSection.model_fields}
                known.add(inner)
                yield Entry(path, inner, fields, _complete(fill({key: example})))
                yield from _walk(inner, path, partial(_nest, fill, key, example, inner), known)


def _walk_sources(known: set[type[Section]]) -> Iterator[Entry]:
    """Yield the keys of all sources, those of each format, and what they hold."""
    shared = Source.model_fields
    yield Entry("input", Source, shared, {"input": Recipe.model_fields["input"].examples[0]})  # type: ignore[index]
    for key, kind in FORMATS.kinds().items():
        fields, example = kind.section.model_fields, kind.section.example
        listed = {name: field for name, field in fields.items() if name in kind.section.__annotations__}
        yield Entry(f"input, format: {key}", kind.section, listed, {"input": example})
        yield from _walk(kind.section, "input", partial(lambda of, inner: {"input": of | inner}, example), known)


def _nest(fill: Fill, key: str, example: Any, section: type[Section], inner: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's data with `inner` in a section as its key's example has it: itself, by name, or in a list.

    By name it keeps the example's other keys, but those of other kinds than the one that `inner` chooses.
    """
    if isinstance(example, list):
        return fill({key: [inner]})
    if not isinstance(example, dict) or set(example) <= set(section.model_fields):
        return fill({key: inner})
    name, value = next(iter(example.items()))
    kinds = {kind.key for kind in section.kinds()} if issubclass(section, OneKind) else set()
    dropped = kinds if kinds & set(inner) else set()
    return fill({key: {name: {key: kept for key, kept in value.items() if key not in dropped} | inner}})


def _complete(example: dict[str, Any]) -> dict[str, Any]:
    """Return an example with what it needs to be a recipe, but for `input`. Raises ValueError where it can be none."""
    for more in _NEEDS:
        recipe = _merge(more, example)
        try:
            parse_recipe({"input": _INPUT} | recipe)
        except RecipeError as error:
            fault = error
            continue
        return _in_order(recipe)
    raise ValueError(f"the example {example} is no recipe: {fault}")


def _in_order(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's data in the order of the fields, which is also that of `measure` and `captions`."""
    orders = {"measure": Measure.full(), "captions": Captions.full()}
    for key in orders.keys() & recipe.keys():
        recipe[key] = {name: recipe[key][name] for name in orders[key].model_fields if name in recipe[key]}
    return {name: recipe[name] for name in Recipe.model_fields if name in recipe}


def _merge(first: Any, second: Any) -> Any:
    """Return two mappings as one, in any depth; elsewhere the second."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return first | {key: _merge(first.get(key), value) for key, value in second.items()}


def _sections(field: FieldInfo) -> Iterator[tuple[type[Section], tuple[str, ...]]]:
    """Yield the sections that a field may hold, and the steps that lead to it: NAME of one that the recipe names."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(typing.Annotated[field.annotation, *field.metadata, None], ())]
    while waiting:
        hint, steps = waiting.pop(0)
        for form in _alternatives(hint):
            arguments = typing.get_args(form)
            if isinstance(form, type) and issubclass(form, Section):
                yield form, steps
            elif typing.get_origin(form) is dict:
                waiting.append((arguments[1], (*steps, "NAME")))
            elif typing.get_origin(form) is tuple:
                waiting.append((arguments[0], steps))


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the types that a type hint allows, but None; unions are taken apart."""
    if typing.get_origin(hint) is typing.Annotated:
        built = [mark.make() for mark in hint.__metadata__ if isinstance(mark, BuiltFrom)]
        yield from _alternatives(built[0] if built else hint.__origin__)
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for form in typing.get_args(hint):
            yield from _alternatives(form)
    elif hint is not type(None):
        yield hint


# ---- the cells


def _cells(name: str, field: FieldInfo, schema: Mapping[str, Any], page: str) -> list[str]:
    """Return a key, its type, default and meaning, in Markdown; `page` is the one that they are on."""
    kind = _words(schema)
    if inner := _inner(field):
        link = f"{inner.page if inner.page != page else ''}#{inner.anchor}"
        kind = re.sub(r"sections?", rf"[\g<0>]({link})", kind, count=1)
    default = "required" if field.is_required() else _code(_plain(field.get_default(call_default_factory=True)))
    meaning = re.sub(r"\bnull:", "`null`:", schema["description"])
    return [f"`{field.alias or name}`", kind, default, _cell(meaning)]


def _inner(field: FieldInfo) -> Entry | None:
    """Return the section that a field holds."""
    places = {entry.section.__name__: entry for entry in reversed(entries())}
    names = ("Source" if issubclass(form, Source) else form.__name__ for form, _ in _sections(field))
    return next((places[name] for name in names if name in places), None)


def _plain(value: Any) -> Any:
    """Return a default as plain data, as YAML has it."""
    if isinstance(value, Section):
        return {}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _code(value: Any) -> str:
    """Return a value as YAML, in a cell."""
    return _cell(f"`{_yaml(value, True, float('inf')).strip()}`")


def _yaml(value: Any, flow: bool | None, width: float) -> str:
    """Return a value as recipes have it, where `on` and `off` are texts (see `strict_yaml`)."""
    text = yaml.safe_dump(value, default_flow_style=flow, width=width, allow_unicode=True, sort_keys=False)
    return re.sub(r"'(on|off)':", r"\1:", text.removesuffix("...\n"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _words(schema: Any, many: bool = False) -> str:
    """Return what a JSON schema accepts, in words; `many` of them."""
    kind, values = schema.get("type"), schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if forms := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_words(form, many) for form in forms if form.get("type") != "null"))
    if values:
        return ", ".join(f"`{value}`" for value in values)
    if kind == "array":
        items = schema.get("prefixItems")
        return f"list of {', '.join(map(_words, items)) if items else _words(schema['items'], True)}"
    if kind == "object" and "properties" not in schema:
        value = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties", True))
        return "mapping" if value is True else f"mapping of names to {_words(value, True)}"
    word = schema.get("format", _PLAIN.get(kind, "section"))
    return f"{word}{'s' * many}{_limits(schema)}"


def _limits(schema: Mapping[str, Any]) -> str:
    """Return the smallest and the largest accepted number; powers of 2 that types have are not limits."""
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    if minimum is not None and maximum is not None:
        return f" {minimum:g}–{maximum:,}"
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    limits = {"≥": minimum, ">": above, "≤": maximum, "<": below if below is not None and below < 2**31 else None}
    texts = [f" {sign} {limit:,g}" for sign, limit in limits.items() if limit is not None]
    return ",".join(texts)


if __name__ == "__main__":
    for name, text in reference_pages().items():
        (FOLDER / name).write_text(text, "utf-8")
