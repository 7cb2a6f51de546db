"""A secret by which the pool is read reaches workers by their own environment, and nothing that is written or shown."""

import importlib
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
import pytest

from curate.demo.pool import write_pool
from tests.runners.clusters import free_port

pytestmark = pytest.mark.runners

SECRET, OTHER = "wJalrXUtnFEMI-K7MDENG", "hush-bPxRfiCY-literal"


@contextmanager
def watching(folder: Path, page: str) -> Iterator[dict[str, bytes]]:
    """What files below a folder held at some time, as far as they hold a secret; and the page of Spark, as last seen."""
    seen: dict[str, bytes] = {}
    states: dict[Path, tuple[int, int]] = {}
    ended = threading.Event()

    def look() -> None:
        for path in folder.rglob("*"):
            with suppress(OSError):
                status = path.stat()
                if path.is_file() and states.get(path) != (status.st_size, status.st_mtime_ns):
                    states[path] = status.st_size, status.st_mtime_ns
                    data = path.read_bytes()
                    if SECRET.encode() in data or OTHER.encode() in data:
                        seen[str(path)] = data
        with suppress(OSError), urllib.request.urlopen(page, timeout=2) as answer:
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


def test_a_secret_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    watched, temporary = tmp_path / "watched", tmp_path / "watched/tmp"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        s3 = fsspec.filesystem("s3", endpoint_url=endpoint, key="k", secret="s")
        s3.mkdir("bucket")
        write_pool(tmp_path / "pool", samples=200, seed=3, shards=2)
        s3.put(f"{tmp_path}/pool/", "bucket/pool/", recursive=True)
        port = free_port()
        (watched / "events").mkdir()
        settings = [f"spark.ui.port={port}", "spark.eventLog.enabled=true", f"spark.eventLog.dir={watched}/events"]
        spark = [
            "--",
            "--runner=spark",
            "--spark_master_url=local[2]",
            *(f"--spark_conf={setting}" for setting in settings),
        ]
        literal = write_recipe(tmp_path / "literal.yaml", endpoint, OTHER, OTHER)
        named = write_recipe(watched / "recipe.yaml", endpoint, "env:POOL_KEY", "env:POOL_SECRET")

        def run(recipe: Path, out: str, *words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "curate", "run", str(recipe), "--out", f"{watched}/{out}", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            (watched / f"{out}.printed").write_text(done.stdout + done.stderr)
            return done

        with watching(watched, f"http://127.0.0.1:{port}/environment/") as seen:
            done = run(literal, "local")
            assert done.returncode == 0, done.stderr
            missing = run(named, "missing")
            assert missing.returncode == 2 and "POOL_KEY is not set" in missing.stderr
            monkeypatch.setenv("POOL_KEY", SECRET)
            monkeypatch.setenv("POOL_SECRET", SECRET)
            refused = run(literal, "refused", *spark)
            assert refused.returncode == 2 and "storage.key: a secret would be sent" in refused.stderr
            done = run(named, "spark", *spark)
            assert done.returncode == 0, done.stderr
        subprocess.run([sys.executable, "-m", "curate", "report", f"{watched}/spark"], check=True, capture_output=True)
    finally:
        server.stop()
        importlib.import_module("s3fs").S3FileSystem.clear_instance_cache()
    assert b"spark.eventLog.enabled" in seen["page"] and SECRET.encode() not in seen.pop("page")
    assert list((watched / "events").rglob("*")) and seen == {}
    for out in ("local", "spark"):
        assert os.path.exists(watched / out / "_SUCCESS")
    files = [path for path in watched.rglob("*") if path.is_file()]
    assert not [path for path in files if any(word.encode() in path.read_bytes() for word in (SECRET, OTHER))]
