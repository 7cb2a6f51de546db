"""Spark's cluster mode with fake Spark programs: their arguments, and their output. tests/pipelines/spark runs the real programs."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.runners.runner import PipelineState

from curate.base.errors import RecipeError, RunError
from curate.store.layout import DRIVER_LOG, staged_file
from curate.store.lease import find_lease
from curate.store.lock import locked
from curate.store.store import RunStore
from pipelines.engines import spark_cluster
from pipelines.engines.choose import choose_engine
from pipelines.engines.job import EngineUnresponsiveError
from pipelines.engines.registry import ask, stop
from pipelines.engines.spark import Spark
from tests.pipelines.engines.java import check, write_java

pytestmark = pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="scripts stand for Spark's programs")

YARN, K8S = "--spark_master_url=yarn", "--spark_master_url=k8s://https://host:443"
REPORT = """Application Report :
	Application-Id : application_17_0002
	State : {state}
	Final-State : {final}
	Tracking-URL : http://rm:8088/proxy/application_17_0002/
	Diagnostics : {why}
"""


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Fake a Spark program, which writes its arguments to a file, and prints a text.

    It fails if the text begins with `!`, and never ends if that is `~`.
    """
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    fake = SimpleNamespace(_find_spark_home=lambda: os.environ["SPARK_HOME"])
    monkeypatch.setitem(sys.modules, "pyspark", SimpleNamespace(__version__="4.3.0", find_spark_home=fake))
    monkeypatch.setitem(sys.modules, "pyspark.find_spark_home", fake)

    def say(program, text):
        (tmp_path / program).write_text(text)
        script = tmp_path / "bin" / program
        if script.exists():  # a program that is written while another thread forks cannot be started
            return
        script.write_text(
            f"""#!/bin/sh
printf '%s\\n' "$HADOOP_CONF_DIR" "$@" > {tmp_path}/{program}.words
[ "$1" = --properties-file ] && cp -p "$2" {tmp_path}/properties
case $(head -c 1 {tmp_path}/{program}) in !) tail -c +2 {tmp_path}/{program}; exit 1 ;; "~") exec sleep 60 ;; esac
cat {tmp_path}/{program}
"""
        )
        script.chmod(0o755)

    return say


def test_which_masters_have_the_driver_on_the_cluster():
    here = [
        "--spark_master_url=local[2]",
        "--spark_master_url=spark://host:7",
        f"{YARN} --spark_conf=spark.submit.deployMode=client",
    ]
    outlasting = {
        option for option in (YARN, K8S, *here) if choose_engine(["--runner=spark", *option.split()]).outlasts_driver
    }
    assert outlasting == {YARN, K8S}


