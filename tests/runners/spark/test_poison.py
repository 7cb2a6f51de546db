"""An image that ends the Python worker of whatever executor measures it: on a cluster one run finds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.measure.deadly import check, install
from tests.runners.clusters import standalone

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.runners
def test_an_image_that_ends_its_worker_is_a_row_that_failed(tmp_path: Path) -> None:
    """Spark tries a task four times: three workers end with it, and the fourth measures the image apart.

    With the options that `curate init --on spark` writes: speculation, and executors that come and go.
    """
    install(tmp_path, "deadly")
    path = f"{tmp_path / 'site'}:{ROOT}"
    with standalone(tmp_path) as url:
        options = (ROOT / "infra/spark.yaml").read_text()
        options = options.replace("spark_master_url: local[4]", f"spark_master_url: {url}")
        memory = "spark.executor.memory: "
        options = options.replace(f"{memory}1g\n", f"{memory}512m\n  spark.executorEnv.PYTHONPATH: {path}\n")
        (tmp_path / "spark.yaml").write_text(options)
        command = [sys.executable, "-m", "curate", "run", "recipe.yaml", "--out", "run", "--on", "spark.yaml"]
        env = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "run", "deadly")
