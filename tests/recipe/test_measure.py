"""The section of `measure` that gives a column."""

import pytest

from curate.recipe.measure import measured_by
from curate.recipe.recipe import parse_recipe
from curate.recipe.strict_yaml import load_yaml


@pytest.mark.parametrize(
    ("column", "section"),
    [
        ("language_score", "language: {}"), ("phash", "image: {phash: true}"), ("clip_score", "clip: {model: "),
        ("text_overlap", "text_area: {}"), ("in_selected_cluster", "clusters: {cluster: {"),
        ("setting_probability", "contexts: {setting: {"),
    ],
)  # fmt: skip
def test_a_signal_gives_it(column, section):
    hint = measured_by(column)
    assert hint.startswith(f"; a signal gives {column}: measure: {{{section}")
    needs = {"measure": {"clip": {"model": "ViT-L-14", "pretrained": "openai"}}}
    measure = needs["measure"] | load_yaml(hint.partition(f"{column}: ")[2])["measure"]
    assert parse_recipe({"input": {"name": "a", "format": "webdataset", "path": "a.tar"}, "measure": measure})


@pytest.mark.parametrize(
    ("column", "sql"), [("min_side", "least(width, height)"), ("Aspect", "/ least(width, height)")]
)
def test_it_comes_from_the_sides(column, sql):
    hint = measured_by(column)
    assert "comes from columns width and height: " in hint and hint.endswith(sql)


def test_no_signal_gives_it():
    assert [measured_by(column) for column in ("width", "similarity", "name", "l14_image", "")] == [""] * 5
