"""The recipes of the pages are read."""

import pytest

from curate.recipe.recipe import load_recipe
from tests.kit.pages import read_recipes


@pytest.mark.parametrize("recipe", read_recipes())
def test_recipes_of_pages_are_read(recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_recipe(str(tmp_path / "recipe.yaml")).input
