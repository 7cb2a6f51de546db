"""Secrets in storage options stay in the recipe or the environment, for each kind of input and each command."""

import json
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.kit import crawls
from tests.kit.articles import HIGHEST, write_folders, write_inventory
from tests.kit.commands import run_command
from tests.kit.embedded import make_embeddings, write_pool
from tests.kit.s3 import NAMES, serving_s3
from tests.kit.watched import find_words, watching

pytestmark = [pytest.mark.thorough, pytest.mark.slow]

SECRET, OTHER = "wJalrXUtnFEMI-K7MDENG", "hush-bPxRfiCY-literal"


def write_inputs(folder):
    """Write an input of each kind, lists that name files in a bucket, and a table to join."""
    kit.write_tars(folder / "tars", kit.make_samples(12), 2)
    write_pool(folder / "rows", 2, *make_embeddings(20, 8))
    write_folders(folder / "pmc", HIGHEST[:3])
    write_inventory(folder / "inventory.csv.gz", HIGHEST[:3])
    page = "".join(f'<img src="http://a.org/{n}.jpg" alt="a red boat by the sea {n}">' for n in range(5))
    site = crawls.Site("http://a.org/page", html=f"<html><head></head><body>{page}</body></html>".encode())
    crawls.pack(folder / "a.warc.gz", [crawls.info("a"), *crawls.warc_records(site, 1)])
    (folder / "warc.paths").write_text("a.warc.gz\n")
    urls = [f"http://127.0.0.1:1/{n}.jpg" for n in range(3)]
    pq.write_table(pa.table({"url": urls, "caption": ["a red boat"] * 3}), folder / "list.parquet")
    pq.write_table(pa.table({"url": ["http://a.org/1.jpg"], "score": [1.0]}), folder / "joined.parquet")


def sources(storage):
    """The inputs of two recipes: images, and texts."""
    network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "attempts": 1}
    joined = {"path": "joined.parquet", "on": "url", "columns": {"mine": "score"}}
    rows = {"format": "parquet", "path": "rows/*.parquet", "columns": {"caption": "TEXT", "url": "URL"}}
    kinds = [
        [
            {"format": "webdataset", "path": "tars/*.tar"},
            {"format": "pmc", "path": "inventory.csv.gz", "prefix": "s3://bucket/pmc/"},
            {"format": "urls", "path": "list.parquet", "network": network},
        ],
        [rows | {"join": joined}, {"format": "commoncrawl", "path": "warc.paths", "prefix": "s3://bucket/"}],
    ]
    more = lambda it: {"name": it["format"], "path": f"s3://bucket/{it['path']}", "storage": storage}  # noqa: E731
    return [[source | more(source) for source in some] for some in kinds]


def test_a_secret_is_nowhere(tmp_path, monkeypatch):
    """Run folders, trial runs, the report, output, temporary files, and messages do not have it."""
    watched, recipes = tmp_path / "watched", tmp_path / "recipes"
    (watched / "tmp").mkdir(parents=True)
    recipes.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(watched / "tmp"))
    monkeypatch.setenv("POOL_SECRET", SECRET)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serving_s3() as endpoint, watching((SECRET, OTHER), watched) as seen:
        fs = fsspec.filesystem("s3", endpoint_url=endpoint, key="k", secret="s")
        fs.makedirs("bucket", exist_ok=True)
        write_inputs(tmp_path / "inputs")
        fs.put(f"{tmp_path}/inputs/", "bucket/", recursive=True)
        (recipes / "joined.parquet").write_bytes((tmp_path / "inputs/joined.parquet").read_bytes())

        def curate(*words, status=0):
            done = run_command(*words)
            with (watched / "printed").open("a") as file:
                file.write(done.out + done.err)
            assert done.status == status, done.err
            return done.out + done.err

        for n, some in enumerate(sources({"endpoint_url": endpoint, "key": OTHER, "secret": "env:POOL_SECRET"})):
            recipe, out = str(recipes / f"{n}.yaml"), f"{watched}/{n}"
            Path(recipe).write_text(json.dumps({"input": some, "max_failed": 1.0, "rules": {"long": "words > 1"}}))
            curate("plan", recipe, "--measure", "10")
            curate("run", recipe, "--out", out)
            curate("run", recipe, "--out", f"{out}-again", "--reuse", out, "--set", "rules={short: words < 30}")
            curate("report", out)
            curate("verify", out)
            assert any(json.loads(Path(out, "run.json").read_text())["counts"].values())
            away = [source | {"path": f"{source['path']}-away"} for source in some[:1]]
            Path(recipe).write_text(json.dumps({"input": away}))
            assert "away" in curate("run", recipe, "--out", f"{out}-away", status=2)
    assert seen == {} and find_words((SECRET, OTHER), watched) == []
