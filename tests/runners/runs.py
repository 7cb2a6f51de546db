"""Runs by the command, on any engine, and which of their files must be equal."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
import yaml

from curate.cli.demo import _write_recipe
from curate.demo.pool import write_pool
from tests.kit import forked
from tests.kit import llm_server as servers
from tests.kit.llm_server import FaultServer

TIMED = ("run.json", "_stats.json", "manifest.parquet", "stats.duckdb")  # which hold times


def curate(recipe, out, options=None, environment=None, more=()):
    """Run a recipe by its command, on the engine of these options; returns digests of its files."""
    words = ["run", recipe, "--out", out, *more]
    if options:
        on = out.with_suffix(".yaml")
        on.write_text(yaml.safe_dump(options))
        words += ["--on", on]
    with tempfile.NamedTemporaryFile() as errors:
        process = forked.start(*words, env=os.environ | (environment or {}), err=errors.name)
        process.join()
        assert process.exitcode == 0, Path(errors.name).read_text()[-5000:]
    return digests(out)


def digests(run):
    """The sha256 of each file that lasts, by name; without those that hold times, and what engines print."""
    paths = (path for path in run.rglob("*") if path.is_file() and not path.name.endswith(TIMED))
    named = ((str(path.relative_to(run)), path) for path in paths)
    named = ((name, path) for name, path in named if not name.startswith(("logs/", "tmp/", "parts/")))
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named}


def write_demo(folder):
    """The demo's recipe over a smaller pool, with relations, a rule for the best, and recorded captions."""
    _write_recipe(str(folder), str(folder / "demo.yaml"))
    write_pool(str(folder / "pool"), samples=240, seed=3, shards=4)
    own = yaml.safe_load((folder / "demo.yaml").read_text())
    own["relate"] = {"negclip": {"s_clip": {"references": 40}}, "clusters": {"topic": {"k": 5, "rounds": 2}}}
    own["relate"]["vas"] = {"pool_vas": {}}
    own["rules"]["wide"] = {"top": 0.9, "of": "width"}
    own["rules"]["fits"] = {"top": 0.9, "of": "s_clip"}
    own |= {"balance": {"rows": 180}, "output": {"rows_per_shard": 30}}

    def write(name, engine):
        captions = {"engines": {"llm": engine}, "rewrite": {"engine": "llm", "styles": ["human"], "batch": 4}}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(own | {"captions": captions}, sort_keys=False))
        return path

    with FaultServer() as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr(servers, "echo", lambda prompt: f" a view of {prompt.rstrip().splitlines()[-1][:-3]}")
        asked = write("asked", {"openai": {"base_url": server.base_url, "model": "tiny-llm"}})
        curate(asked, folder / "answered")
    return write("demo", {"recorded": {"path": str(folder / "answered"), "model": "tiny-llm"}})
