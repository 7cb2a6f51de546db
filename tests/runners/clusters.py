"""Engines that tests start on this machine's loopback, and stop: a standalone Spark cluster, and Prism, which is built by Go."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apache_beam
import psutil
import pytest

_BEAM = f"github.com/apache/beam/sdks/v2/%s@v{apache_beam.__version__}"
_PROGRAMS = {
    "prism": _BEAM % "go/cmd/prism",
    "container": _BEAM % "python/container",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
}
_HOSTS = ("127.0.0.1", "127.0.0.2")  # of the workers, one core each


def find_go_program(name: str) -> str:
    """The path of `prism`, of `container`, Beam's boot of Python workers, or of `fake-gcs-server`; skips the test where there is none.

    Looked for in `GOBIN`, `~/go/bin` and `PATH`; .ci/run builds them where there is Go.
    """
    folders = [os.environ.get("GOBIN"), str(Path.home() / "go/bin"), os.environ.get("PATH")]
    found = shutil.which(name, path=os.pathsep.join(folder for folder in folders if folder))
    if not found:
        pytest.skip(f"no {name}: go install {_PROGRAMS[name]}")
    return found


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass(frozen=True)
class Cluster:
    """The folder of a standalone cluster, and its master's URL."""

    folder: Path
    url: str


@contextmanager
def standalone(folder: Path, home: Path | None = None) -> Iterator[str]:
    """A master and a worker on each of two addresses, of the Spark in `home`, by default PySpark's; yields the master's URL."""
    home = home or Path(pytest.importorskip("pyspark").__file__).parent
    master, page = free_port(), free_port()
    environment = os.environ | {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_DIRS": str(folder / "spark"),
        "SPARK_DAEMON_MEMORY": "512m",
        # A master gives up an application after ten executors that died.
        "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -Dspark.deploy.maxExecutorRetries=-1",
        "PYSPARK_PYTHON": sys.executable,
    }

    def begin(name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [str(home / "bin/spark-class"), f"org.apache.spark.deploy.{name}", *words]
        with open(folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    url = f"spark://127.0.0.1:{master}"
    ports = ["--host", "127.0.0.1", "--port", str(master), "--webui-port", str(page)]
    processes = [begin("master.Master", ports)]
    try:
        for host in _HOSTS:
            own = [
                "--host",
                host,
                "--cores",
                "1",
                "--memory",
                "1g",
                "--webui-port",
                "0",
                "--work-dir",
                str(folder / host),
            ]
            processes.append(begin("worker.Worker", [*own, url]))
        _wait(f"http://127.0.0.1:{page}/json/", len(_HOSTS), folder)
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _wait(page: str, workers: int, folder: Path) -> None:
    """Wait until the master knows so many workers."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with suppress(OSError), urllib.request.urlopen(page, timeout=5) as answer:
            if json.load(answer)["aliveworkers"] == workers:
                return
        time.sleep(0.2)
    logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log")]
    raise AssertionError(f"no cluster: {logs}")


def find_executors(folder: Path) -> list[int]:
    """The Java processes of executors of a cluster in this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        is_here = (process.info["cwd"] or "").startswith(str(folder))
        if is_here and any("CoarseGrainedExecutorBackend" in word for word in process.info["cmdline"] or ()):
            found.append(process.info["pid"])
    return found


def write_boot(folder: Path, environment: Path | None = None) -> str:
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
