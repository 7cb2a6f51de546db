"""Which engine curate chooses, by options after `--` or by the file of `--on`, and where its steps run."""

import pytest
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, SparkRunnerOptions, StandardOptions

from curate.base.errors import RecipeError
from curate.run.units import WorkerLocation
from pipelines.engines.choose import choose_engine
from pipelines.prepare import prepare
from pipelines.spark.context import SparkOptions
from tests import kit

DATAFLOW = "--project=project --region=us-central1 --sdk_container_image=curate --temp_location=gs://bucket/temp"
HERE, PROCESSES, ELSEWHERE = WorkerLocation.THIS_PROCESS, WorkerLocation.PROCESSES, WorkerLocation.CLUSTER
SPARK = """
runner: spark
spark_master_url: spark://host:7077
spark_conf: {spark.executor.memory: 2g, spark.task.cpus: 2, spark.ui.enabled: false}
experiments: [one, "two=2"]
"""


class OwnRunner(StandardOptions):
    """A class that is not a runner."""


def read(folder, text, *words):
    path = folder / "engine.yaml"
    path.write_text(text)
    return choose_engine(words, str(path))


PARALLEL, BEAM = "multi_processing", "--runner=apache_beam.runners"
PLACES = {
    HERE: [
        "", "--direct_num_workers 2", f"--job_name={PARALLEL}", "--runner FnApiRunner", "--runner=direct", "--runner=TestDirectRunner",
        f"--direct_running_mode={PARALLEL} --direct_running_mode=in_memory", f"{BEAM}.portability.fn_api_runner.FnApiRunner",
    ],
    PROCESSES: [f"--direct_running_mode={PARALLEL}", f"--direct_running_mode {PARALLEL}"],
    ELSEWHERE: [
        f"--runner DataflowRunner {DATAFLOW}", f"--runner=dataflow {DATAFLOW}", f"{DATAFLOW} {BEAM}.dataflow.dataflow_runner.DataflowRunner",
        "--runner=FnApiRunner --runner SparkRunner", "--runner SparkRunner --what_only_a_job_server_knows=3",
        "--runner=SparkRunner --job_name=FnApiRunner", "--runner=spark --spark_master_url=spark://host:7077",
        "--runner=PortableRunner --job_endpoint=localhost:1",
    ],
    WorkerLocation.LOCAL_CLUSTER: [
        "--runner=spark --spark_master_url=local[2] --spark_conf spark.ui.enabled=false",
        "--runner=pipelines.spark.SparkRunner --spark_exchange=/shared",
    ],
}  # fmt: skip


def test_where_the_work_is_done():
    for place, options in PLACES.items():
        assert {words: choose_engine(words.split()).place for words in options} == dict.fromkeys(options, place)


CLOUD = "project: project\nregion: us-central1\nsdk_container_image: curate"
NAMES = {
    "": "FnApiRunner", "# nothing but comments": "FnApiRunner", "runner: local": "FnApiRunner", "runner: prism": "PrismRunner",
    "runner: spark": "Spark", "runner: Spark": "Spark",  # of which Beam makes its own
    "runner: SparkRunner": "SparkRunner",  # Beam's own, by a Java job server
    "runner: flink\nwhat_a_job_server_knows: {a: 1}\nand_a_flag: true": "FlinkRunner", "runner: pipelines.spark.SparkRunner": "Spark",
    f"runner: dataflow\n{CLOUD}": "Dataflow", f"runner: DataflowRunner\n{CLOUD}": "Dataflow",
}  # fmt: skip


def test_names_of_runners(tmp_path):
    assert {text: read(tmp_path, text).name for text in NAMES} == NAMES


def test_defaults_apply_where_no_runner_is_named():
    def read(*words):
        options = choose_engine(words).options
        direct = options.view_as(DirectOptions)
        return options.view_as(StandardOptions).runner, direct.direct_num_workers, direct.direct_running_mode

    assert read() == read("--runner", "FnApiRunner") == ("FnApiRunner", 1, "in_memory")
    assert read("--direct_num_workers", "3") == read("--runner", "local", "--direct_num_workers=3")
    assert read("--direct_num_workers", "3") == ("FnApiRunner", 3, "in_memory")


def test_a_file_is_the_same_options(tmp_path):
    found = read(tmp_path, SPARK)
    assert found.key == "spark" and found.place is ELSEWHERE
    conf = {"spark.executor.memory": "2g", "spark.task.cpus": "2", "spark.ui.enabled": "false"}
    assert found.options.view_as(SparkOptions).read_conf() == conf | {"spark.master": "spark://host:7077"}
    assert found.options.view_as(DebugOptions).experiments == ["one", "two=2"]


