"""`--on FILE`: an engine's options as YAML say what the same words say on a command line."""

import argparse

import pytest
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, SparkRunnerOptions

from curate.base.errors import RecipeError
from curate.run.units import WorkerLocation
from pipelines.engines.choose import choose_engine
from pipelines.spark.context import SparkOptions
from tests.pipelines.engines.test_choose import DATAFLOW


def read(folder, text, *words):
    path = folder / "engine.yaml"
    path.write_text(text)
    return choose_engine(words, str(path))


SPARK = """
runner: spark
spark_master_url: spark://host:7077
spark_conf: {spark.executor.memory: 2g, spark.task.cpus: 2, spark.ui.enabled: false}
experiments: [one, "two=2"]
"""


def test_a_file_is_the_same_options(tmp_path):
    found = read(tmp_path, SPARK)
    assert found.key == "spark" and found.place is WorkerLocation.CLUSTER
    conf = {"spark.executor.memory": "2g", "spark.task.cpus": "2", "spark.ui.enabled": "false"}
    assert found.options.view_as(SparkOptions).read_conf() == conf | {"spark.master": "spark://host:7077"}
    assert found.options.view_as(DebugOptions).experiments == ["one", "two=2"]


def test_what_follows_on_the_command_line_wins(tmp_path):
    words = ("--spark_master_url", "local[2]", "--spark_conf=spark.executor.memory=4g", "--spark_conf=spark.a=b")
    found = read(tmp_path, SPARK, *words)
    assert found.options.view_as(SparkRunnerOptions).spark_master_url == "local[2]"
    conf = found.options.view_as(SparkOptions).read_conf()
    assert (conf["spark.executor.memory"], conf["spark.task.cpus"], conf["spark.a"]) == ("4g", "2", "b")
    assert read(tmp_path, SPARK, "--runner=local").key == "local"
    assert read(tmp_path, "runner: local\ndirect_num_workers: 2", "--runner", "spark").key == "spark"


@pytest.mark.parametrize(
    ("text", "runner"),
    [
        ("", "FnApiRunner"),
        ("# nothing but comments", "FnApiRunner"),
        ("runner: local", "FnApiRunner"),
        ("runner: prism", "PrismRunner"),
        ("runner: spark", "Spark"),
        ("runner: Spark", "Spark"),  # of which Beam makes its own
        ("runner: SparkRunner", "SparkRunner"),  # Beam's own, by a Java job server
        ("runner: flink\nwhat_a_job_server_knows: {a: 1}\nand_a_flag: true", "FlinkRunner"),
        ("runner: pipelines.spark.SparkRunner", "Spark"),
        ("runner: dataflow\nproject: project\nregion: us-central1\nsdk_container_image: curate", "Dataflow"),
        ("runner: DataflowRunner\nproject: project\nregion: us-central1\nsdk_container_image: curate", "Dataflow"),
    ],
)
def test_names_of_runners(tmp_path, text, runner):
    assert read(tmp_path, text).name == runner


def test_ours_are_named_after_the_dashes_too():
    assert choose_engine(["--runner=dataflow", *DATAFLOW]).key == "dataflow"
    assert choose_engine(["--runner", "prism"]).key == "prism"
    default, local = choose_engine([]), choose_engine(["--runner", "local", "--direct_num_workers=3"])
    assert local.key == default.key == "local" and local.place is WorkerLocation.THIS_PROCESS
    assert local.options.view_as(DirectOptions).direct_num_workers == 3


def test_the_work_of_prism_is_done_where_its_environment_is(tmp_path):
    assert read(tmp_path, "runner: prism").place is WorkerLocation.THIS_PROCESS
    text = "runner: prism\nenvironment_type: EXTERNAL\nenvironment_options: {external_service_address: localhost:1}"
    assert read(tmp_path, text).place is WorkerLocation.PROCESSES


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "runner: sparc",
            ["runner", "'sparc'", "did you mean 'spark'?", "local, spark, prism, dataflow", "PrismRunner"],
        ),
        ("runner: no.such.Runner", ["no.such.Runner", "No module named"]),
        ("runner: local\nmax_worker: 3", ["max_worker", "did you mean", "max_num_workers"]),
        ("runner: spark\nspark_cnf: {a: b}", ["spark_cnf", "did you mean 'spark_conf'?"]),
        ("direct_num_workers: many", ["direct_num_workers", "'many'"]),
        ("direct_running_mode: threads", ["direct_running_mode", "'threads'", "multi_threading"]),
        ("direct_running_mode: [in_memory]", ["direct_running_mode", "['in_memory']", "one value"]),
        ("streaming: 1", ["streaming", "found 1", "true or false"]),
        ("spark_conf: {spark.a: null}", ["spark_conf.spark.a", "None"]),
        ("job_name: 2026-01-02", ["job_name", "quote all else"]),
        ("--runner: spark", ["--runner", "runner: VALUE"]),
        ("runner: spark\nrunner: local", ["'runner'", "twice", "line 2"]),
        ("a: 1\nb: : 2", ["not valid YAML", "line 2"]),
        ("[runner, spark]", ["['runner', 'spark']", "a YAML mapping"]),
    ],
)
def test_what_is_refused(tmp_path, text, parts, capsys):
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    parts = [f"--on {tmp_path}/engine.yaml", *parts]
    assert not [part for part in parts if part not in str(caught.value)], str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_a_runner_that_the_words_name_wrongly_is_theirs(tmp_path):
    with pytest.raises(RecipeError, match=r"^Beam options --runner=sparc: no runner 'sparc'; did you mean"):
        read(tmp_path, "runner: spark", "--runner=sparc")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        RecipeError, match=r"--on .*spark: no such file of options; accepted: .*`curate init --on ENGINE` writes one"
    ):
        choose_engine([], str(tmp_path / "spark"))


def test_what_is_private_of_argparse():
    """Its parser says only in private which options there are, and which of them take a value, once."""
    parser = argparse.ArgumentParser()
    plain, flag = parser.add_argument("--plain"), parser.add_argument("--flag", action="store_true")
    more = parser.add_argument("--more", action="append")
    assert [parser._option_string_actions.get(f"--{name}") for name in ("plain", "flag", "none")] == [plain, flag, None]
    assert isinstance(plain, argparse._StoreAction) and not isinstance(more, argparse._StoreAction)
    assert flag.nargs == 0
