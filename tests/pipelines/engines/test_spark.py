"""curate checks what Spark needs on this machine before it plans the run."""

import sys
from types import SimpleNamespace

import pytest

from curate.base.errors import RecipeError
from pipelines.engines.choose import choose_engine
from pipelines.prepare import prepare
from pipelines.spark.context import SparkOptions
from tests import kit
from tests.pipelines.engines.java import check, write_java


@pytest.mark.parametrize(
    ("spark", "java", "is_enough"),
    [
        ("4.3.0", "17.0.15", True), ("4.3.0", "21", True), ("4.3.0", "11.0.2", False), ("4.3.0", "1.8.0_392", False),
        ("3.5.8", "1.8.0_392", True), ("3.5.8", "11.0.2", True), ("3.5.8", "1.7.0_80", False),
    ],
)  # fmt: skip
def test_java_of_a_version(tmp_path, monkeypatch, spark, java, is_enough):
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__=spark))
    write_java(tmp_path, java)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if is_enough:
        check("--runner=spark")
        return
    with pytest.raises(RecipeError, match=rf"Spark {spark} needs Java .*, but {tmp_path}/bin/java is Java .*JAVA_HOME"):
        check("--runner=spark")


def test_no_java(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__="4.3.0"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = kit.recipe_of(str(tmp_path / "none.parquet"), "parquet")
    with pytest.raises(RecipeError, match=r"Spark 4.3.0 needs Java 17 or later, but none is found: .*; install one"):
        prepare(recipe, str(tmp_path / "out"), options=["--runner=spark"])  # before it looks for the pool


def test_a_setting_of_spark_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__="4.3.0"))
    write_java(tmp_path, "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(RecipeError, match=r"--spark_conf executor.memory=4g: is not a Spark setting; accepted:"):
        check("--runner=spark", "--spark_conf=executor.memory=4g")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    for url in ("host:7077", "spark://host", "spark://a:7077,b"):
        with pytest.raises(RecipeError, match=rf"--spark_master_url {url}: accepted: local\[N\], spark://HOST:PORT"):
            check("--runner=spark", f"--spark_master_url={url}")
    addresses = "spark://a:7077,b:7077 spark://[::1]:7077 yarn k8s://https://host:443"
    for url in f"local local[*] local-cluster[2,1,1024] {addresses}".split():
        check("--runner=spark", f"--spark_master_url={url}")


def test_an_executor_has_the_gpus_of_a_task():
    """A process keeps the GPU of its first task, so two processes in an executor could share a GPU."""
    amounts = ["--spark_conf=spark.executor.resource.gpu.amount=2", "--spark_conf=spark.task.resource.gpu.amount=1"]
    options = choose_engine(["--runner=spark", *amounts]).options
    with pytest.raises(
        ValueError, match=r"gpu.amount: 2, but spark.task.resource.gpu.amount: 1; accepted: the same number for both"
    ):
        options.view_as(SparkOptions).read_conf()
    for amount in ("0.5", "1"):
        words = [f"--spark_conf=spark.{of}.resource.gpu.amount={n}" for of, n in (("executor", "1"), ("task", amount))]
        choose_engine(["--runner=spark", *words]).options.view_as(SparkOptions).read_conf()
