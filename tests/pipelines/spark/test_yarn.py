"""Spark's cluster mode on Hadoop's own daemons: the packed environment on a node that has no Python, and nobody waits.

The NodeManager, and so each container, has a mount namespace of its own, where Python's folders and programs are empty.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from curate.store.lease import find_lease
from curate.store.store import RunStore
from tests.runners.runs import curate, digests, write_demo
from tests.runners.yarn import running_yarn

pytestmark = [pytest.mark.runners, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")]

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 1800  # that a run may take on a crowded machine: a container unpacks a gigabyte, and compiles kernels
SECRET = "wJalrXUtnFEMI-K7MDENG"


@pytest.fixture(scope="module")
def yarn(tmp_path_factory):
    with running_yarn(tmp_path_factory.mktemp("yarn")) as yarn:
        yield yarn


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    file = tmp_path_factory.mktemp("packed") / "environment.tar.gz"
    command = [str(ROOT / "infra/pack.sh"), "--python", sys.executable, str(file)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert f"{file}: " in done.stdout and " MB, unpacked " in done.stdout
    return file


def holds_secret(path):
    with suppress(OSError):  # it is a folder, or gone
        return SECRET.encode() in path.read_bytes()
    return False


def test_handed_over_followed_and_cancelled(yarn, packed, tmp_path):
    assert yarn.in_node("python3 --version || python --version || echo none").strip() == "none"
    variables = os.environ | {"HADOOP_CONF_DIR": str(yarn.conf)}
    variables.pop("PYTHONPATH", None)  # which Spark hands on

    def run(*words, shell=False):
        command = [sys.executable, "-m", "curate", *words]
        return subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, start_new_session=shell
        )

    conf = {
        "spark.archives": f"{packed}#environment",
        "spark.pyspark.python": "./environment/bin/python",
        "spark.yarn.jars": f"local:{yarn.jars}/*",
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.executor.instances": "1",
        "spark.executor.cores": "2",
        "spark.ui.enabled": "false",
        "spark.hadoop.fs.s3a.secret.key": SECRET,
    }
    for key, value in {"SPARK_LOCAL_IP": "127.0.0.1", "NUMBA_CACHE_DIR": str(tmp_path / "numba")}.items():
        conf |= {f"spark.executorEnv.{key}": value, f"spark.yarn.appMasterEnv.{key}": value}
    options = {"runner": "spark", "spark_master_url": "yarn", "spark_conf": conf}
    (tmp_path / "yarn.yaml").write_text(yaml.safe_dump(options))
    recipe, out = write_demo(tmp_path), tmp_path / "there"
    hand_over = ("run", str(recipe), "--out", str(out), "--on", str(tmp_path / "yarn.yaml"), "--detach")

    done = run(*hand_over, shell=True)  # the shell ends with it
    assert done.returncode == 0 and f"{out}: runs in Spark" in done.stdout, done.stderr
    waiting = run("status", str(out))
    assert waiting.returncode == 3 and "waiting for curate run (job application_" in waiting.stdout, waiting.stdout
    ends = time.monotonic() + SECONDS
    while not any((out / "tables/samples").glob("*.parquet")):
        assert time.monotonic() < ends, yarn.read_logs()
        time.sleep(1)
    settings = yarn.logs.parent.rglob("__spark_conf__.properties")  # of the driver
    assert any(SECRET in path.read_text() for path in settings)
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert any("staged.py" in line for line in lines) and not any(SECRET in line for line in lines)
    assert not any(map(holds_secret, out.rglob("*")))
    working = run("status", str(out))
    assert working.returncode == 3 and "is at work" in working.stdout and "(RUNNING)" in working.stdout
    second = run(*hand_over)
    assert second.returncode == 1 and "is running here" in second.stderr
    stopped = run("cancel", str(out))
    assert stopped.returncode == 0 and "is canceled; run its recipe again" in stopped.stdout, stopped.stderr
    assert [app["state"] for app in yarn.find_applications()] == ["KILLED"] and not find_lease(RunStore(str(out)))
    now = run("status", str(out))
    assert now.returncode == 1 and "nobody works on it" in now.stdout

    assert run(*hand_over, shell=True).returncode == 0
    followed = run("status", str(out), "--watch")
    assert followed.returncode == 0 and "rows are kept" in followed.stdout, (followed.stdout, yarn.read_logs())
    assert yarn.find_applications()[-1]["finalStatus"] in ("SUCCEEDED", "UNDEFINED")
    assert "measure 4/4" in (out / "logs/driver.log").read_text()
    assert "nothing differs" in run("verify", str(out)).stdout
    assert digests(out) == curate(recipe, tmp_path / "here")

    failing = run(*hand_over[:3], str(tmp_path / "failing"), *hand_over[4:], "--set", "max_failed=0.001")
    assert failing.returncode == 0, failing.stderr
    followed = run("status", str(tmp_path / "failing"), "--watch")  # ends with all that it knows
    assert "nobody works on it" in followed.stdout and followed.returncode == 1 and "max_failed" in followed.stdout, (
        followed.stdout,
        yarn.read_logs(),
    )
