"""A cloud on this machine's loopback: Dataflow's API, which is ours, and Cloud Storage, which is fake-gcs-server."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from fsspec.registry import _registry

from tests.runners.dataflow.loopback import IMAGE, open_store, serving_storage, variables
from tests.runners.dataflow.service import Service, serving


@pytest.fixture(scope="session")
def storage():
    """The address of Cloud Storage, which Beam and gcsfs find by a variable."""
    pytest.importorskip("google.cloud.dataflow")
    with serving_storage() as url, pytest.MonkeyPatch.context() as patched:
        for name, value in variables(url).items():
            patched.setenv(name, value)
        for scheme in ("gs", "gcs"):  # whatever gcsfs was imported for before
            patched.setitem(_registry, scheme, type(open_store()))
        yield url


@dataclass
class Cloud:
    """What a test has of it."""

    service: Service
    folder: Path  # on this machine, for files of options and what commands print

    def write_options(self, **more):
        """A file for --on."""
        options = {"runner": "dataflow", "project": "my-project-1", "region": "us-central1"}
        options |= {"sdk_container_image": IMAGE, "dataflow_endpoint": self.service.url, "no_auth": True}
        path = self.folder / "dataflow.yaml"
        path.write_text(yaml.safe_dump(options | more))
        return path

    def start(self, *words, **more):
        """`curate run …` on it, in a process of its own."""
        command = [sys.executable, "-m", "curate", "run", *words, "--on", str(self.write_options(**more))]
        with open(self.folder / "err", "w") as err:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, text=True)

    def wait_for_job(self, running, seconds=300):
        """The job, once there is one; the process may have ended with status 0."""
        ends = time.monotonic() + seconds
        while not self.service.begun.wait(0.1):
            assert running.poll() in (None, 0) and time.monotonic() < ends, self.errors
        return self.service.jobs[-1]

    @property
    def errors(self):
        return (self.folder / "err").read_text()


@pytest.fixture
def cloud(storage, tmp_path):
    folder = tmp_path / "cloud"
    folder.mkdir()
    with serving() as service:
        yield Cloud(service, folder)
