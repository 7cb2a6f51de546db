"""Engines that tests start on this machine's loopback, and stop: a standalone Spark cluster, and Prism, which is built by Go."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import apache_beam
import psutil
import pytest

from tests.kit.waiting import wait_until

_BEAM = f"github.com/apache/beam/sdks/v2/%s@v{apache_beam.__version__}"
_PROGRAMS = {
    "prism": _BEAM % "go/cmd/prism",
    "container": _BEAM % "python/container",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
    **dict.fromkeys(("etcd", "kube-apiserver"), "(how: tests/runners/kubernetes.py)"),
}
_WORKERS = {"127.0.0.1": (), "127.0.0.2": ()}


def find_go_program(name):
    """The path of `prism`, of `container`, Beam's boot of Python workers, of `fake-gcs-server`, or of Kubernetes'; skips the test where there is none.

    Looked for in `GOBIN`, `~/go/bin` and `PATH`; .ci/run builds them where there is Go.
    """
    folders = [os.environ.get("GOBIN"), str(Path.home() / "go/bin"), os.environ.get("PATH")]
    found = shutil.which(name, path=os.pathsep.join(folder for folder in folders if folder))
    if not found:
        pytest.skip(f"no {name}: go install {_PROGRAMS[name]}")
    return found


# Not those that a system gives to connections and to who asks for any: one of them would have it before it is used.
_PORTS = cycle(range(10_000, 16_000))
_PORTS = islice(_PORTS, os.getpid() * 100 % 6_000, None)  # not those of another process of tests


def free_port(host="127.0.0.1"):
    for port in _PORTS:
        with socket.socket() as sock, suppress(OSError):
            sock.bind((host, port))
            return port
    raise AssertionError


@dataclass(frozen=True)
class Cluster:
    """The folder of a standalone cluster, and its master's URL."""

    folder: Path
    url: str


class Standalone:
    """A standalone cluster of a master and a worker of one core on each of two addresses; each may be killed and started again.

    Attributes:
        url: of the master; page: where it says in JSON who works.
        folder: where its logs are, and what its executors work in.
    """

    def __init__(self, folder, home=None, recovers=False, address="127.0.0.1", workers=_WORKERS):
        """Of the Spark in `home`, by default PySpark's. With `recovers` a master that starts again knows its applications.

        `address` is the master's; `workers` are addresses, each with the words of a command that starts the worker.
        """
        self.folder, port, page = folder, free_port(address), free_port(address)
        self._workers, self._home = workers, home or Path(pytest.importorskip("pyspark").__file__).parent
        self.url, self.page = f"spark://{address}:{port}", f"http://{address}:{page}/json/"
        # A master gives up an application after ten executors that died.
        settings = {"spark.deploy.maxExecutorRetries": -1}
        if recovers:
            settings["spark.deploy.recoveryMode"] = "FILESYSTEM"
            settings["spark.deploy.recoveryDirectory"] = folder / "recovery"
        words = ["-XX:TieredStopAtLevel=1", *(f"-D{key}={value}" for key, value in settings.items())]
        self._environment = os.environ | {
            "SPARK_HOME": str(self._home),
            "SPARK_LOCAL_DIRS": str(folder / "spark"),
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_DAEMON_JAVA_OPTS": " ".join(words),
            "PYSPARK_PYTHON": sys.executable,
        }
        master = f"master.Master --host {address} --port {port} --webui-port {page}"
        worker = "worker.Worker --host {0} --cores 1 --memory 1g --webui-port 0 --work-dir {1}/{0} {2}"
        self._commands = {"master": master} | {host: worker.format(host, folder, self.url) for host in workers}
        self.processes = {}

    def start(self, *names):
        """Start the master ("master") or a worker (its address), by default all; return once the master knows all."""
        for name in names or self._commands:
            command = [*self._workers.get(name, ()), str(self._home / "bin/spark-class")]
            command += f"org.apache.spark.deploy.{self._commands[name]}".split()
            with open(self.folder / f"{name}.log", "ab") as log:
                self.processes[name] = subprocess.Popen(
                    command, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
        self._wait()

    def stop(self):
        """End all."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()

    def _wait(self):
        """Wait until the master knows all workers."""

        def knows_all():
            with suppress(OSError, ValueError), urllib.request.urlopen(self.page, timeout=5) as answer:
                return json.load(answer)["aliveworkers"] == len(self._workers)
            return False

        try:
            wait_until(knows_all)
        except AssertionError as error:
            logs = [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")]
            raise AssertionError(f"no cluster: {logs}") from error


@contextmanager
def standalone(folder, home=None):
    """Yields the URL of the master of a cluster that runs meanwhile."""
    cluster = Standalone(folder, home)
    try:
        cluster.start()
        yield cluster.url
    finally:
        cluster.stop()


def find_executors(folder):
    """The Java processes of executors of a cluster in this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        is_here = (process.info["cwd"] or "").startswith(str(folder))
        if is_here and any("CoarseGrainedExecutorBackend" in word for word in process.info["cmdline"] or ()):
            found.append(process.info["pid"])
    return found


def write_boot(folder, environment=None):
    """A program that starts Beam's boot in this environment: Prism hands it quotation marks, and boot would make an environment.

    In another environment it has what is installed there, and nothing else.
    """
    path = folder / "boot.sh"
    programs = environment / "bin" if environment else Path(sys.executable).parent
    path.write_text(
        f"""#!/usr/bin/env bash
cd "{folder}"  # where boot leaves a file
{"unset PYTHONPATH" if environment else ""}
export RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 PATH="{programs}:$PATH"
exec "{find_go_program("container")}" "${{@//\\'/}}"
"""
    )
    path.chmod(0o755)
    return str(path)
