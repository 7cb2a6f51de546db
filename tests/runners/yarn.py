"""Hadoop's own YARN on this machine's loopback: one ResourceManager and one NodeManager, whose containers are processes.

The NodeManager is started where there is no Python: in a mount namespace in which its folders and programs are empty.

Hadoop's client is in PySpark's jars. What else the daemons need comes from the folder that `CURATE_TEST_HADOOP` names, or
from Maven's repository of this user:

    mvn dependency:get -Dtransitive=false -Dartifact=org.apache.hadoop:hadoop-client-minicluster:3.5.0
    mvn dependency:get -Dtransitive=false -Dartifact=org.bouncycastle:bcprov-jdk18on:1.79        (and bcpkix, bcutil)
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.kit.waiting import wait_until
from tests.runners.clusters import free_port

_JARS = ("hadoop-client-minicluster-*.jar", "bcprov-*.jar", "bcpkix-*.jar", "bcutil-*.jar")
_SERVER = "org.apache.hadoop.yarn.server"
_OPENED = ("java.lang", "java.util", "java.io", "java.net", "sun.net.dns", "java.security", "java.math")


@dataclass(frozen=True)
class Yarn:
    """A cluster: the folder of its configuration, that of its containers' logs, the address of its pages, Spark's jars."""

    conf: Path
    logs: Path
    page: str
    jars: Path
    node: int  # the process of its NodeManager

    def in_node(self, command):
        """What a shell's command prints where the NodeManager is."""
        words = ["nsenter", "--target", str(self.node), "--mount", "sh", "-c", command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def read_logs(self):
        """The ends of what containers said."""
        files = (file for name in ("stdout", "stderr") for file in self.logs.rglob(name))
        return "\n".join(f"{file}: {file.read_text(errors='replace')[-2000:]}" for file in files)

    def find_applications(self):
        with urllib.request.urlopen(f"{self.page}/ws/v1/cluster/apps", timeout=10) as answer:
            apps = json.load(answer)["apps"] or {}
        return sorted(apps.get("app", []), key=lambda app: str(app["id"]))


def find_jars():
    """The class path of the daemons; skips the test where a jar is missing."""
    jars = Path(pytest.importorskip("pyspark").__file__).parent / "jars"
    [version] = [path.stem.rpartition("-")[2] for path in jars.glob("hadoop-client-api-*.jar")]
    folder = Path(os.environ.get("CURATE_TEST_HADOOP") or Path.home() / ".m2/repository")
    found = []
    for pattern in _JARS:
        named = pattern.replace("*", version) if pattern.startswith("hadoop") else pattern
        if not (paths := sorted(folder.rglob(named))):
            pytest.skip(f"no {named} in {folder}: see tests/runners/yarn.py")
        found.append(str(paths[-1]))
    return found


@contextmanager
def running_yarn(folder):
    """Start the daemons; in the end they and all containers are killed."""
    ports = {
        name: f"127.0.0.1:{free_port()}" for name in ("rm", "scheduler", "tracker", "admin", "page", "nm", "local")
    }
    conf, logs, java = folder / "conf", folder / "logs", shutil.which("java") or "java"
    conf.mkdir(parents=True)
    _write(conf / "core-site.xml", {"fs.defaultFS": "file:///", "hadoop.tmp.dir": f"{folder}/tmp"})
    resource, node = "yarn.resourcemanager", "yarn.nodemanager"
    settings = {
        f"{resource}.hostname": "127.0.0.1",
        f"{resource}.address": ports["rm"],
        f"{resource}.scheduler.address": ports["scheduler"],
        f"{resource}.resource-tracker.address": ports["tracker"],
        f"{resource}.admin.address": ports["admin"],
        f"{resource}.webapp.address": ports["page"],
        f"{resource}.scheduler.class": f"{_SERVER}.resourcemanager.scheduler.fifo.FifoScheduler",
        "yarn.scheduler.minimum-allocation-mb": 256,
        f"{node}.hostname": "127.0.0.1",
        f"{node}.address": ports["nm"],
        f"{node}.localizer.address": ports["local"],
        f"{node}.webapp.address": "127.0.0.1:0",
        f"{node}.resource.memory-mb": 8192,
        f"{node}.resource.cpu-vcores": 4,
        f"{node}.local-dirs": f"{folder}/local",
        f"{node}.log-dirs": logs,
        f"{node}.vmem-check-enabled": "false",
        f"{node}.pmem-check-enabled": "false",
        f"{node}.delete.debug-delay-sec": 0,
        f"{node}.disk-health-checker.max-disk-utilization-per-disk-percentage": 99,
        "yarn.application.classpath": "",
        "yarn.timeline-service.enabled": "false",
    }
    _write(conf / "yarn-site.xml", settings)
    spark = Path(pytest.importorskip("pyspark").__file__).parent / "jars"
    (jars := folder / "jars").mkdir()
    (empty := folder / "empty").mkdir()
    path = os.pathsep.join([str(conf), *find_jars(), f"{jars}/*"])
    variables = os.environ | {"JAVA_HOME": str(Path(java).resolve().parents[1]), "HADOOP_CONF_DIR": str(conf)}
    for name in ("PYTHONPATH", "PYSPARK_PYTHON", "SPARK_HOME"):
        variables.pop(name, None)  # containers have nothing of this environment
    opens = [word for package in _OPENED for word in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")]

    usual = (file for place in ("/usr/lib", "/usr/local/lib") for file in Path(place).glob("python3*"))
    pythons = {*map(str, usual), sys.prefix, sys.base_prefix} - {"/usr", "/usr/local"}
    programs = [file for place in ("/usr/bin", "/usr/local/bin", "/bin") for file in Path(place).glob("python*")]
    hide = [f"mount --bind {spark} {jars}", *(f"mount --bind {empty} {place}" for place in sorted(pythons))]
    hide += [f"mount --bind /dev/null {file}" for file in programs if file.exists() and not file.is_symlink()]

    def begin(name):
        command = [java, "-Xmx384m", "-XX:TieredStopAtLevel=1", *opens, "-cp", path, f"{_SERVER}.{name}"]
        script = "; ".join([*hide[: None if name.startswith("node") else 1], f"exec {shlex.join(command)}"])
        command = ["unshare", "--mount", "sh", "-ec", script]
        with open(folder / f"{name.rpartition('.')[2]}.log", "ab") as log:
            return subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)

    daemons = [begin("resourcemanager.ResourceManager"), begin("nodemanager.NodeManager")]
    try:
        yarn = Yarn(conf, logs, f"http://{ports['page']}", jars, daemons[1].pid)
        _wait(yarn, folder)
        yield yarn
    finally:
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()
        for process in psutil.process_iter(["cwd"]):  # containers outlive their NodeManager
            if (process.info["cwd"] or "").startswith(f"{folder}/"):
                with suppress(psutil.Error):
                    process.kill()


def _wait(yarn, folder):
    def has_node():
        with suppress(OSError), urllib.request.urlopen(f"{yarn.page}/ws/v1/cluster/metrics", timeout=5) as answer:
            return json.load(answer)["clusterMetrics"]["activeNodes"] == 1
        return False

    try:
        wait_until(has_node)
    except AssertionError as error:
        logs = [path.read_text(errors="replace")[-3000:] for path in folder.glob("*.log")]
        raise AssertionError("no cluster: " + "\n".join(logs)) from error


def _write(file, settings):
    items = (f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items())
    file.write_text(f"<configuration>{''.join(items)}</configuration>")
