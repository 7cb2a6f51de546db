"""How many stages Beam fuses the pipeline into, each a barrier, and a step that a cluster schedules; and what they are called there."""

import pytest
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from pipelines.spark.translation import Group, Stage, translate
from tests import kit
from tests.pipelines.graphs import build_graph, count_stages

STEPS = {
    "Units",
    "Measure",
    "Match",
    "Rules",
    "Rule wide",
    "Rule high",
    "Counts",
    "Duplicates",
    "Balance",
    "Decide",
    "Emit",
}
STEPS |= {"Audit", "Uids", "Compact", "Publish"}


@pytest.fixture
def rich(tmp_path):
    """Two top rules, passes uid, sha256 and phash, and a solved t."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(12), 2)
    recipe = kit.recipe_of(
        path,
        measure={"image": {"phash": True}},
        match={"metadata": kit.write_metadata(tmp_path)},
        rules={"wide": {"top": 0.9, "of": "width"}, "high": {"top": 0.9, "of": "height"}},
        dedup={"by": ["uid", "sha256", "phash"]},
        balance={"rows": 3},
    )
    return build_graph(recipe, tmp_path / "run")


def test_a_rich_recipe_has_at_most_45_stages(rich):
    assert count_stages(rich) <= 45


def test_stages_on_spark_are_called_by_steps(rich):
    steps = translate(rich.to_runner_api(default_environment=EmbeddedPythonEnvironment.default()))
    names = [step.name for step in steps if isinstance(step, Stage | Group)]
    assert {name.split(": ")[0].removesuffix(" (grouped)") for text in names for name in text.split("; ")} == STEPS
    assert "Units: create, unpack; Measure; Match; Rules; Rule wide: digit 0" in names
