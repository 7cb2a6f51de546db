"""The engine that is chosen, and where its steps work: what Beam reads, in whatever words it was said."""

import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from curate.base.errors import RecipeError
from curate.run.units import WorkerLocation
from pipelines.engines.choose import choose_engine
from pipelines.prepare import prepare
from tests import kit

DATAFLOW = [
    "--project=project",
    "--region=us-central1",
    "--sdk_container_image=curate",
    "--temp_location=gs://bucket/temp",
]
HERE, PROCESSES, ELSEWHERE = WorkerLocation.THIS_PROCESS, WorkerLocation.PROCESSES, WorkerLocation.CLUSTER


class OwnRunner(StandardOptions):
    """Something that is no runner, to be named by its dotted path."""


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ([], HERE),
        (["--direct_num_workers", "2"], HERE),
        (["--direct_running_mode=multi_processing"], PROCESSES),
        (["--direct_running_mode", "multi_processing"], PROCESSES),
        (["--job_name=multi_processing"], HERE),
        (["--direct_running_mode=multi_processing", "--direct_running_mode=in_memory"], HERE),
        (["--runner", "FnApiRunner"], HERE),
        (["--runner=direct"], HERE),
        (["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], HERE),
        (["--runner=TestDirectRunner"], HERE),
        (["--runner", "DataflowRunner", *DATAFLOW], ELSEWHERE),
        (["--runner=dataflow", *DATAFLOW], ELSEWHERE),
        ([*DATAFLOW, "--runner=apache_beam.runners.dataflow.dataflow_runner.DataflowRunner"], ELSEWHERE),
        (["--runner=FnApiRunner", "--runner", "SparkRunner"], ELSEWHERE),
        (["--runner", "SparkRunner", "--what_only_a_job_server_knows=3"], ELSEWHERE),
        (["--runner=SparkRunner", "--job_name=FnApiRunner"], ELSEWHERE),
        (
            ["--runner=spark", "--spark_master_url=local[2]", "--spark_conf", "spark.ui.enabled=false"],
            WorkerLocation.LOCAL_CLUSTER,
        ),
        (["--runner=pipelines.spark.SparkRunner", "--spark_exchange=/shared"], WorkerLocation.LOCAL_CLUSTER),
        (["--runner=spark", "--spark_master_url=spark://host:7077"], ELSEWHERE),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1"], ELSEWHERE),
    ],
)
def test_where_the_work_is_done(words, where):
    assert choose_engine(words).place is where


@pytest.mark.parametrize("words", [["--runner=spark"], ["--runner", "spark"], ["--runner=pipelines.spark.SparkRunner"]])
def test_spark_is_the_runner_on_pyspark(words):
    assert choose_engine(words).key == "spark"
    assert choose_engine(["--runner=SparkRunner"]).name == "SparkRunner"  # Beam's, by a Java job server


def test_the_defaults_are_for_who_names_no_runner():
    def read(*words):
        options = choose_engine(words).options
        direct = options.view_as(DirectOptions)
        return options.view_as(StandardOptions).runner, direct.direct_num_workers, direct.direct_running_mode

    assert read() == read("--runner", "FnApiRunner") == ("FnApiRunner", 1, "in_memory")
    assert read("--direct_num_workers", "3") == ("FnApiRunner", 3, "in_memory")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--runner"], ["--runner", "expected one argument"]),
        (["--runner="], ["--runner=", "DataflowRunner"]),
        (["--runner", "Nosuch"], ["--runner Nosuch", "DataflowRunner"]),
        (["--runner=no.such.Runner"], ["no.such.Runner", "No module named"]),
        (["--runner=os.nothing"], ["os.nothing", "no attribute"]),
        ([f"--runner={__name__}.OwnRunner"], ["OwnRunner"]),
        (["--runner", "DataflowRunner"], ["--runner DataflowRunner", "project", "region"]),
        (["--direct_num_workers", "many"], ["--direct_num_workers", "'many'"]),
        (["--direct_running_mode=threads"], ["'threads'", "multi_threading"]),
        (["--resource_hint=x"], ["resource hint", "x"]),
        (["--runn=DataflowRunner"], ["Beam does not know --runn=DataflowRunner", "did you mean '--runner'?"]),
        (["-runner", "DataflowRunner"], ["Beam does not know -runner DataflowRunner", "did you mean '--runner'?"]),
        (["--direct_num_workers", "2", "stray"], ["Beam does not know stray"]),
        (["--spark_master_url=spark://host:7077"], ["--spark_master_url needs runner: spark"]),
        (["--runner=DataflowRunner", *DATAFLOW, "--max_workers=9"], ["Beam does not know --max_workers=9"]),
    ],
)
def test_what_is_refused(words, parts, capsys):
    with pytest.raises(RecipeError) as caught:
        choose_engine(words)
    assert not [part for part in parts if part not in str(caught.value)], str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_a_run_is_prepared_for_the_runner_that_is_chosen(tmp_path):
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(12), 1))
    for words, where in (([], HERE), (["--runner", "PortableRunner", "--job_endpoint=localhost:1"], ELSEWHERE)):
        assert prepare(recipe, str(tmp_path / "out"), options=words).context.place is where
