"""Commands in this process: `run_command`, two small pools, and a finished run of each, as fixtures of pytest."""

import contextlib
import io
import logging
import sys
import tarfile
import warnings
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.ask import status as status_of_runs
from curate.cli import common
from curate.cli import status as following
from curate.cli.main import main
from tests.kit.once import made_once
from tests.kit.pools import add_member, encode

TARS = """
name: photos
input: {name: photos, format: webdataset, path: "tars/{00..02}.tar"}
measure: {image: {phash: true}}
match: {metadata: entries.txt}
rules:
  words: words > 2
  side: least(width, height) >= 30
dedup: {by: [uid, sha256]}
balance: {t: 12}
output: {rows_per_shard: 10}
max_failed: 0.2
"""
TEXTS = """
name: texts
input: {name: urls, format: parquet, path: pool.parquet}
match: {metadata: entries.txt}
rules:
  best: {top: 0.8, of: clip_score}
  words: words > 2
balance: {rows: 60}
output: {rows_per_shard: 25}
"""
ENTRIES = "cat\ndog\nphoto\n.\ncat\n\nSt. Louis\nof\n"


class Done(NamedTuple):
    """The exit status of a command, and its standard output and standard error."""

    status: int
    out: str
    err: str


def run_command(*arguments):
    """Run `curate ARGUMENTS` in this process. It raises what a user would see as a traceback."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    level = logging.getLogger().level
    try:
        with (
            mock.patch.object(sys, "argv", ["curate", *arguments]),
            mock.patch.object(common, "SLOW", 600),  # on a crowded machine everything is slow
            mock.patch.object(following, "_MIN_PAUSE", 0.2),
            mock.patch.object(status_of_runs, "LONGEST", 1.0),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as ended:
        assert ended.code is None or isinstance(ended.code, int)
        status = ended.code or 0
    finally:
        logging.getLogger().setLevel(level)
    return Done(status, out.getvalue(), err.getvalue())


def write_pool(folder):
    """Write two recipes and their pools: three tars of 20 samples, one of them damaged in each, and 200 rows of Parquet."""
    rng = np.random.default_rng(1)
    (folder / "tars").mkdir(parents=True)
    nouns = ["cat", "dog", "bird"]
    for shard in range(3):
        with tarfile.open(folder / "tars" / f"{shard:02d}.tar", "w") as tar:
            for i in range(20):
                image = encode(Image.fromarray(rng.integers(0, 255, (20 if i == 7 else 40, 40, 3), np.uint8)))
                text = f"a photo of {nouns[i % 3]} number {shard}{i}" if i % 4 else f"one {nouns[i % 3]} {shard}{i}"
                add_member(tar, f"{shard:02d}{i:03d}.jpg", b"broken" if i == 11 else image)
                add_member(tar, f"{shard:02d}{i:03d}.txt", (b"cat" if i == 3 else text.encode()))
    captions = [f"a photo of {nouns[i % 3]} {i}" if i % 5 else f"photo {i}" for i in range(200)]
    scores = pa.array(rng.random(200), pa.float32())
    table = {"url": [f"http://x/{i}" for i in range(200)], "caption": captions, "clip_score": scores}
    pq.write_table(pa.table(table), folder / "pool.parquet")
    for name, text in (("tars.yaml", TARS), ("texts.yaml", TEXTS), ("entries.txt", ENTRIES)):
        (folder / name).write_text(text)


@pytest.fixture(scope="session")
def cli():
    """`run_command`."""
    return run_command


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A folder with the recipes tars.yaml and texts.yaml and what they read; do not change it."""
    return made_once(tmp_path_factory, "pool", write_pool)[0]


@pytest.fixture(scope="session")
def finished(pool, tmp_path_factory):
    """Recipe → the folder of a finished run, and how the command ended; do not change them."""

    def make(folder):
        recipes = {name: (str(pool / f"{name}.yaml"), str(folder / name)) for name in ("tars", "texts")}
        done = {name: run_command("run", recipe, "--out", out) for name, (recipe, out) in recipes.items()}
        return {name: (folder / name, ended) for name, ended in done.items()}

    done = made_once(tmp_path_factory, "runs", make)[1]
    assert [ended.status for _, ended in done.values()] == [0, 0], done
    return done


@pytest.fixture(params=["tars", "texts"])
def run(request, finished):
    """The folder of a finished run; each test runs twice: with tars, and with Parquet."""
    return finished[request.param][0]
