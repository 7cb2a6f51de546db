"""Spark's cluster mode on YARN and Kubernetes: the driver runs on the cluster, so this machine may be switched off.

The engine stages the pipeline in the run folder. `spark-submit` sends the file of `curate.cli.staged`, which runs it.
PySpark's own programs query and stop jobs. They use the user's configuration for Hadoop and Kubernetes, including
credentials and standbys, and take seconds to start. A YARN job is found by its tag until it has an ID.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from apache_beam.runners.runner import PipelineState

import curate
from curate.base.errors import RunError
from curate.base.wording import one_line
from curate.store.layout import DRIVER_LOG
from curate.store.store import RunStore
from pipelines.engines.job import Job
from pipelines.spark.context import is_secret

MODE = "spark.submit.deployMode"
IN_IMAGE = "local:///opt/curate/staged.py"  # infra/Dockerfile links the driver's file here
_CLI = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
_CONTEXT = "spark.kubernetes.context"
_PATIENCE, _SUBMITTING = 120, 3600  # seconds: limit for an answer, and to upload an environment of gigabytes
_BETWEEN = 15.0  # seconds between two polls of a job
_UNHEARD = 3600.0  # seconds without an answer before following gives up
_BY_TAG, _NUMBER, _NONE = "curate-", r"application_\d+_\d+", "doesn't exist|No applications found"
# YARN's state, or its final state if the job has finished; for Kubernetes, the phase of the driver's pod.
_STATES = {
    **dict.fromkeys(("NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED", "Pending"), PipelineState.PENDING),
    **dict.fromkeys(("RUNNING", "Running"), PipelineState.RUNNING),
    **dict.fromkeys(("SUCCEEDED", "Succeeded"), PipelineState.DONE),
    **dict.fromkeys(("FAILED", "Failed"), PipelineState.FAILED),
    "KILLED": PipelineState.CANCELLED,
}


def name_job(conf: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the handle of a job by its name, which starts with `curate-`: the name, and how to reach the cluster."""
    if conf["spark.master"] == "yarn":
        return {"job": name, "master": "yarn", "hadoop": find_hadoop() or ""}
    job = f"{conf.get('spark.kubernetes.namespace', 'default')}:{name}"
    return {"job": job, "master": conf["spark.master"], "context": conf.get(_CONTEXT, "")}


def submit(conf: Mapping[str, str], handle: Mapping[str, str], store: RunStore, lease: str) -> Job:
    """Submit the driver of the staged pipeline, and return when the cluster accepts it. Raises RunError."""
    name, file, mode = handle["job"].rpartition(":")[2], IN_IMAGE, {MODE: "cluster"}
    if handle["master"] == "yarn":
        file = str(Path(curate.__file__).with_name("cli") / "staged.py")
        tags = ",".join(filter(None, [name, conf.get("spark.yarn.tags")]))
        mode |= {"spark.yarn.tags": tags, "spark.yarn.submit.waitAppCompletion": "false"}
    else:
        mode |= {"spark.kubernetes.driver.pod.name": name, "spark.kubernetes.submission.waitAppCompletion": "false"}
    settings = {"spark.app.name": name} | dict(conf) | mode
    words = [word for key, value in settings.items() if not is_secret(key) for word in ("--conf", f"{key}={value}")]
    job = ClusterJob(handle, store)
    with _hiding({key: value for key, value in settings.items() if is_secret(key)}) as hidden:
        text = job.call("spark-submit", *hidden, *words, file, store.url, lease, seconds=_SUBMITTING)
    job.take(number=re.search(_NUMBER, text), page=re.search(r"tracking URL: (\S+)", text))
    return job