def test_the_command_line_wins_over_the_file(tmp_path):
    words = ("--spark_master_url", "local[2]", "--spark_conf=spark.executor.memory=4g", "--spark_conf=spark.a=b")
    found = read(tmp_path, SPARK, *words)
    assert found.options.view_as(SparkRunnerOptions).spark_master_url == "local[2]"
    conf = found.options.view_as(SparkOptions).read_conf()
    assert (conf["spark.executor.memory"], conf["spark.task.cpus"], conf["spark.a"]) == ("4g", "2", "b")
    assert read(tmp_path, SPARK, "--runner=local").key == "local"
    assert read(tmp_path, "runner: local\ndirect_num_workers: 2", "--runner", "spark").key == "spark"


def test_prism_works_where_its_environment_is(tmp_path):
    assert read(tmp_path, "runner: prism").place is HERE
    text = "runner: prism\nenvironment_type: EXTERNAL\nenvironment_options: {external_service_address: localhost:1}"
    assert read(tmp_path, text).place is PROCESSES


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--runner", ["--runner", "expected one argument"]), ("--runner=", ["--runner=", "DataflowRunner"]),
        ("--runner Nosuch", ["--runner Nosuch", "DataflowRunner"]), ("--runner=os.nothing", ["os.nothing", "no attribute"]),
        ("--runner=no.such.Runner", ["no.such.Runner", "No module named"]), (f"--runner={__name__}.OwnRunner", ["OwnRunner"]),
        ("--runner DataflowRunner", ["--runner DataflowRunner", "project", "region"]),
        ("--direct_num_workers many", ["--direct_num_workers", "'many'"]), ("--resource_hint=x", ["resource hint", "x"]),
        ("--direct_running_mode=threads", ["'threads'", "multi_threading"]),
        ("--runn=DataflowRunner", ["Beam has no option --runn=DataflowRunner", "did you mean '--runner'?"]),
        ("-runner DataflowRunner", ["Beam has no option -runner DataflowRunner", "did you mean '--runner'?"]),
        ("--direct_num_workers 2 stray", ["Beam has no option stray"]),
        ("--spark_master_url=spark://host:7077", ["--spark_master_url needs runner: spark"]),
        (f"--runner=DataflowRunner {DATAFLOW} --max_workers=9", ["Beam has no option --max_workers=9"]),
    ],
)  # fmt: skip
def test_refused_words(words, parts, capsys):
    with pytest.raises(RecipeError) as caught:
        choose_engine(words.split())
    assert not [part for part in parts if part not in str(caught.value)], str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("runner: sparc", ["runner", "'sparc'", "did you mean 'spark'?", "local, spark, prism, dataflow", "PrismRunner"]),
        ("runner: no.such.Runner", ["no.such.Runner", "No module named"]),
        ("runner: local\nmax_worker: 3", ["max_worker", "did you mean", "max_num_workers"]),
        ("runner: spark\nspark_cnf: {a: b}", ["spark_cnf", "did you mean 'spark_conf'?"]),
        ("direct_num_workers: many", ["direct_num_workers", "'many'"]),
        ("direct_running_mode: threads", ["direct_running_mode", "'threads'", "multi_threading"]),
        ("direct_running_mode: [in_memory]", ["direct_running_mode", "['in_memory']", "one value"]),
        ("streaming: 1", ["streaming", "found 1", "true or false"]),
        ("spark_conf: {spark.a: null}", ["spark_conf.spark.a", "None"]),
        ("job_name: 2026-01-02", ["job_name", "quote other values"]),
        ("--runner: spark", ["--runner", "runner: VALUE"]),
        ("runner: spark\nrunner: local", ["'runner'", "twice", "line 2"]),
        ("a: 1\nb: : 2", ["not valid YAML", "line 2"]),
        ("[runner, spark]", ["['runner', 'spark']", "a YAML mapping"]),
        (None, ["no such file of options", "`curate init --on ENGINE` writes one"]),
    ],
)  # fmt: skip
def test_refused_files(tmp_path, text, parts, capsys):
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text) if text is not None else choose_engine([], f"{tmp_path}/engine.yaml")
    parts = [f"--on {tmp_path}/engine.yaml", *parts]
    assert not [part for part in parts if part not in str(caught.value)], str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_a_run_is_prepared_for_the_runner_that_is_chosen(tmp_path):
    recipe = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(12), 1))
    for words, where in ((), HERE), (("--runner", "PortableRunner", "--job_endpoint=localhost:1"), ELSEWHERE):
        assert prepare(recipe, str(tmp_path / "out"), options=words).context.place is where
