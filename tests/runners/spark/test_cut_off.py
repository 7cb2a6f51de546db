"""A worker whose network is cut off for a minute in the midst of a unit, which it goes on with: the same is published.

Spark gives it up after 20 s, and the other one measures the unit; what it writes then, or once it is back, comes late.
"""

import os
import time

import fsspec
import psutil
import pytest

from tests import kit
from tests.kit.packages import lay_out
from tests.kit.s3 import NAMES, bucket_at, serving_s3
from tests.runners.clusters import Standalone
from tests.runners.namespaces import namespaces
from tests.runners.runs import curate, digests
from tests.runners.spark.watched import Driver, check_run, find_executors
from tests.runners.test_late_attempts import UNITS

pytestmark = [pytest.mark.runners, pytest.mark.slow]

CUT, TIMEOUT, LONG = 60, 20, 45  # seconds
SECONDS = 25  # of LONG at most, until the worker is cut off
# The signal of a package of its own; it notes who computes it first, who takes long.
MODULE = """
import os, time
import pyarrow as pa
import pyarrow.compute as pc
from curate.plugins import Section, SignalKind, TextSignal


class Slow(Section):
    pass


def compute(captions):
    try:
        with open(os.environ["CUT_LOG"], "x") as file:
            file.write(str(os.getpid()))
        time.sleep(float(os.environ["CUT_SECONDS"]))
    except FileExistsError:
        pass
    return [pc.cast(pc.utf8_length(captions), pa.float32())]


KIND = SignalKind(
    "slow", Slow, lambda name, section, known: 1,
    lambda name, section, built: [TextSignal(name, (pa.field("slow", pa.float32()),), "key", compute=compute)],
)
"""


def write_recipe(folder):
    """A recipe of UNITS units, and the package."""
    lay_out(folder / "site", "slow", "signals", {"slow": "curate_slow:KIND"}, curate_slow=MODULE)
    kit.write_parquets(folder / "pool", kit.make_rows(20 * UNITS), UNITS)
    source = "{name: p%d, format: parquet, path: '%s/pool/%05d.parquet'}"
    sources = ", ".join(source % (i, folder, i) for i in range(UNITS))
    rules = "measure: {slow: {}}\nrules: {best: {top: 0.5, of: slow}}\ndedup: {by: [uid]}\n"
    (folder / "recipe.yaml").write_text(f"input: [{sources}]\n{rules}output: {{rows_per_shard: 30}}\nmax_failed: 1.0\n")
    return folder / "recipe.yaml"


def find_first(log, cluster, driver):
    """The address of the executor that measures first, once it does, and its Python process."""
    ends = time.monotonic() + 180
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < ends and driver.process.poll() is None, driver.said
        time.sleep(0.1)
    process = psutil.Process(int(log.read_text()))
    ancestors = {parent.pid for parent in process.parents()}
    [executor] = [executor for executor in find_executors(cluster) if executor.java.pid in ancestors]
    return executor.host, process


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_what_a_worker_writes_that_was_cut_off_comes_late(place, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"]])
    slow = {"CUT_LOG": str(tmp_path / "first"), "CUT_SECONDS": str(LONG)}
    monkeypatch.setenv("PYTHONPATH", path)
    curate(recipe, tmp_path / "local", environment={"CUT_LOG": str(tmp_path / "local.log"), "CUT_SECONDS": "0"})
    (tmp_path / "cluster").mkdir()
    with namespaces(2) as (address, spaces), serving_s3(address) as url, bucket_at(url) as bucket:
        workers = {space.address: space.words for space in spaces}
        cluster = Standalone(tmp_path / "cluster", address=address, workers=workers)
        try:
            cluster.start()
            store = {name: os.environ[name] for name in (*NAMES, "AWS_ENDPOINT_URL")}
            conf = {"spark.driver.host": address, "spark.network.timeout": f"{TIMEOUT}s"}
            conf |= {"spark.network.timeoutInterval": "5s", "spark.driver.bindAddress": address}
            conf |= {"spark.executor.heartbeatInterval": "5s"}
            conf |= {f"spark.executorEnv.{name}": value for name, value in (slow | store).items()}
            out = f"{bucket}/cut-off" if place == "s3" else str(tmp_path / "run")
            driver = Driver(recipe, tmp_path / "run", cluster, conf, out)
            host, process = find_first(tmp_path / "first", cluster, driver)
            [space] = [space for space in spaces if space.address == host]
            wait_cut(space, driver, process)
        finally:
            cluster.stop()
        if place == "s3":
            fsspec.filesystem("s3").get(out, str(tmp_path / "run"), recursive=True)
    check_run(tmp_path / "run", digests(tmp_path / "local"))


def wait_cut(space, driver, process):
    """Cut a worker off for CUT seconds while it measures; wait until the run has ended, and the worker's process."""
    ends, stages = time.monotonic() + SECONDS, driver.find_running()
    while not stages and time.monotonic() < ends:  # Spark's page may take seconds, on a crowded machine
        stages = driver.find_running()
    assert any(stage.startswith("Measure") for stage in stages.values()), stages
    space.cut()
    assert process.is_running()
    time.sleep(CUT)
    assert process.is_running()
    space.mend()
    assert driver.process.wait(300) == 0, driver.said
    ends = time.monotonic() + 60
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < ends:
        time.sleep(0.2)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    lost = [line for line in driver.said.splitlines() if "Lost executor" in line]
    assert lost
    print(*lost, sep="\n")
