"""A run on a standalone cluster that tests look at from outside: which tasks run, who works on them, and what it left."""

import json
import os
import subprocess
import sys
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import yaml

from tests.runners.clusters import Standalone, free_port
from tests.runners.runs import digests

_CONF = {
    "spark.executor.memory": "512m",
    "spark.task.maxFailures": "20",
    "spark.stage.maxConsecutiveAttempts": "20",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
}


@dataclass
class Driver:
    """A run on the cluster, whose Spark shows by REST which tasks run."""

    recipe: Path
    out: Path
    cluster: Standalone
    conf: dict[str, str] = field(default_factory=dict)
    url: str = ""  # the run's folder, by default `out`
    port: int = field(default_factory=free_port)

    def __post_init__(self):
        own = {"spark.ui.port": str(self.port), "spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"]}
        options = {"runner": "spark", "spark_master_url": self.cluster.url, "spark_conf": _CONF | own | self.conf}
        on = self.out.with_suffix(".yaml")
        on.write_text(yaml.safe_dump(options))
        words = [sys.executable, "-m", "curate", "run", self.recipe, "--out", self.url or self.out, "--on", on]
        with open(self.out.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    @property
    def said(self):
        return self.out.with_suffix(".log").read_text()[-5000:]

    def count_ended(self):
        """How many stages have ended."""
        with suppress(OSError, ValueError, IndexError):
            [application, *_] = self._get("applications")
            return len(self._get(f"applications/{application['id']}/stages?status=complete"))
        return 0

    def find_running(self):
        """The stage of the task that each executor has, as far as Spark knows; not of those that only ask executors."""
        running = {}
        with suppress(OSError, ValueError, IndexError):
            [application, *_] = self._get("applications")
            stages = f"applications/{application['id']}/stages"
            for stage in self._get(f"{stages}?status=active"):
                tasks = self._get(f"{stages}/{stage['stageId']}/{stage['attemptId']}/taskList?status=running")
                name = (stage.get("description") or stage["name"]).split(" (")[0]
                if not name.startswith("Probe"):
                    running |= {task["executorId"]: name for task in tasks}
        return running

    def _get(self, path):
        address = f"{self.conf.get('spark.driver.host', '127.0.0.1')}:{self.port}"
        with urllib.request.urlopen(f"http://{address}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)


@dataclass(frozen=True)
class Executor:
    """Java of an executor, and the Python processes that it has tasks in."""

    id: str
    java: psutil.Process

    @property
    def pythons(self):
        """The children of PySpark's daemon."""
        with suppress(psutil.Error):
            children = self.java.children(recursive=True)
            daemons = {child.pid for child in children if child.ppid() == self.java.pid}
            return [child for child in children if child.ppid() in daemons]
        return []

    @property
    def host(self):
        words = self.java.cmdline()
        return words[words.index("--hostname") + 1]


def find_executors(cluster):
    executors = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if (process.info["cwd"] or "").startswith(str(cluster.folder)) and "--executor-id" in words:
            executors.append(Executor(words[words.index("--executor-id") + 1], process))
    return executors


def check_run(out, wanted):
    """That a run published what it should, and nothing besides but logs."""
    assert digests(out) == wanted
    listed = set(pq.read_table(out / "manifest.parquet")["path"].to_pylist()) | {"manifest.parquet", "_SUCCESS"}
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    rest = {name for name in files - listed if not name.startswith("logs/")}
    assert not rest, rest
