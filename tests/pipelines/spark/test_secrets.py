"""A secret by which the pool is read reaches workers by their own environment, and nothing that is written or shown."""

import base64
import bz2
import json
import os
import re
import subprocess
import sys
import zlib
from contextlib import contextmanager, suppress

import fsspec
import pytest

from curate.demo.pool import write_pool
from tests.kit.s3 import NAMES, serving_s3
from tests.kit.watched import find_words, watching
from tests.runners.clusters import free_port, standalone

pytestmark = pytest.mark.runners

SECRET, OTHER = "wJalrXUtnFEMI-K7MDENG", "hush-bPxRfiCY-literal"
SETTING = "je7MtGbClwBF-setting"  # of Spark's own access to a store
WORDS = (SECRET, OTHER, SETTING)


def write_recipe(path, endpoint, key, secret):
    storage = {"endpoint_url": endpoint, "key": key, "secret": secret}
    source = {"name": "photos", "format": "webdataset", "path": "s3://bucket/pool/{00000..00001}.tar"}
    recipe = {"input": source | {"storage": storage}, "rules": {"words": "words > 2"}, "max_failed": 0.9}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(recipe))
    return path


def unpack(data):
    """What Beam packed, at any depth: what it pickles it compresses, and writes as base64."""
    texts = [data]
    for packed in re.findall(rb"[A-Za-z0-9+/]{40,}=*", data):
        for decompress in (bz2.decompress, zlib.decompress):
            with suppress(ValueError, OSError, zlib.error):
                texts.append(unpack(decompress(base64.b64decode(packed))))
    return b"\n".join(texts)


@contextmanager
def serving_pool(folder):
    """The URL of a store with a pool, which this process's variables do not name."""
    with serving_s3() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name in NAMES[:2]:
            patch.delenv(name, raising=False)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3 = fsspec.filesystem("s3", endpoint_url=endpoint, key="k", secret="s")
        s3.makedirs("bucket", exist_ok=True)
        write_pool(folder / "pool", samples=200, seed=3, shards=2)
        s3.put(f"{folder}/pool/", "bucket/pool/", recursive=True)
        yield endpoint


@contextmanager
def running(place, folder):
    """The master of a Spark in this process, or of a cluster whose workers have the variables that this process has now."""
    if place == "local":
        yield "local[2]"
        return
    folder.mkdir()
    with standalone(folder) as url:
        yield url


@pytest.mark.parametrize("place", ["local", pytest.param("standalone", marks=pytest.mark.slow)])
def test_a_secret_is_nowhere(place, tmp_path, monkeypatch):
    watched, temporary = tmp_path / "watched", tmp_path / "watched/tmp"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    with serving_pool(tmp_path) as endpoint:
        literal = write_recipe(tmp_path / "literal.yaml", endpoint, OTHER, OTHER)
        named = write_recipe(watched / "recipe.yaml", endpoint, "env:POOL_KEY", "env:POOL_SECRET")

        def run(recipe, out, *words):
            command = [sys.executable, "-m", "curate", "run", str(recipe), "--out", f"{watched}/{out}", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            (watched / f"{out}.printed").write_text(done.stdout + done.stderr)
            return done

        port = free_port()
        with watching(WORDS, watched, f"http://127.0.0.1:{port}/environment/") as seen:
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
                assert (
                    refused.returncode == 2 and "storage.key contains a secret, which would be sent" in refused.stderr
                )
                done = run(named, "spark", "--on", f"{tmp_path}/on.yaml")
                assert done.returncode == 0, done.stderr
        subprocess.run([sys.executable, "-m", "curate", "report", f"{watched}/spark"], check=True, capture_output=True)
    page = seen.pop("page").decode()
    assert "spark.eventLog.enabled" in page and not any(word in page for word in WORDS)
    events = [path.read_text() for path in (watched / "events").rglob("*") if path.is_file()]
    assert "fs.s3a.secret.key" in "".join(events) and seen == {}
    for out in ("local", "spark"):
        assert os.path.exists(watched / out / "_SUCCESS")
    assert find_words(WORDS, watched) == []


@pytest.mark.parametrize("master", ["yarn", "k8s://https://localhost:6443"])
def test_a_secret_is_in_nothing_that_a_cluster_gets(master, tmp_path, monkeypatch):
    """What is staged in the run folder, and what Spark's program is called with: a script stands for it.

    A setting's secret is for YARN alone, in a file that only this user can read, and only meanwhile.
    """
    (watched := tmp_path / "watched").mkdir()
    (tmp_path / "bin").mkdir()
    program, is_yarn = tmp_path / "bin/spark-submit", master == "yarn"
    lines = ["#!/bin/sh", f"printf '%s\\n' \"$@\" > {watched}/words", f"env > {tmp_path}/variables"]
    lines += [f'[ "$1" = --properties-file ] && cp -p "$2" {tmp_path}/properties', "echo application_17_0002"]
    program.write_text("\n".join([*lines, ""]))
    program.chmod(0o755)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("POOL_KEY", SECRET)
    monkeypatch.setenv("POOL_SECRET", SECRET)
    with serving_pool(tmp_path) as endpoint:
        recipe = write_recipe(watched / "recipe.yaml", endpoint, "env:POOL_KEY", "env:POOL_SECRET")
        conf = {"spark.hadoop.fs.s3a.secret.key": SETTING} if is_yarn else {"spark.executor.cores": "2"}
        options = {"runner": "spark", "spark_master_url": master, "spark_conf": conf}
        (tmp_path / "on.yaml").write_text(json.dumps(options))
        words = ["run", str(recipe), "--out", f"{watched}/run", "--on", f"{tmp_path}/on.yaml", "--detach"]
        done = subprocess.run([sys.executable, "-m", "curate", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (watched / "printed").write_text(done.stdout + done.stderr)
    [staged] = (watched / "run/tmp").glob("staged-*")
    texts = unpack(staged.read_bytes())
    (watched / "unpacked").write_bytes(texts)
    assert b"POOL_SECRET" in texts and "staged.py" in (watched / "words").read_text()
    assert find_words(WORDS, watched) == []
    lines = (tmp_path / "variables").read_text().splitlines()
    holding = {line.partition("=")[0] for line in lines if any(word in line for word in WORDS)}
    assert holding == {"POOL_KEY", "POOL_SECRET"}, "those of this user's shell, which Spark does not hand on"
    if is_yarn:
        assert (file := tmp_path / "properties").stat().st_mode & 0o777 == 0o600 and SETTING in file.read_text()
