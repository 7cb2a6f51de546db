"""A secret by which the pool is read reaches workers by their own environment, and nothing that is written or shown."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import psutil
import pytest

from curate.demo.pool import write_pool
from tests.runners.clusters import free_port, standalone
from tests.s3 import NAMES, serving_s3

pytestmark = pytest.mark.runners

SECRET, OTHER = "wJalrXUtnFEMI-K7MDENG", "hush-bPxRfiCY-literal"
SETTING = "je7MtGbClwBF-setting"  # of Spark's own access to a store


@contextmanager
def watching(folder: Path, page: str) -> Iterator[dict[str, bytes]]:
    """What files below a folder held at some time, and command lines, as far as it is a secret; and Spark's page, as last seen."""
    seen: dict[str, bytes] = {}
    states: dict[Path, tuple[int, int]] = {}
    ended = threading.Event()

    def look() -> None:
        names = (Path(top, name) for top, _, names in os.walk(folder) for name in names)  # whatever goes meanwhile
        for path in names:
            with suppress(OSError):
                status = path.stat()
                if path.is_file() and states.get(path) != (status.st_size, status.st_mtime_ns):
                    states[path] = status.st_size, status.st_mtime_ns
                    data = path.read_bytes()
                    if any(word.encode() in data for word in (SECRET, OTHER, SETTING)):
                        seen[str(path)] = data
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if any(word in line for word in (SECRET, OTHER, SETTING)):
                seen[f"process {process.pid}"] = line.encode()
        with suppress(OSError), urllib.request.urlopen(page, timeout=30) as answer:
            seen["page"] = answer.read()

    def go_on() -> None:
        while not ended.wait(0.3):
            look()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        look()


def write_recipe(path: Path, endpoint: str, key: str, secret: str) -> Path:
    storage = {"endpoint_url": endpoint, "key": key, "secret": secret}
    source = {"name": "photos", "format": "webdataset", "path": "s3://bucket/pool/{00000..00001}.tar"}
    recipe = {"input": source | {"storage": storage}, "rules": {"words": "words > 2"}, "max_failed": 0.9}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(recipe))
    return path


@contextmanager
def running(place: str, folder: Path) -> Iterator[str]:
    """The master of a Spark in this process, or of a cluster whose workers have the variables that this process has now."""
    if place == "local":
        yield "local[2]"
        return
    folder.mkdir()
    with standalone(folder) as url:
        yield url


@pytest.mark.parametrize("place", ["local", pytest.param("standalone", marks=pytest.mark.slow)])
def test_a_secret_is_nowhere(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, temporary = tmp_path / "watched", tmp_path / "watched/tmp"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving_s3() as endpoint:
        for name in NAMES[:2]:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3 = fsspec.filesystem("s3", endpoint_url=endpoint, key="k", secret="s")
        s3.makedirs("bucket", exist_ok=True)
        write_pool(tmp_path / "pool", samples=200, seed=3, shards=2)
        s3.put(f"{tmp_path}/pool/", "bucket/pool/", recursive=True)
        literal = write_recipe(tmp_path / "literal.yaml", endpoint, OTHER, OTHER)
        named = write_recipe(watched / "recipe.yaml", endpoint, "env:POOL_KEY", "env:POOL_SECRET")

        def run(recipe: Path, out: str, *words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "curate", "run", str(recipe), "--out", f"{watched}/{out}", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            (watched / f"{out}.printed").write_text(done.stdout + done.stderr)
            return done

        port = free_port()
        with watching(watched, f"http://127.0.0.1:{port}/environment/") as seen:
            done = run(literal, "local")
            assert done.returncode == 0, done.stderr
            missing = run(named, "missing")
            assert missing.returncode == 2 and "POOL_KEY is not set" in missing.stderr
            monkeypatch.setenv("POOL_KEY", SECRET)
            monkeypatch.setenv("POOL_SECRET", SECRET)
            with running(place, watched / "cluster") as master:
                (watched / "events").mkdir()
                conf = {"spark.ui.port": port, "spark.hadoop.fs.s3a.secret.key": SETTING}
                conf |= {"spark.eventLog.enabled": "true", "spark.eventLog.dir": f"{watched}/events"}
                conf |= {"spark.eventLog.compress": "false"}
                conf |= {"spark.executorEnv.PYTHONPATH": os.environ["PYTHONPATH"]}
                spark = {"runner": "spark", "spark_master_url": master, "spark_conf": conf}
                (tmp_path / "on.yaml").write_text(json.dumps(spark))
                refused = run(literal, "refused", "--on", f"{tmp_path}/on.yaml")
                assert refused.returncode == 2 and "storage.key: a secret would be sent" in refused.stderr
                done = run(named, "spark", "--on", f"{tmp_path}/on.yaml")
                assert done.returncode == 0, done.stderr
        subprocess.run([sys.executable, "-m", "curate", "report", f"{watched}/spark"], check=True, capture_output=True)
    page = seen.pop("page").decode()
    assert "spark.eventLog.enabled" in page and not any(word in page for word in (SECRET, OTHER, SETTING))
    events = [path.read_text() for path in (watched / "events").rglob("*") if path.is_file()]
    assert "fs.s3a.secret.key" in "".join(events) and seen == {}
    for out in ("local", "spark"):
        assert os.path.exists(watched / out / "_SUCCESS")
    files = [path for path in watched.rglob("*") if path.is_file()]
    assert not [path for path in files if any(word.encode() in path.read_bytes() for word in (SECRET, OTHER, SETTING))]
