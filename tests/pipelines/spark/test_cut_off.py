"""A worker that loses its network for a minute while it measures: what it writes later does not change the run.

Spark gives the worker up after 20 s, and the other worker measures the unit. The test needs root and Debian's iproute2.
"""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress

import fsspec
import psutil
import pytest

from tests import kit
from tests.kit.packages import lay_out
from tests.kit.s3 import NAMES, bucket_at, serving_s3
from tests.kit.waiting import wait_until
from tests.pipelines.spark.watched import Driver, check_run, find_executors
from tests.runners.clusters import Standalone
from tests.runners.runs import curate, digests

pytestmark = [pytest.mark.runners, pytest.mark.slow]

UNITS, CUT, TIMEOUT, LONG = 12, 60, 20, 45  # units; seconds
# A signal that takes LONG in the first process that computes it, which writes its number to a log.
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


def ip(words):
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@contextmanager
def two_networks():
    """Yields this machine's address on a bridge, and the network cable of each namespace by the namespace's address."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    net, bridge, names = f"10.213.{os.getpid() % 250}", f"br{os.getpid()}", {}
    try:
        ip(f"link add {bridge} type bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.decode()}")
    try:
        ip(f"addr add {net}.1/24 dev {bridge}")
        ip(f"link set {bridge} up")
        for i in (2, 3):
            name = names[f"{net}.{i}"] = f"v{os.getpid()}-{i}"
            ip(f"netns add {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"link set {name} master {bridge} up")
            for words in (f"addr add {net}.{i}/24 dev eth0", "link set eth0 up", "link set lo up"):
                ip(f"-n {name} {words}")
        yield f"{net}.1", names
    finally:
        for name in names.values():
            with suppress(subprocess.CalledProcessError):  # the cable may not exist yet
                ip(f"link del {name}")
            ip(f"netns del {name}")
        ip(f"link del {bridge}")


def write_recipe(folder):
    lay_out(folder / "site", "slow", "signals", {"slow": "curate_slow:KIND"}, curate_slow=MODULE)
    kit.write_parquets(folder / "pool", kit.make_rows(20 * UNITS), UNITS)
    source = "{name: p%d, format: parquet, path: '%s/pool/%05d.parquet'}"
    sources = ", ".join(source % (i, folder, i) for i in range(UNITS))
    rules = "measure: {slow: {}}\nrules: {best: {top: 0.5, of: slow}}\ndedup: {by: [uid]}\n"
    (folder / "recipe.yaml").write_text(f"input: [{sources}]\n{rules}output: {{rows_per_shard: 30}}\nmax_failed: 1.0\n")
    return folder / "recipe.yaml"


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_worker_that_loses_its_network_does_not_change_the_run(place, tmp_path, monkeypatch):
    recipe, log, run = write_recipe(tmp_path), tmp_path / "first", tmp_path / "run"
    slow = {"CUT_LOG": str(log), "CUT_SECONDS": str(LONG)}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"]]))
    curate(recipe, tmp_path / "local", environment={"CUT_LOG": str(tmp_path / "local.log"), "CUT_SECONDS": "0"})
    (tmp_path / "cluster").mkdir()
    with two_networks() as (address, cables), serving_s3(address) as url, bucket_at(url) as bucket:
        workers = {host: ["ip", "netns", "exec", name] for host, name in cables.items()}
        cluster = Standalone(tmp_path / "cluster", address=address, workers=workers)
        try:
            cluster.start()
            conf = {"spark.driver.host": address, "spark.driver.bindAddress": address}
            conf |= {"spark.network.timeout": f"{TIMEOUT}s", "spark.network.timeoutInterval": "5s"}
            conf |= {"spark.executor.heartbeatInterval": "5s"}
            store = {name: os.environ[name] for name in (*NAMES, "AWS_ENDPOINT_URL")}
            conf |= {f"spark.executorEnv.{name}": value for name, value in (slow | store).items()}
            driver = Driver(recipe, run, cluster, conf, f"{bucket}/cut-off" if place == "s3" else "")
            wait_until(lambda: log.exists() and log.read_text(), lambda: driver.process.poll() is None)
            process = psutil.Process(int(log.read_text()))
            above = {parent.pid for parent in process.parents()}
            [host] = [executor.host for executor in find_executors(cluster) if executor.java.pid in above]
            wait_until(driver.find_running, process.is_running)  # Spark's page may take seconds on a busy machine
            assert any(stage.startswith("Measure") for stage in driver.find_running().values())
            ip(f"link set {cables[host]} down")
            time.sleep(CUT)
            assert process.is_running()
            ip(f"link set {cables[host]} up")
            assert driver.process.wait(300) == 0, driver.said
            assert "Lost executor" in driver.said
            wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        finally:
            cluster.stop()
        if place == "s3":
            fsspec.filesystem("s3").get(driver.url, str(run), recursive=True)
    check_run(run, digests(tmp_path / "local"))
