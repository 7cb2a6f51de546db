"""A run on Dataflow as far as goes without Google.

The real client of Beam submits to a service and a store of the loopback. The pipeline that it staged, read back from the
store, then runs on Prism by Beam's boot, as the image starts it: in processes that have nothing of the driver's but what
is in the store.

**What only the real service can show** is listed in infra/README.md, "Dataflow".
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2 as protos
from apache_beam.runners.portability.prism_runner import PrismRunner
from apache_beam.runners.runner import PipelineState

from tests.laws import pools
from tests.runners.clusters import find_go_program, write_boot
from tests.runners.dataflow.conftest import BUCKET, Cloud, download, read, upload
from tests.runners.dataflow.service import Job
from tests.runners.test_engines import curate, digests, sections

pytestmark = pytest.mark.runners

ROOT = Path(__file__).resolve().parents[3]


def write_recipe(folder: Path) -> Path:
    """With images, near-duplicates, local files that steps need, and a solved t; the pool is in the store."""
    pools.write_tars(folder / "tars", pools.make_samples(60), 3)
    upload(folder / "tars", f"{BUCKET}/{folder.name}/tars")
    recipe = sections(folder, f"{BUCKET}/{folder.name}/tars/{{00000..00002}}.tar")
    recipe |= {"balance": {"rows": 45}, "output": {"rows_per_shard": 16}, "max_failed": 1.0}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def read_pipeline(job: Job) -> protos.Pipeline:
    """The pipeline that a job's request names, from the store."""
    url = job.request["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    return protos.Pipeline.FromString(read(url))


def run_on_prism(pipeline: protos.Pipeline, boot: str) -> str:
    """Run a staged pipeline in processes that boot starts; in Google's machines, boot is the image's entry point."""
    variables = {name: os.environ[name] for name in ("STORAGE_EMULATOR_HOST", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT")}
    for environment in pipeline.components.environments.values():
        assert environment.urn == "beam:env:docker:v1"
        environment.urn = "beam:env:process:v1"
        environment.payload = protos.ProcessPayload(command=boot, env=variables).SerializeToString()
        del environment.dependencies[:]  # a list of the driver's packages, for a warning
    words = [f"--prism_location={find_go_program('prism')}", "--job_server_timeout=600", "--experiments=beam_fn_api"]
    result = PrismRunner().run_portable_pipeline(pipeline, PipelineOptions(words))
    return str(result.wait_until_finish())


def install(folder: Path) -> Path:
    """An environment as the image's: curate's wheel with the pinned packages."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    [wheel] = (folder / "wheel").iterdir()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/pip"), "install", "-q", "--constraint", str(ROOT / "infra/requirements.lock")]
    subprocess.run([*pip, f"{wheel}[gcp]"], check=True)
    return folder / "venv"


@pytest.mark.parametrize("where", ["here", pytest.param("fresh", marks=pytest.mark.slow)])
def test_the_staged_pipeline_gives_the_same_bytes(where: str, cloud: Cloud, tmp_path: Path) -> None:
    """The driver waits for the job; workers have nothing of this machine. In a fresh environment, the driver is killed."""
    recipe, environment = write_recipe(tmp_path), None
    if where == "fresh":
        environment = install(tmp_path)
    out = f"{BUCKET}/{tmp_path.name}/run"
    running = cloud.start(str(recipe), "--out", out)
    try:
        job = cloud.wait_for_job(running)
        pipeline = read_pipeline(job)
        if environment:
            running.kill()
        away = [path.rename(f"{path}.away") for path in (recipe, *tmp_path.glob("*.txt"), tmp_path / "tars")]
        assert run_on_prism(pipeline, write_boot(tmp_path, environment)) == PipelineState.DONE
        for path in away:
            path.rename(str(path).removesuffix(".away"))
        job.state = "JOB_STATE_DONE"
        assert environment or running.wait(60) == 0, cloud.errors
    finally:
        running.kill()
    command = [sys.executable, "-m", "curate", "verify", out]
    assert "nothing differs" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    download(out, tmp_path / "there")
    here = curate(recipe, tmp_path / "here").files
    assert digests(tmp_path / "there") == here and len([name for name in here if name.endswith(".tar")]) >= 2
