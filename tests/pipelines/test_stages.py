"""How many stages Beam fuses the pipeline into: each is a barrier, and a step that a cluster schedules."""

from pathlib import Path

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.curate import build
from pipelines.driver import prepare
from tests.laws import pools


def test_a_rich_recipe_has_at_most_45_stages(tmp_path: Path) -> None:
    """Two top rules, passes uid, sha256 and phash, and a solved t."""
    path = pools.write_tars(tmp_path / "tars", pools.make_samples(12), 2)
    recipe = pools.recipe_of(
        path,
        measure={"image": {"phash": True}},
        match={"metadata": pools.write_metadata(tmp_path)},
        rules={"wide": {"top": 0.9, "of": "width"}, "high": {"top": 0.9, "of": "height"}},
        dedup={"by": ["uid", "sha256", "phash"]},
        balance={"rows": 3},
    )
    prepared = prepare(recipe, str(tmp_path / "run"))
    root = beam.Pipeline(options=prepared.beam.options)
    build(root, prepared.context, prepared.plan.units)
    _, stages = FnApiRunner().create_stages(root.to_runner_api())
    assert len(stages) <= 45
