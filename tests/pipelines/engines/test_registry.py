"""The engines by key, and an engine from another package."""

import os
from pathlib import Path

import pytest
import yaml

from curate.cli.init import engines
from curate.recipe.files import shipped_folder
from pipelines.engines.registry import ENGINES
from tests import kit
from tests.kit import forked
from tests.kit.packages import lay_out

ROOT = Path(__file__).parents[3]
# An engine with an option of its own, and a default for one of Beam's.
MODULE = """
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from curate.plugins import PipelineEngine, WorkerLocation

class Options(PipelineOptions):
    @classmethod
    def _add_argparse_args(cls, parser):
        parser.add_argument("--shed_name")

class Shed(PipelineEngine):
    key = "shed"
    runner = "FnApiRunner"
    defaults = ("--direct_num_workers=2",)
    place = WorkerLocation.LOCAL_CLUSTER

    def check_workers(self, context, units, report):
        workers = self.options.view_as(DirectOptions).direct_num_workers
        report(f"shed {self.options.view_as(Options).shed_name}: {len(units)} unit, {workers} workers")
"""


def test_each_engine_has_a_key_of_its_own_and_options_in_infra():
    assert list(ENGINES.kinds()) == ["local", "spark", "prism", "dataflow"]
    files = {path.stem for path in shipped_folder("infra").glob("*.yaml")} - {"prices"}
    assert set(engines()) == files <= set(ENGINES.kinds())


@pytest.mark.slow
def test_an_engine_of_another_package(tmp_path):
    package = lay_out(tmp_path / "site", "my-engines", "engines", {"shed": "my_shed:Shed"}, my_shed=MODULE)
    recipe, on = tmp_path / "recipe.yaml", tmp_path / "shed.yaml"
    path = kit.write_parquets(tmp_path / "pool", kit.make_rows(20), 1)
    recipe.write_text(yaml.safe_dump({"input": {"name": "pool", "format": "parquet", "path": path}, "max_failed": 1.0}))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}

    def run(text):
        on.write_text(text)
        return forked.run("run", recipe, "--out", tmp_path / "run", "--on", on, env=environment, cwd=tmp_path)

    refused = run("shed_name: north")
    assert refused.returncode == 2 and "--shed_name needs runner: shed" in refused.stderr
    refused = run("runner: shde")
    assert "did you mean 'shed'? accepted: local, spark, prism, dataflow, shed; a runner of Beam" in refused.stderr
    done = run("runner: shed\nshed_name: north")
    assert done.returncode == 0, done.stderr
    assert "shed north: 1 unit, 2 workers" in done.stderr and (tmp_path / "run/_SUCCESS").exists()
