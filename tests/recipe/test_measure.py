"""The section of `measure` that gives a column."""

from curate.recipe.measure import measured_by
from curate.recipe.recipe import parse_recipe
from curate.recipe.strict_yaml import load_yaml


def test_the_section_of_a_column():
    for column, section in (
        ("language_score", "language: {}"), ("phash", "image: {phash: true}"), ("clip_score", "clip: {model: "),
        ("text_overlap", "text_area: {}"), ("in_selected_cluster", "clusters: {cluster: {"),
        ("setting_probability", "contexts: {setting: {"),
    ):  # fmt: skip
        hint = measured_by(column)
        assert hint.startswith(f"; to get {column}, add measure: {{{section}")
        measure = {"clip": {"model": "ViT-L-14", "pretrained": "openai"}}
        measure |= load_yaml(hint.partition(", add ")[2])["measure"]
        assert parse_recipe({"input": {"name": "a", "format": "webdataset", "path": "a.tar"}, "measure": measure})
    for column, sql in (("min_side", "least(width, height)"), ("Aspect", "/ least(width, height)")):
        assert "columns width and height: " in measured_by(column) and measured_by(column).endswith(sql)
    assert [measured_by(column) for column in ("width", "similarity", "name", "l14_image", "")] == [""] * 5
