"""The recipe reference is current and describes every key and column, and every example in it is a valid recipe."""

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
from tests.recipe.reference import FOLDER, PAGES, Entry, entries, reference_pages

ENTRIES = entries()
VALIDATOR = jsonschema.Draft202012Validator(recipe_schema())


def test_the_pages_match_the_models():
    written = {page.name: page.read_text("utf-8") for page in PAGES}
    assert reference_pages() == written, "run `python -m tests.recipe.reference`"


def test_the_index_links_to_all_sections_and_recipes():
    index = (FOLDER / "README.md").read_text("utf-8")
    assert [entry.title for entry in ENTRIES if f"]({entry.page}#{entry.anchor})" not in index] == []
    assert [path.name for path in FOLDER.glob("*.yaml") if f"]({path.name})" not in index] == []


@pytest.mark.parametrize("entry", [Entry("", Recipe, Recipe.model_fields, {}), *ENTRIES], ids=lambda entry: entry.title)
def test_a_key_has_a_meaning_and_valid_examples(entry):
    described = entry.section.model_json_schema()["properties"]
    for name in entry.fields:
        field = entry.section.model_fields[name]
        meaning = described[field.alias or name]["description"]
        assert meaning.endswith("."), name
        assert field.examples, name
        for example in field.examples:
            assert example != field.default or example == {} or field.default in ("metaclip", "reference", "uid"), name
            try:
                entry.section.model_validate({field.alias or name: example})
            except ValidationError as error:  # of other keys, which are missing, there may be some
                assert not [fault for fault in error.errors() if (field.alias or name) in fault["loc"]]


@pytest.mark.parametrize(
    "block", [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
)
def test_an_example_is_a_recipe(block):
    data = load_yaml(block)
    recipe = {"input": {"name": "a", "format": "webdataset", "path": "a.tar"}} | data
    assert parse_recipe(recipe).input
    VALIDATOR.validate(recipe)
    assert all(len(line) <= 130 for line in block.splitlines())


def test_every_section_and_every_kind_has_its_place():
    described = {entry.section for entry in ENTRIES}
    assert {kind.section for kind in KINDS} <= described
    top = {entry.title.partition(".")[0].partition(",")[0] for entry in ENTRIES}
    scalars = {"name", "license", "seed", "derive", "blocklist", "max_failed", "max_missing", "max_failed_files"}
    assert top == set(Recipe.model_fields) - scalars
    order = [name for name in Recipe.model_fields if name in top]
    assert list(dict.fromkeys(entry.title.partition(".")[0].partition(",")[0] for entry in ENTRIES)) == order


# ---- columns


ARROW = {"float": "float32", "double": "float64"}


def type_of(field):
    text = str(field.type).replace("item: ", "")
    return ARROW.get(text, text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_a_signal_says_the_columns_that_it_builds(kind):
    """With every key that adds columns. Building a signal loads nothing."""
    example = {"words": True} | kind.section.example if kind.key == "clip" else kind.section.example
    measure = Measure.full().model_validate({"clip": {"model": "m"}, kind.key: example})
    known, built = defaultdict(partial(defaultdict, str)), {}
    columns, filled, named = {}, set(), ""
    for key, name, section in measure.requested:
        signals = list(SIGNALS.find(key).build(name, section, BuildContext(known, built)))
        built |= {signal.name: signal for signal in signals}
        if key == kind.key:
            columns |= {field.name: type_of(field) for signal in signals for field in signal.columns}
            filled |= {*filled_columns(signals)}
            named = name
            break
    said = {(one.table, one.name.replace("NAME", named)): one.type for one in kind.section.gives}
    assert columns == {name: type_ for (table, name), type_ in said.items() if table == "scores"}
    assert filled == {name for table, name in said if table == "samples"}


def test_every_column_of_a_table_comes_of_a_section():
    for table, columns in {
        "samples": schema.SAMPLES, "matches": [*schema.MATCHES, schema.LANGUAGE_KEY], "captions": schema.CAPTIONS,
        "decisions": [*schema.DECISIONS, schema.REPEATS, schema.DUPLICATE_COSINE],
    }.items():  # fmt: skip
        given = {column.name: column.type for entry in ENTRIES for column in entry.gives if column.table == table}
        types = {field.name: type_of(field) for field in columns}
        assert given == {name: type_ for name, type_ in types.items() if name in given}
        assert set(types) - set(given) <= {"unit", "row", "uid"}