def test_what_masters_need(says, tmp_path, monkeypatch):
    """On Kubernetes, Spark writes settings into a config map and variables into pods, so they must not contain secrets."""
    write_java(tmp_path, "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    check("--runner=spark", YARN)
    monkeypatch.delenv("HADOOP_CONF_DIR")
    with pytest.raises(RecipeError, match=r"HADOOP_CONF_DIR is not set; accepted: the folder with .* yarn-site"):
        check("--runner=spark", YARN)
    monkeypatch.setenv("YARN_CONF_DIR", "/etc/hadoop")
    for key in ("hadoop.fs.s3a.secret.key", "executorEnv.AWS_SECRET_ACCESS_KEY", "kubernetes.driverEnv.HF_TOKEN"):
        check("--runner=spark", YARN, f"--spark_conf=spark.{key}=hush")
        check("--runner=spark", K8S, f"--spark_conf=spark.{key}=hush", "--spark_conf=spark.submit.deployMode=client")
        with pytest.raises(RecipeError, match=rf"spark_conf: spark.{key}: .*; accepted: .*secretKeyRef.NAME"):
            check("--runner=spark", K8S, f"--spark_conf=spark.{key}=hush")
    for key in ("kubernetes.driver.secretKeyRef.HF_TOKEN", "authenticate.secret.file"):
        check("--runner=spark", K8S, f"--spark_conf=spark.{key}=name:key")


def words(tmp_path, program):
    return (tmp_path / f"{program}.words").read_text().splitlines()


def hand_over(tmp_path, *options):
    """Submit a pipeline of one element for a claimed run, which keeps its lease."""
    store = RunStore(str(tmp_path / "my Run"))
    engine = choose_engine(["--runner=spark", *options], None, store.url)
    assert isinstance(engine, Spark) and engine.outlasts_driver
    with locked(store, "run", outlasts=True) as hold:
        hold.record(engine=engine.key, handle=engine.name_job(store))
        job = engine.submit(lambda root: root | beam.Create([1]), store)
        hold.record(handle=job.handle, page=job.logs)
        hold.is_handed_over = True
    assert isinstance(job, spark_cluster.ClusterJob)
    return job


def test_what_yarn_gets(says, tmp_path):
    says("spark-submit", "INFO Client: Submitted application application_17_0002\n\t tracking URL: http://rm/2/\n")
    job = hand_over(tmp_path, YARN, "--spark_conf=spark.yarn.tags=team", "--spark_conf=spark.executor.memory=4g")
    hadoop, *given = words(tmp_path, "spark-submit")
    file, url, lease = given[-3:]
    settings = dict(word.split("=", 1) for word in given[:-3] if word != "--conf")
    store = RunStore(str(tmp_path / "my Run"))
    holder = find_lease(store)
    assert holder.id == lease and holder.is_detached and holder.is_waiting
    assert hadoop == "/etc/hadoop" and url == store.url and Path(file).name == "staged.py" and Path(file).exists()
    assert settings["spark.master"] == "yarn" and settings["spark.submit.deployMode"] == "cluster"
    assert settings["spark.executor.memory"] == "4g" and settings["spark.yarn.submit.waitAppCompletion"] == "false"
    assert settings["spark.yarn.tags"] == f"{settings['spark.app.name']},team"
    assert settings["spark.app.name"].startswith("curate-my-run-")
    assert job.handle == holder.handle == {"job": "application_17_0002", "master": "yarn", "hadoop": "/etc/hadoop"}
    assert holder.page == "http://rm/2/" and "job application_17_0002 on spark" in str(holder)
    pipeline, staged, _ = beam.coders.PickleCoder().decode(store.read_bytes(staged_file(lease)))
    assert pipeline and staged["spark_exchange"] == f"{store.url}/tmp"
    assert staged["spark_conf"] == ["spark.yarn.tags=team", "spark.executor.memory=4g"]


def test_secret_settings_are_in_no_command_line(says, tmp_path):
    """Spark reads them from a private file, after its defaults. The staged pipeline does not contain them."""
    says("spark-submit", "INFO Client: Submitted application application_17_0002\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/spark-defaults.conf").write_text("spark.executor.cores 2")
    hand_over(tmp_path, YARN, r"--spark_conf=spark.hadoop.fs.s3a.secret.key=hu\sh", "--spark_conf=spark.task.cpus=2")
    given, file = words(tmp_path, "spark-submit"), tmp_path / "properties"
    assert file.read_text() == "spark.executor.cores 2\nspark.hadoop.fs.s3a.secret.key=hu\\\\sh\n"
    assert file.stat().st_mode & 0o777 == 0o600 and not Path(given[2]).exists()
    assert "spark.task.cpus=2" in given and not any("hu" in word for word in given)
    [staged] = (tmp_path / "my Run/tmp").glob("staged-*")
    assert beam.coders.PickleCoder().decode(staged.read_bytes())[1]["spark_conf"] == ["spark.task.cpus=2"]


def test_what_kubernetes_gets(says, tmp_path):
    says("spark-submit", "")
    conf = ("spark.kubernetes.namespace=ours", "spark.kubernetes.context=blue", "spark.submit.deployMode=cluster")
    job = hand_over(tmp_path, K8S, *(f"--spark_conf={text}" for text in conf))
    given = words(tmp_path, "spark-submit")
    name = job.handle["job"].removeprefix("ours:")
    assert name.startswith("curate-my-run-") and job.logs == f"kubectl logs -n ours {name}"
    assert f"spark.kubernetes.driver.pod.name={name}" in given and "local:///opt/curate/staged.py" in given
    for says_so, state in (
        ("\t phase: Pending\n", "PENDING"), ("\t phase: Running\n", "RUNNING"), ("\t phase: Succeeded\n", "DONE"),
        ("\t phase: Failed\n", "FAILED"), ("!ERROR: No applications found.\n", "UNKNOWN"),
    ):  # fmt: skip
        says("spark-submit", says_so)
        assert Spark.attach(job.handle).state == state
    asked = ["--master", "k8s://https://host:443", "--conf", "spark.kubernetes.context=blue"]
    assert words(tmp_path, "spark-submit")[1:] == [*asked, "--status", f"ours:{name}"]
    other = Spark.attach(job.handle)
    assert isinstance(other, spark_cluster.ClusterJob)
    other._end()
    assert words(tmp_path, "spark-submit")[1:] == [*asked, "--kill", f"ours:{name}"]
    assert other.state == PipelineState.CANCELLED  # its pod is gone


def test_a_job_that_is_not_taken(says, tmp_path):
    says("spark-submit", "!Exception in thread main java.io.IOException: no queue\n\tat java.lang.Thread\nlater\n")
    with pytest.raises(RunError, match=r"yarn: spark-submit: .*java.io.IOException: no queue$"):
        hand_over(tmp_path, YARN)
    store = RunStore(str(tmp_path / "my Run"))
    assert find_lease(store) is None
    assert not [name for name in store.names("tmp") if name.startswith("staged")], "a driver would run without a lease"


def test_states_of_yarn(says, tmp_path, monkeypatch):
    """Also where it does not answer."""
    says("spark-submit", "application_17_0002")
    hand_over(tmp_path, YARN)
    holder = find_lease(RunStore(str(tmp_path / "my Run")))
    for state, final, expected in (
        ("ACCEPTED", "UNDEFINED", (False, "PENDING")), ("RUNNING", "UNDEFINED", (False, "RUNNING")),
        ("FINISHED", "SUCCEEDED", (True, "DONE")), ("FINISHED", "FAILED", (True, "FAILED: no memory")),
        ("FAILED", "FAILED", (True, "FAILED: no memory")), ("KILLED", "KILLED", (True, "CANCELLED")),
    ):  # fmt: skip
        says("spark-class", REPORT.format(state=state, final=final, why="no memory"))
        assert ask(holder) == expected
        assert words(tmp_path, "spark-class")[2:] == ["application", "-status", "application_17_0002"]
    says("spark-class", "!Caused by: java.net.ConnectException: Connection refused\n")
    silent = "spark does not answer: yarn: spark-class: "
    assert ask(holder) == (None, f"{silent}Caused by: java.net.ConnectException: Connection refused")
    says("spark-class", "~")
    with monkeypatch.context() as patch:
        patch.setattr(spark_cluster, "_PATIENCE", 0.2)
        assert ask(holder) == (None, f"{silent}no answer in 0.2 s")
    says("spark-class", REPORT.format(state="KILLED", final="KILLED", why=""))
    stop(holder, 60)


def test_an_application_is_found_by_its_tag(says, tmp_path):
    """If the command died before Spark's program printed the application's id."""
    handle = {"job": "curate-run-1", "master": "yarn", "hadoop": "/etc/hadoop"}
    says("spark-class", "Total number of applications:0\n")
    assert Spark.attach(handle).state == PipelineState.UNKNOWN
    assert words(tmp_path, "spark-class")[-2:] == ["-appTags", "curate-run-1"]
    says("spark-class", "application_17_0009 a SPARK\napplication_17_0010 b SPARK\n")
    job = Spark.attach(handle)
    _ = job.state
    assert job.handle["job"] == "application_17_0010"
    says("spark-class", "!Application with id 'application_17_0010' doesn't exist in RM or Timeline Server.\n")
    assert job.state == PipelineState.UNKNOWN


def test_it_is_followed_to_its_end(says, tmp_path, monkeypatch):
    """The driver's last message on the cluster is the error here."""
    monkeypatch.setattr(spark_cluster, "_BETWEEN", 0.01)
    says("spark-submit", "application_17_0002")
    job = hand_over(tmp_path, YARN)
    says("spark-class", REPORT.format(state="FINISHED", final="SUCCEEDED", why=""))
    job.follow(lambda: None)
    says("spark-class", REPORT.format(state="FINISHED", final="FAILED", why="exited with status 1"))
    with pytest.raises(RuntimeError, match=r"the job is FAILED; see http://rm:8088/proxy/.*: exited with status 1"):
        job.follow(lambda: None)
    RunStore(str(tmp_path / "my Run")).write_bytes(DRIVER_LOG, b"curate: 3 of 60 samples\n")
    with pytest.raises(RuntimeError, match=r"^3 of 60 samples$"):
        job.follow(lambda: None)
    says("spark-class", REPORT.format(state="RUNNING", final="UNDEFINED", why=""))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="its state is RUNNING"):
        job.stop(0.3)
    assert time.monotonic() - began < 60


def test_a_cluster_that_is_away_for_a_while(says, tmp_path, monkeypatch):
    """A job ends for us after an hour without an answer, counted from the last one."""
    monkeypatch.setattr(spark_cluster, "_BETWEEN", 1500.0)
    says("spark-submit", "application_17_0002")
    job, clock, polls = hand_over(tmp_path, YARN), [0.0], []
    refused, unknown = "!java.net.ConnectException: Connection refused\n", "!Application doesn't exist in RM.\n"
    running = REPORT.format(state="RUNNING", final="UNDEFINED", why="")

    def follow(*answers):
        remaining = iter(answers)
        says("spark-class", next(remaining))

        def sleep(seconds):
            clock[0] += seconds
            polls.append(says("spark-class", next(remaining)))

        monkeypatch.setattr("pipelines.engines.job.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
        job.follow(lambda: None)

    done = REPORT.format(state="FINISHED", final="SUCCEEDED", why="")
    follow(refused, running, running, running, refused, done)
    assert len(polls) == 5
    with pytest.raises(EngineUnresponsiveError, match="Connection refused"):
        follow(running, refused, refused, refused)
    with pytest.raises(EngineUnresponsiveError, match="does not know this job"):
        follow(running, unknown, unknown, unknown)
