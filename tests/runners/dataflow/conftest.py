"""A cloud on this machine's loopback: Dataflow's API, which is ours, and Cloud Storage, which is fake-gcs-server."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runners.clusters import find_go_program, free_port
from tests.runners.dataflow.service import Job, Service, serving

IMAGE = "us-central1-docker.pkg.dev/my-project-1/curate/curate:1"
BUCKET = "gs://my-bucket"


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    """The address of Cloud Storage, with one bucket; in memory. Beam and gcsfs find it by a variable.

    gcsfs asks by gRPC for a bucket's layout, which the server does not know.
    """
    pytest.importorskip("google.cloud.dataflow")
    url = f"http://127.0.0.1:{(port := free_port())}"
    words = [
        "-scheme=http",
        "-host=127.0.0.1",
        f"-port={port}",
        "-backend=memory",
        "-log-level=error",
        f"-external-url={url}",
    ]
    server = subprocess.Popen([find_go_program("fake-gcs-server"), *words, f"-public-host=127.0.0.1:{port}"])
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("STORAGE_EMULATOR_HOST", url)
            patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            body = f'{{"name": "{BUCKET[5:]}"}}'.encode()
            request = urllib.request.Request(
                f"{url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
            )
            ends = time.monotonic() + 20
            while time.monotonic() < ends:
                with suppress(OSError), urllib.request.urlopen(request, timeout=5):
                    break
                time.sleep(0.1)
            yield url
    finally:
        server.kill()
        server.wait()


@dataclass
class Cloud:
    """What a test has of it."""

    service: Service
    folder: Path  # on this machine, for files of options and what commands print

    def write_options(self, **more: Any) -> Path:
        """A file for --on."""
        options = {
            "runner": "dataflow",
            "project": "my-project-1",
            "region": "us-central1",
            "sdk_container_image": IMAGE,
            "dataflow_endpoint": self.service.url,
            "no_auth": True,
        }
        path = self.folder / "dataflow.yaml"
        path.write_text(yaml.safe_dump(options | more))
        return path

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """`curate run …` on it, in a process of its own."""
        command = [sys.executable, "-m", "curate", "run", *words, "--on", str(self.write_options(**more))]
        with open(self.folder / "err", "w") as err:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, text=True)

    def wait_for_job(self, running: subprocess.Popen[str], seconds: float = 90) -> Job:
        """The job, once there is one; the process may have ended with status 0."""
        ends = time.monotonic() + seconds
        while not self.service.begun.wait(0.1):
            assert running.poll() in (None, 0) and time.monotonic() < ends, self.errors
        return self.service.jobs[-1]

    @property
    def errors(self) -> str:
        return (self.folder / "err").read_text()


@pytest.fixture
def cloud(storage: str, tmp_path: Path) -> Iterator[Cloud]:
    folder = tmp_path / "cloud"
    folder.mkdir()
    with serving() as service:
        yield Cloud(service, folder)


def _open_store() -> Any:
    from gcsfs.core import GCSFileSystem  # the plain one, whatever gcsfs was imported for before

    return GCSFileSystem(token="anon", skip_instance_cache=True, use_listings_cache=False)


def read(url: str) -> bytes:
    """A file of the bucket."""
    data: bytes = _open_store().cat_file(url)
    return data


def list_files(url: str) -> list[str]:
    """The files of a folder of the bucket."""
    return list(_open_store().find(url))


def download(url: str, folder: Path) -> None:
    """A folder of the bucket as one here."""
    store, prefix = _open_store(), url.removeprefix("gs://").rstrip("/") + "/"
    for name in store.find(prefix):
        path = folder / name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.cat_file(name))


def upload(folder: Path, url: str) -> None:
    """The files of a folder into the bucket."""
    store = _open_store()
    for path in folder.iterdir():
        store.pipe_file(f"{url}/{path.name}", path.read_bytes())
