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
RECIPES = [*(path.read_text() for path in FILES), *read_recipes()]
SOURCE = {"name": "a", "format": "webdataset", "path": "*.tar"}


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_of_the_project_are_valid(text, validator):
    data = load_yaml(text)
    parse_recipe(data)
    validator.validate(data)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"input": [SOURCE, {"name": "b", "format": "parquet", "path": ["x", "y"], "columns": {"caption": "TEXT"}}]},
        {"input": SOURCE | {"join": {"path": "a.csv", "on": "url", "columns": {"mine": "score"}}}},
        {"measure": None, "rules": None, "output": None},
        {"measure": {"language": {}, "clip": [{"name": "a", "model": "ViT-B-32"}, {"name": "b", "model": "ViT-L-14"}], "text_area": None}},
        {"rules": {"a": "words > 2", "b": {"top": 0.3, "of": "words"}}},
        {"dedup": {"by": ["uid", "phash", {"phash": {"distance": 4}}]}, "measure": {"image": {"phash": True}}},
        {"match": {"metadata": "m.json"}, "balance": {"rows": 10}},
        {
            "captions": {
                "engines": {
                    "e": {"recorded": {"model": "m", "path": "x"}},
                    "v": {"vllm": {"model": "m"}, "price": {"hour": 2.5}},
                },
                "rewrite": [{"engine": "e", "per_row": "2", "styles": ["coco"]}, {"engine": "v", "styles": ["human"]}],
            }
        },
    ],
)  # fmt: skip
def test_what_curate_takes_is_valid(more, validator):
    recipe = {"input": SOURCE} | more
    try:
        parse_recipe(recipe)
    except RecipeError as error:
        pytest.fail(str(error))
    validator.validate(recipe)


@pytest.mark.parametrize(
    "more",
    [
        {"rulez": {}},
        {"input": []},
        {"input": SOURCE | {"format": "tar"}},
        {"input": SOURCE | {"columns_": 1}},
        {"input": {"name": "a", "path": "*.tar"}},
        {"measure": {"langauge": {}}},
        {"rules": {"a": {"top": 2, "of": "words"}}},
        {"rules": {"a": 3}},
        {"dedup": {"by": ["md5"]}},
        {"match": {"metadata": "m.json"}, "balance": {"t": 0}},
        {"output": {"rows_per_shard": "many"}},
        {"captions": {"engines": {"e": {"gpt": {}}}, "rewrite": {"engine": "e"}}},
    ],
)
def test_faults_of_form_are_marked(more, validator):
    recipe = {"input": SOURCE} | more
    with pytest.raises(RecipeError):
        parse_recipe(recipe)
    assert not validator.is_valid(recipe)
