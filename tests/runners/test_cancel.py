"""Ctrl-C and `kill` in the midst of a run on an engine: its job ends, no process stays, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from tests import kit
from tests.kit import forked
from tests.kit.packages import lay_out
from tests.runners.clusters import find_go_program

pytestmark = [pytest.mark.runners, pytest.mark.usefixtures("interruptible")]

# A signal that takes ten minutes while there is no file that lets it go.
MODULE = """
import os, time, uuid
from dataclasses import replace
from pathlib import Path
from tests.kit.noise import KIND as NOISE, NOISY, noisy

def compute(captions):
    folder = Path(os.environ["SLOW_NOTES"])
    (folder / f"begun-{uuid.uuid4().hex}").touch()
    ends = time.monotonic() + 600
    while time.monotonic() < ends and not (folder / "go").exists():
        time.sleep(0.1)
    return noisy(captions)

KIND = replace(NOISE, build=lambda name, section, built: [replace(NOISY, compute=compute)])
"""
OPTIONS = {
    "prism": lambda: ["--runner=prism", f"--prism_location={find_go_program('prism')}"],
    "spark": lambda: ["--runner=spark", "--spark_master_url=local[2]", "--spark_conf=spark.ui.enabled=false"],
}


@pytest.fixture
def environment(tmp_path):
    """Of a process that finds a package with the signal; its notes are in `tmp_path`."""
    site = lay_out(tmp_path / "site", "slow", "signals", {"noise": "slow:KIND"}, slow=MODULE)
    path = os.pathsep.join([str(site), os.environ["PYTHONPATH"]])
    return os.environ | {"PYTHONPATH": path, "SLOW_NOTES": str(tmp_path)}


@pytest.mark.parametrize(("engine", "number"), [("prism", signal.SIGINT), ("spark", signal.SIGTERM)])
def test_a_job_is_cancelled(engine, number, environment, tmp_path):
    if engine == "spark":
        pytest.importorskip("pyspark")
    path = kit.write_parquets(tmp_path / "pool", kit.make_rows(20), 1)
    source = {"name": "pool", "format": "parquet", "path": path}
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({"input": source, "measure": {"noise": {}}, "max_failed": 1.0})
    )
    words = ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), "--", *OPTIONS[engine]()]
    with open(tmp_path / "err", "w") as err:
        command = [sys.executable, "-m", "curate", *words]
        running = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )
    try:
        while not list(tmp_path.glob("begun-*")):
            assert running.poll() is None, (tmp_path / "err").read_text()[-3000:]
            time.sleep(0.1)
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(number)
        assert running.wait(300) == 128 + number
    finally:
        running.kill()
    text = (tmp_path / "err").read_text()
    assert (
        "the job has ended\n" in text
        and text.endswith("no unit is finished yet; repeat the command to continue\n")
        and "Traceback" not in text
    )
    assert children and not psutil.wait_procs(children, 60)[1]
    assert not (tmp_path / "run/tmp/lock").exists()
    (tmp_path / "go").touch()
    done = forked.run(*words, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
