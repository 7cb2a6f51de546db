"""What executors lack is one error before a run writes anything, and says what to do."""

import os
import re
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from safetensors.torch import save_file

from curate.base.errors import RecipeError, RunError
from pipelines.driver import preflight
from pipelines.prepare import prepare
from pipelines.spark.probe import probe
from tests import kit
from tests.pipelines.spark.contexts import stop
from tests.runners.clusters import standalone

pytestmark = pytest.mark.runners

WORDS = ("--runner=spark", "--spark_master_url=local[2]", "--spark_conf=spark.ui.enabled=false")


@pytest.fixture
def recipe(tmp_path):
    return kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(12), 2))


@pytest.fixture
def stopping(monkeypatch):
    """Whatever context a test leaves to the pipeline that does not come is stopped; the environment is as it was."""
    stop()
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    yield
    os.environ.pop("PYSPARK_PYTHON", None)
    stop()


def write_python(path, *lines):
    """A program that is this Python, after some lines of a shell."""
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {sys.executable} "$@"\n']))
    path.chmod(0o755)
    return str(path)


def refused(recipe, out, *words, kind=RunError):
    """The error, and nothing was written."""
    prepared = prepare(recipe, out, options=(*WORDS, *words))
    with pytest.raises(kind) as caught:
        preflight(prepared)
    assert "://" in out or not os.path.exists(out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("stopping")
def test_nothing_is_wrong(recipe, tmp_path):
    words = [*WORDS, "--spark_conf=spark.ui.enabled=true"]
    lines = []
    preflight(prepare(recipe, str(tmp_path / "new/out"), options=words), lines.append)
    assert re.fullmatch(r"Spark \d\S+ at local\[2,4\]; its page: http://\S+:\d+", lines[-1])
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("stopping")
def test_a_process_sees_the_gpu_of_its_executor(tmp_path):
    """Spark takes whatever a worker says that it has."""
    script = tmp_path / "gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["5"]}\'\n')
    script.chmod(0o755)
    conf = {f"{name}.resource.gpu.amount": "1" for name in ("worker", "executor", "task")}
    conf |= {"worker.resource.gpu.discoveryScript": str(script), "task.cpus": "2", "executor.memory": "512m"}
    words = [f"--spark_conf=spark.{name}={value}" for name, value in conf.items()]
    master = "--spark_master_url=local-cluster[1,2,1024]"  # a worker of two cores, as a process of its own
    options = PipelineOptions([*WORDS, master, *words, f"--spark_exchange={tmp_path}"])
    found = probe(options, {}, lambda _: [f"{os.environ['CUDA_VISIBLE_DEVICES']} of {os.environ['SPARK_TASK_CPUS']}"])
    assert list(found) == ["5 of 2"]


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("apache_beam", "1.2.3", "the executor has apache_beam 1.2.3, but the driver has 2."),
        ("curate", None, "the executor cannot import curate, but the driver has 0."),
    ],
)
def test_another_version(recipe, tmp_path, name, version, said):
    (tmp_path / name).mkdir()
    code = f'__version__ = "{version}"' if version else 'raise ImportError("broken")'
    (tmp_path / name / "__init__.py").write_text(code)
    python = write_python(tmp_path / "python", f"cd {tmp_path}", f"export PYTHONPATH={tmp_path}:$PYTHONPATH")
    message = refused(recipe, str(tmp_path / "out"), f"--spark_conf=spark.pyspark.python={python}")
    assert said in message and message.endswith("accepted: the same versions on executors and driver")


@pytest.mark.usefixtures("stopping")
def test_no_python(recipe, tmp_path, capfd):
    python = f"{tmp_path}/none/python"
    message = refused(recipe, str(tmp_path / "out"), f"--spark_conf=spark.pyspark.python={python}")
    assert f"executors have no program {python}; accepted: a Python on the executors: spark.pyspark.python" in message
    assert "\tat " not in capfd.readouterr().err  # no traces of Java's


@pytest.mark.slow  # Spark asks a master for a minute
def test_a_cluster_of_another_spark(recipe, stopping, tmp_path):
    if "SPARK_3" not in os.environ:
        pytest.skip("no Spark 3.5: pip install --target FOLDER 'pyspark>=3.5,<4', and SPARK_3=FOLDER")
    (tmp_path / "cluster").mkdir()
    with standalone(tmp_path / "cluster", Path(os.environ["SPARK_3"], "pyspark")) as url:
        text = refused(recipe, str(tmp_path / "run"), f"--spark_master_url={url}")
    assert re.search("refused an application with Spark 4.*; check .* runs the same version", text)


def test_another_python(recipe, tmp_path, spark, monkeypatch):
    here = "{}.{}".format(*sys.version_info)
    monkeypatch.setattr(spark, "pythonVer", "3.99")
    message = refused(recipe, str(tmp_path / "out"))
    assert f"Python {here} on executors, and 3.99 on the driver; accepted: the same minor version" in message


def test_no_master(recipe, tmp_path):
    message = refused(recipe, str(tmp_path / "out"), "--spark_master_url=spark://127.0.0.1:9")
    assert "no master answers at spark://127.0.0.1:9 (127.0.0.1:9: " in message


@pytest.mark.usefixtures("spark")
def test_folders_that_are_another_ones_on_executors(recipe, tmp_path):
    """In fsspec's memory each process has files of its own, as each machine has without a shared disk."""
    message = refused(recipe, "memory://probe/out", kind=RecipeError)
    assert message.startswith(
        "--out memory://probe/out: executors do not see the files that this machine writes there; acc"
    )
    assert not fsspec.filesystem("memory").find("/probe")
    message = refused(recipe, str(tmp_path / "out"), "--spark_exchange=memory://exchange", kind=RecipeError)
    assert message.startswith("--spark_exchange memory://exchange: executors do not see")


@pytest.mark.usefixtures("spark")
def test_inputs_that_are_not_there(tmp_path):
    with fsspec.open("memory://probed/pool.parquet", "wb") as file:
        pq.write_table(pa.table({"url": ["a"], "caption": ["b"]}), file)
    recipe = kit.recipe_of("memory://probed/pool.parquet", "parquet")
    message = refused(recipe, str(tmp_path / "out"), kind=RecipeError)
    assert ": executors cannot read " in message and "probed/pool.parquet" in message and " (on " in message


@pytest.mark.usefixtures("spark")
def test_a_model_that_cannot_be_loaded(tmp_path):
    """It changes once the run is prepared: executors load what they measure with, and compare it."""
    head = tmp_path / "head.safetensors"
    save_file({"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}, head)
    vectors = [np.ones(4, np.float32)] * 3
    pool = pa.table({"url": ["a", "b", "c"], "caption": ["x"] * 3, "image": vectors, "text": vectors})
    pq.write_table(pool, tmp_path / "pool.parquet")
    embeddings = {"name": "clip", "image": "image", "text": "text"}
    measure = {"embeddings": [embeddings], "heads": {"good": {"of": "clip", "path": str(head)}}}
    recipe = kit.recipe_of(str(tmp_path / "pool.parquet"), "parquet", measure=measure)
    prepared = prepare(recipe, str(tmp_path / "out"), options=WORDS)
    head.unlink()
    with pytest.raises(RecipeError, match=r"executors cannot load signal 'good': .*head.safetensors.* \(on "):
        prepared.engine.check_workers(prepared.context, prepared.plan.units, print)
