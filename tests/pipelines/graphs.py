"""A small recipe, the pipeline of a recipe, and how many stages Beam fuses it into."""

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipelines.curate import build
from pipelines.prepare import prepare
from pipelines.steps.units import BeamUnits
from tests import kit


def make_recipe(folder, **sections):
    path = folder / "pool"
    if not path.exists():
        kit.write_parquets(path, kit.make_rows(12), 1)
    return kit.recipe_of(str(path / "00000.parquet"), "parquet", **({"rules": {"long": "words > 1"}} | sections))


def build_graph(recipe, out):
    """Build the pipeline of a run in `out`."""
    prepared = prepare(recipe, str(out))
    root, plan = beam.Pipeline(options=prepared.engine.options), prepared.plan.units
    units = BeamUnits(root, plan, prepared.context)
    build(units, prepared.context, plan)
    units.finish()
    return root


def count_stages(graph):
    """Count the fused stages: each is a barrier, and a step that a cluster schedules."""
    return len(FnApiRunner().create_stages(graph.to_runner_api())[1])
