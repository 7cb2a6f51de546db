"""The page of all keys is current, says of each key and column what it is, and every example on it is a recipe."""

import re
from collections import defaultdict
from functools import partial

import jsonschema
import pytest
from pydantic import ValidationError

from curate.base import schema
from curate.cli.init import recipe_schema
from curate.recipe.measure import SIGNALS, Measure
from curate.recipe.recipe import Recipe, parse_recipe
from curate.recipe.strict_yaml import load_yaml
from curate.signals.registry import KINDS
from curate.signals.signal import BuildContext, filled_columns
from tests.recipe.reference import PAGE, Entry, entries, reference_page

TEXT = PAGE.read_text("utf-8")
ENTRIES = entries()
VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())
ODD = re.compile(r"\b(is told|is wished|as long as|stands? for|alike|of which is)\b", re.IGNORECASE)


def test_the_page_is_what_the_models_say():
    assert reference_page() == TEXT, "run `python -m tests.recipe.reference`"


def properties(part, path=""):
    """Each key of a JSON schema, at any depth."""
    if isinstance(part, dict):
        for name, one in part.get("properties", {}).items() if isinstance(part.get("properties"), dict) else ():
            yield f"{path}.{name}", one
        for name, one in part.items():
            yield from properties(one, f"{path}.{name}")
    elif isinstance(part, list):
        for one in part:
            yield from properties(one, path)


def test_editors_show_a_meaning_and_an_example_of_every_key():
    found = dict(properties(recipe_schema()))
    assert len(found) > 180
    assert not [path for path, one in found.items() if not one.get("description")]
    assert not [path for path, one in found.items() if "const" not in one and not one.get("examples")]


@pytest.mark.parametrize("entry", [Entry("", Recipe, Recipe.model_fields, {}), *ENTRIES], ids=lambda entry: entry.title)
def test_a_key_has_a_short_meaning_and_examples_that_are_accepted(entry):
    described = entry.section.model_json_schema()["properties"]
    for name in entry.fields:
        field = entry.section.model_fields[name]
        meaning = described[field.alias or name]["description"]
        assert meaning.endswith(".") and not ODD.search(meaning), name
        assert field.examples, name
        for example in field.examples:
            assert example != field.default or example == {} or field.default in ("metaclip", "reference", "uid"), name
            try:
                entry.section.model_validate({field.alias or name: example})
            except ValidationError as error:  # of other keys, which are missing, there may be some
                assert not [fault for fault in error.errors() if (field.alias or name) in fault["loc"]]


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_an_example_is_a_recipe(block):
    data = load_yaml(block)
    recipe = {"input": {"name": "a", "format": "webdataset", "path": "a.tar"}} | data
    assert parse_recipe(recipe).input
    VALIDATOR.validate(recipe)
    assert all(len(line) <= 130 for line in block.splitlines())


ANCHORS = [
    re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
]


def test_every_link_leads_to_a_heading():
    assert len(set(ANCHORS)) == len(ANCHORS)
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= set(ANCHORS)
    assert all((PAGE.parent / link).is_file() for link in re.findall(r"\]\(([^#)]+)\)", TEXT))


def test_links_from_other_pages_lead_to_a_heading():
    root = PAGE.parents[2]
    pages = [root / "README.md", *(root / "curate").rglob("*.md"), *(root / "infra").glob("*.md")]
    found = [link for page in pages for link in re.findall(r"recipes/README\.md#([^)\s]+)\)", page.read_text("utf-8"))]
    assert found and set(found) <= set(ANCHORS)


def test_every_section_and_every_kind_has_its_place():
    described = {entry.section for entry in ENTRIES}
    assert {kind.section for kind in KINDS} <= described
    top = {entry.title.partition(".")[0].partition(",")[0] for entry in ENTRIES}
    scalars = {"name", "license", "seed", "derive", "blocklist", "max_failed", "max_missing", "max_failed_files"}
    assert top == set(Recipe.model_fields) - scalars
    order = [name for name in Recipe.model_fields if name in top]
    assert list(dict.fromkeys(entry.title.partition(".")[0].partition(",")[0] for entry in ENTRIES)) == order


# ---- columns


def said(section, table, name):
    return {column.name.replace("NAME", name): column.type for column in section.gives if column.table == table}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_a_signal_says_the_columns_that_it_builds(kind):
    """All of those that it may build: with every key that adds some. Building loads nothing."""
    more = {"words": True} if kind.key == "clip" else {}
    measure = Measure.full().model_validate(
        {"clip": {"model": "m"}, kind.key: more | kind.section.example if more else kind.section.example}
    )
    known = defaultdict(partial(defaultdict, str))
    built = {}
    found = {}
    samples = set()
    name = ""
    for key, name, section in measure.requested:
        for signal in SIGNALS.find(key).build(name, section, BuildContext(known, built)):
            built[signal.name] = signal
            if key == kind.key:
                found |= {field.name: str(field.type).replace("item: ", "") for field in signal.columns}
                samples |= set(filled_columns([signal]))
        if key == kind.key:
            break
    arrow = {"float": "float32", "double": "float64"}
    spelt = {column: arrow.get(type_, type_) for column, type_ in found.items()}
    assert spelt == said(kind.section, "scores", name)
    assert samples == set(said(kind.section, "samples", name))


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("samples", schema.SAMPLES),
        ("matches", [*schema.MATCHES, schema.LANGUAGE_KEY]),
        ("decisions", [*schema.DECISIONS, schema.REPEATS, schema.DUPLICATE_COSINE]),
        ("captions", schema.CAPTIONS),
    ],
)
def test_every_column_of_a_table_comes_of_a_section(table, columns):
    given = {column.name: column.type for entry in ENTRIES for column in entry.gives if column.table == table}
    arrow = {"float": "float32", "double": "float64"}
    types = {field.name: str(field.type).replace("item: ", "") for field in columns}
    assert given == {name: arrow.get(type_, type_) for name, type_ in types.items() if name in given}
    assert set(types) - set(given) <= {"unit", "row", "uid"}
