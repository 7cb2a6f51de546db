"""The driver of Spark's cluster mode, of which this machine stands for the cluster: tests/pipelines/spark/test_yarn.py has a real one."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

import curate
from curate.cli.staged import drive as drive_here
from curate.store.layout import staged_file
from curate.store.lease import Holder, find_lease, take_lease
from curate.store.store import RunStore
from pipelines.engines import spark_cluster
from pipelines.engines.spark import Spark
from tests import kit
from tests.kit.commands import run_command

pytestmark = pytest.mark.runners

STAGED = Path(curate.__file__).with_name("cli") / "staged.py"


@pytest.fixture
def submitted(monkeypatch):
    """What Spark's program would be called with, in place of that."""
    words = []

    def submit(conf, handle, store, lease):
        words.append([store.url, lease])
        return spark_cluster.ClusterJob(handle)

    pytest.importorskip("pyspark")
    monkeypatch.setattr(spark_cluster, "submit", submit)
    monkeypatch.setattr(Spark, "outlasts_driver", property(lambda self: True))
    monkeypatch.setattr(spark_cluster, "name_job", lambda conf, name: {"job": name, "master": "yarn"})
    monkeypatch.setattr(spark_cluster.ClusterJob, "state", "RUNNING")
    return words


def test_it_runs_what_is_staged_until_it_has_ended(submitted, tmp_path):
    kit.write_tars(tmp_path / "pool", kit.make_samples(12), 2)
    source = {"name": "pool", "format": "webdataset", "path": f"{tmp_path}/pool/{{00000..00001}}.tar"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"input": source, "max_failed": 1.0}))
    conf = {"spark.ui.enabled": "false"}
    (tmp_path / "on.yaml").write_text(
        yaml.safe_dump({"runner": "spark", "spark_master_url": "local[2]", "spark_conf": conf})
    )

    def hand_over(out, *words):
        options = ("--on", str(tmp_path / "on.yaml"), "--detach", *words)
        done = run_command("run", str(tmp_path / "recipe.yaml"), "--out", str(out), *options)
        assert done.status == 0 and "runs in Spark" in done.out, done.err

    def be_killed(out):
        driver = subprocess.Popen([sys.executable, str(STAGED), *submitted[-1]], start_new_session=True)
        try:
            ends = time.monotonic() + 600
            while not any((out / "tables/samples").glob("*.parquet")):
                assert time.monotonic() < ends and driver.poll() is None
                time.sleep(0.1)
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()

    def drive():
        return subprocess.run(
            [sys.executable, str(STAGED), *submitted[-1]], capture_output=True, text=True, check=False
        )

    out = tmp_path / "run"
    hand_over(out)
    waiting = run_command("status", str(out))
    assert waiting.status == 3 and "waiting for curate run (job curate-run-" in waiting.out
    be_killed(out)
    working = run_command("status", str(out))
    assert working.status == 3 and "is at work" in working.out, "as YARN starts another one"
    assert drive().returncode == 0
    assert run_command("status", str(out)).status == 0 and find_lease(RunStore(str(out))) is None
    assert not (out / "tmp").exists() and "nothing differs" in run_command("verify", str(out)).out
    log = (out / "logs/driver.log").read_text()
    assert "Spark 4" in log and "measure 2/2" in log and f"curate sql {out}" in log
    assert drive().returncode == 1, "nothing is staged anymore"

    out = tmp_path / "failing"
    hand_over(out, "--set", "max_failed=0.01")
    assert drive().returncode == 1
    now = run_command("status", str(out))
    assert now.status == 1 and "nobody works on it" in now.out and "max_failed" in now.out
    assert "last error of a worker: " in now.out and " ERROR audit: " in now.out, now.out
    again = drive()
    assert again.returncode == 1 and "this driver finds no job to run" in again.stdout


def test_an_error_of_any_library_ends_the_lease(tmp_path, monkeypatch):
    """What is no error of curate's, too: nobody else would say that the driver has ended."""

    def fail(*_):
        raise KeyError

    store, holder = RunStore(str(tmp_path)), Holder.make("run")
    take_lease(store, holder, None)
    store.write_bytes(staged_file(holder.id), b"")
    monkeypatch.setattr("curate.store.facts.read_claim", fail)
    monkeypatch.setattr("curate.cli.detach.logging_to", lambda store: nullcontext())
    assert drive_here(store.url, holder.id) == 1
    assert find_lease(store) is None and not store.exists(staged_file(holder.id))
