"""What an engine misses on this machine is told before anything is planned, with what to do."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.base.errors import RecipeError
from curate.store.store import RunStore
from pipelines.engine_checks import check_engine, check_folder
from pipelines.options import parse_options
from pipelines.prepare import prepare
from pipelines.spark.options import SparkOptions
from tests.laws import pools


def check(*words: str) -> None:
    options = parse_options(words)
    check_engine(options.runner, options.options)


def write_java(folder: Path, version: str) -> None:
    """A program that answers as Java of a version does, to be found as java."""
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)


@pytest.mark.parametrize(
    ("spark", "java", "is_enough"),
    [
        ("4.3.0", "17.0.15", True),
        ("4.3.0", "21", True),
        ("4.3.0", "11.0.2", False),
        ("4.3.0", "1.8.0_392", False),
        ("3.5.8", "1.8.0_392", True),
        ("3.5.8", "11.0.2", True),
        ("3.5.8", "1.7.0_80", False),
    ],
)
def test_java_of_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: str, java: str, is_enough: bool
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__=spark))
    write_java(tmp_path, java)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if is_enough:
        check("--runner=spark")
        return
    with pytest.raises(RecipeError, match=rf"Spark {spark} needs Java .*, but {tmp_path}/bin/java is Java .*JAVA_HOME"):
        check("--runner=spark")


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__="4.3.0"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = pools.recipe_of(str(tmp_path / "none.parquet"), "parquet")
    with pytest.raises(RecipeError, match=r"Spark 4.3.0 needs Java 17 or later, but none is found: .*; install one"):
        prepare(recipe, str(tmp_path / "out"), options=["--runner=spark"])  # before it looks for the pool
    with pytest.raises(RecipeError, match=r"SparkRunner, Beam's own, needs Java for its job server, but none is found"):
        check("--runner=SparkRunner")


@pytest.mark.parametrize("runner", ["SparkRunner", "FlinkRunner"])
def test_the_job_server_of_beams_own_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    write_java(tmp_path, "17")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    option = f"--{runner[:5].lower()}_job_server_jar"
    jar = tmp_path / "job-server.jar"
    with pytest.raises(RecipeError, match=rf"curate is not tested on.*{option}=FILE.*--job_endpoint.*runner: spark"):
        check(f"--runner={runner}", f"{option}={jar}")
    jar.touch()
    check(f"--runner={runner}", f"{option}={jar}")
    check(f"--runner={runner}", "--job_endpoint=localhost:1")


def test_dataflow_with_a_local_folder() -> None:
    with pytest.raises(RecipeError, match=r"--out /shared/out: is on this machine, .*; accepted: gs://"):
        check_folder("DataflowRunner", RunStore("/shared/out"))
    check_folder("spark", RunStore("/shared/out"))
    check_folder("DataflowRunner", RunStore("memory://out"))


def test_prism_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"PrismRunner needs the program prism.*--prism_location=FILE \(go install"):
        check("--runner=prism", f"--prism_location={tmp_path}/prism")
    (tmp_path / "prism").touch()
    check("--runner=prism", f"--prism_location={tmp_path}/prism")


def test_a_setting_of_spark_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__="4.3.0"))
    write_java(tmp_path, "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        RecipeError, match=r"--spark_conf executor.memory=4g: not a setting of Spark; accepted: such as"
    ):
        check("--runner=spark", "--spark_conf=executor.memory=4g")
    for url in ("host:7077", "spark://host", "spark://a:7077,b"):
        with pytest.raises(RecipeError, match=rf"--spark_master_url {url}: accepted: local\[N\], spark://HOST:PORT"):
            check("--runner=spark", f"--spark_master_url={url}")
    for url in (
        "local",
        "local[*]",
        "local-cluster[2,1,1024]",
        "spark://a:7077,b:7077",
        "spark://[::1]:7077",
        "yarn",
        "k8s://https://host:443",
    ):
        check("--runner=spark", f"--spark_master_url={url}")


def test_an_executor_has_the_gpus_of_a_task() -> None:
    """A process keeps the GPU of its first task, and two of an executor could come to have the same."""
    amounts = ["--spark_conf=spark.executor.resource.gpu.amount=2", "--spark_conf=spark.task.resource.gpu.amount=1"]
    options = parse_options(["--runner=spark", *amounts]).options
    with pytest.raises(ValueError, match=r"gpu.amount: 2, but a task has 1; accepted: the same number for both"):
        options.view_as(SparkOptions).read_conf()
    for amount in ("0.5", "1"):
        words = [
            "--spark_conf=spark.executor.resource.gpu.amount=1",
            f"--spark_conf=spark.task.resource.gpu.amount={amount}",
        ]
        parse_options(["--runner=spark", *words]).options.view_as(SparkOptions).read_conf()
