"""A run on Dataflow as far as goes without Google.

The real client of Beam submits to a service and a store of the loopback. The pipeline that it staged, read back from the
store, then runs on Prism by Beam's boot, as the image starts it: in processes that have nothing of the driver's but what
is in the store.

**What only the real service can show** is listed in infra/dataflow.md, "What is tested".
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apache_beam.runners.runner import PipelineState

from tests import kit
from tests.kit.articles import ARTICLES, RULES, write_folders
from tests.runners.clusters import write_boot
from tests.runners.dataflow.loopback import BUCKET, download, read_pipeline, start_on_prism, upload
from tests.runners.runs import curate, digests

pytestmark = pytest.mark.runners

ROOT = Path(__file__).resolve().parents[3]


def write_recipe(folder):
    """With images, near-duplicates, local files that steps need, and a solved t; the pool is in the store."""
    kit.write_tars(folder / "tars", kit.make_samples(60), 3)
    upload(folder / "tars", f"{BUCKET}/{folder.name}/tars")
    path = f"{BUCKET}/{folder.name}/tars/{{00000..00002}}.tar"
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": path},
        "match": {"metadata": kit.write_metadata(folder)},
        "measure": {"language": {}, "image": {"phash": True}},
        "rules": {"words": "words > 2", "wide": {"top": 0.9, "of": "width"}},
        "dedup": {"by": ["uid", "sha256", {"phash": {"distance": 4}}]},
        "balance": {"rows": 45},
        "output": {"rows_per_shard": 16},
        "max_failed": 1.0,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def write_articles(folder):
    """Over articles in the store."""
    for article in write_folders(folder / "pmc", ARTICLES).iterdir():
        upload(article, f"{BUCKET}/{folder.name}/pmc/{article.name}")
    source = {"name": "pmc", "format": "pmc", "path": f"{BUCKET}/{folder.name}/pmc"}
    recipe = {"input": source, "rules": RULES, "max_failed": 1.0, "output": {"rows_per_shard": 5}}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def install(folder):
    """An environment as the image's: curate's wheel with the pinned packages."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheel")]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    [wheel] = (folder / "wheel").iterdir()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/pip"), "install", "-q", "--constraint", str(ROOT / "infra/requirements.lock")]
    subprocess.run([*pip, f"{wheel}[gcp]"], check=True)
    return folder / "venv"


@pytest.mark.parametrize(
    ("write", "where"),
    [(write_recipe, "here"), (write_articles, "here"), pytest.param(write_recipe, "fresh", marks=pytest.mark.slow)],
)
def test_the_staged_pipeline_gives_the_same_bytes(write, where, cloud, tmp_path):
    """The driver waits for the job; workers have nothing of this machine. In a fresh environment, the driver is killed."""
    recipe, environment = write(tmp_path), None
    if where == "fresh":
        environment = install(tmp_path)
    out = f"{BUCKET}/{tmp_path.name}/run"
    running = cloud.start(str(recipe), "--out", out)
    try:
        job = cloud.wait_for_job(running)
        pipeline, _ = read_pipeline(job)
        if environment:
            running.kill()
        local = [recipe, *tmp_path.glob("*.txt"), *tmp_path.glob("tars"), *tmp_path.glob("pmc")]
        away = [path.rename(f"{path}.away") for path in local]
        assert start_on_prism(pipeline, write_boot(tmp_path, environment)).wait_until_finish() == PipelineState.DONE
        for path in away:
            path.rename(str(path).removesuffix(".away"))
        job.state = "JOB_STATE_DONE"
        assert environment or running.wait(300) == 0, cloud.errors
    finally:
        running.kill()
    command = [sys.executable, "-m", "curate", "verify", out]
    assert "nothing differs" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    download(out, tmp_path / "there")
    here = curate(recipe, tmp_path / "here")
    assert digests(tmp_path / "there") == here and len([name for name in here if name.endswith(".tar")]) >= 2
