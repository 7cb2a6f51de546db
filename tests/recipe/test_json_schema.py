"""The JSON schema of recipes accepts what curate accepts, and rejects errors of form."""

from pathlib import Path

import jsonschema
import pytest

from curate.base.errors import RecipeError
from curate.cli.init import recipe_schema
from curate.recipe.recipe import parse_recipe
from curate.recipe.strict_yaml import load_yaml
from tests.kit.pages import read_recipes

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "pipelines/recipes").glob("*.yaml")), ROOT / "curate/demo/recipe.yaml"]
SOURCE = "input: {name: a, format: webdataset, path: '*.tar'}\n"
VALID = [
    "{}", "measure: null\nrules: null\noutput: null", "rules: {a: words > 2, b: {top: 0.3, of: words}}",
    "input: [{name: a, format: parquet, path: x}, {name: b, format: parquet, path: [x, y], columns: {caption: TEXT}}]",
    "input: {name: a, format: webdataset, path: x, join: {path: a.csv, on: url, columns: {mine: score}}}",
    "measure: {language: {}, clip: [{name: a, model: ViT-B-32}, {name: b, model: ViT-L-14}], text_area: null}",
    "dedup: {by: [uid, phash, phash: {distance: 4}]}\nmeasure: {image: {phash: true}}",
    "match: {metadata: m.json}\nbalance: {rows: 10}",
    "captions: {engines: {e: {recorded: {model: m, path: x}}, v: {vllm: {model: m}, price: {hour: 2.5}}},"
    " rewrite: [{engine: e, per_row: '2', styles: [coco]}, {engine: v, styles: [human]}]}",
]  # fmt: skip
INVALID = [
    "rulez: {}", "input: []", "input: {name: a, format: tar, path: x}", "input: {name: a, path: x}",
    "input: {name: a, format: webdataset, path: x, columns_: 1}", "measure: {langauge: {}}",
    "rules: {a: {top: 2, of: words}}", "rules: {a: 3}", "dedup: {by: [md5]}",
    "match: {metadata: m}\nbalance: {t: 0}", "output: {rows_per_shard: many}",
    "captions: {engines: {e: {gpt: {}}}, rewrite: {engine: e}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def load(fragment):
    return load_yaml(SOURCE) | load_yaml(fragment)


def test_recipes_are_valid(validator):
    for data in [*map(load_yaml, [*(path.read_text() for path in FILES), *read_recipes()]), *map(load, VALID)]:
        parse_recipe(data)
        validator.validate(data)


def test_errors_of_form_are_marked(validator):
    for text in INVALID:
        with pytest.raises(RecipeError):
            parse_recipe(load(text))
        assert not validator.is_valid(load(text)), text