@contextmanager
def _hiding(secrets: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield words for `spark-submit` that name a file with Spark's defaults and secrets, readable only by this user."""
    if not secrets:
        yield []
        return
    folder = os.environ.get("SPARK_CONF_DIR") or f"{_find_home()}/conf"
    defaults = Path(folder, "spark-defaults.conf")
    lines = [defaults.read_text()] if defaults.exists() else []
    lines += ["{}={}".format(key, value.replace("\\", r"\\")) for key, value in secrets.items()]
    with tempfile.NamedTemporaryFile("w", prefix="curate-", suffix=".conf") as file:
        file.write("\n".join([*lines, ""]))
        file.flush()
        yield ["--properties-file", file.name]


def _find_home() -> str:
    from pyspark.find_spark_home import _find_spark_home

    return str(_find_spark_home())


def find_hadoop() -> str | None:
    """Return the folder of Hadoop's configuration that Spark uses."""
    return os.environ.get("HADOOP_CONF_DIR") or os.environ.get("YARN_CONF_DIR")


class ClusterJob(Job):
    """A job by its handle, from any process. To follow it, pass the folder of its run."""

    def __init__(self, handle: Mapping[str, str], store: RunStore | None = None) -> None:
        self.engine, self._handle, self._store = "Spark", dict(handle), store
        self._is_yarn, self._is_killed = handle["master"] == "yarn", False
        self._report: dict[str, str] = {}  # YARN's latest report

    def call(self, program: str, *words: str, seconds: float = 0) -> str:
        """Return the output of one of Spark's programs. Raises RunError if it fails or takes too long."""
        hadoop, timeout = find_hadoop() or self._handle.get("hadoop"), seconds or _PATIENCE
        command = [f"{_find_home()}/bin/{program}", *words]
        env = os.environ | ({"HADOOP_CONF_DIR": hadoop} if hadoop else {})
        try:
            done = subprocess.run(command, env=env, capture_output=True, timeout=timeout, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"no answer in {timeout:g} s" if hasattr(error, "timeout") else str(error)
            raise RunError(f"{self._handle['master']}: {program}: {reason}") from None
        text = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode and not re.search(_NONE, text):
            reasons = re.findall(r"^(?!\s+at ).*(?:Exception|Error)\b.*", text, re.MULTILINE) or [text[-400:]]
            raise RunError(f"{self._handle['master']}: {program}: {one_line(reasons[-1], 400)}")
        return text

    def take(self, number: re.Match[str] | None, page: re.Match[str] | None) -> None:
        """Remember the ID and the page of a YARN application."""
        self._handle |= {"job": number[0]} if number else {}
        self._report |= {"Tracking-URL": page[1]} if page else {}

    @property
    def handle(self) -> Mapping[str, str]:
        return self._handle

    @property
    def logs(self) -> str | None:
        """The page of a YARN application after its first report, or the command that shows a pod's output."""
        space, _, pod = self._handle["job"].rpartition(":")
        return self._report.get("Tracking-URL") if self._is_yarn else f"kubectl logs -n {space} {pod}"

    @property
    def fault(self) -> str | None:
        return self._report.get("Diagnostics")

    @property
    def state(self) -> str:
        state = self._ask_yarn() if self._is_yarn else self._ask_pod("--status").partition("phase: ")[2].split("\n")[0]
        has_exited = self._is_killed and not state  # a killed driver's pod is deleted
        return str(_STATES.get(state, PipelineState.CANCELLED if has_exited else PipelineState.UNKNOWN))

    def _ask_yarn(self) -> str:
        if self._handle["job"].startswith(_BY_TAG):
            words = ("-list", "-appStates", "ALL", "-appTags", self._handle["job"])
            if not (numbers := re.findall(_NUMBER, self.call("spark-class", _CLI, "application", *words))):
                return ""
            self._handle["job"] = max(numbers, key=lambda number: (len(number), number))
        text = self.call("spark-class", _CLI, "application", "-status", self._handle["job"])
        self._report = dict(re.findall(r"^\s*([\w-]+) : *(.*)$", text, re.MULTILINE))
        state = self._report.get("State", "")
        return self._report["Final-State"] if state == "FINISHED" else state

    def _ask_pod(self, option: str) -> str:
        context = ["--conf", f"{_CONTEXT}={self._handle['context']}"] if self._handle["context"] else []
        return self.call("spark-submit", "--master", self._handle["master"], *context, option, self._handle["job"])

    def follow(self, on_costs: Callable[[], None]) -> None:
        state = self._look_until_ended(lambda: None, _BETWEEN, _UNHEARD)  # the driver on the cluster records the costs
        if state != PipelineState.DONE:
            store = self._store if self._store and self._store.exists(DRIVER_LOG) else None
            counted = re.findall(r"^curate: (.*)", store.read_bytes(DRIVER_LOG).decode() if store else "", re.MULTILINE)
            raise RuntimeError(counted[-1] if counted else f"Spark: the job is {state}; see {self.logs}: {self.fault}")

    def _end(self) -> None:
        if self._is_yarn:
            self.call("spark-class", _CLI, "application", "-kill", self._handle["job"])
        else:
            self._ask_pod("--kill")
        self._is_killed = True
