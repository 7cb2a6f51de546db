"""What the tests of commands share: a way to run one in this process, two small pools, and a finished run of each."""

import contextlib
import io
import logging
import sys
import tarfile
import warnings
from dataclasses import dataclass
from typing import Protocol
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
from curate.run.in_process import InProcessUnits
from curate.store.error_notes import noting_errors
from pipelines import driver
from pipelines.engines.base import PipelineEngine
from tests.conftest import made_once

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


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed where."""

    status: int
    out: str
    err: str


class Cli(Protocol):
    """Runs `curate` with these arguments."""

    def __call__(self, *arguments): ...


def run_command(*arguments):
    """`curate arguments…`, in this process; an exception that reaches here would have been a traceback."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv, level = sys.argv, logging.getLogger().level
    sys.argv = ["curate", *arguments]
    try:
        slow = mock.patch.object(common, "SLOW", 600)  # on a crowded machine all is slow
        often = mock.patch.object(following, "_MIN_PAUSE", 0.2)
        soon = mock.patch.object(status_of_runs, "LONGEST", 1.0)
        with (
            slow,
            often,
            soon,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as ended:
        assert ended.code is None or isinstance(ended.code, int)
        status = ended.code or 0
    finally:
        sys.argv = argv
        logging.getLogger().setLevel(level)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli():
    """Runs a command in this process: its exit status, standard output and standard error."""
    return run_command


@pytest.fixture
def without_beam(monkeypatch):
    """Let runs do their steps in this process, one after the other: Beam takes two thirds of the time of small ones."""

    class Steps(InProcessUnits):
        def __init__(self, root, units, context, hints, spool):
            super().__init__(units, context)

        def finish(self):
            pass

    def submit(self, add_steps, store):
        with noting_errors(store):
            add_steps(None)
        return mock.Mock()

    monkeypatch.setattr(driver, "BeamUnits", Steps)
    monkeypatch.setattr(PipelineEngine, "submit", submit)


def write_pool(folder):
    """Two recipes and their pools: three tars of 20 samples (one damaged image each), and 200 rows of Parquet."""
    rng = np.random.default_rng(1)
    (folder / "tars").mkdir(parents=True)
    nouns = ["cat", "dog", "bird"]
    for shard in range(3):
        with tarfile.open(folder / "tars" / f"{shard:02d}.tar", "w") as tar:
            for i in range(20):
                image = io.BytesIO()
                size = 20 if i == 7 else 40
                Image.fromarray(rng.integers(0, 255, (size, 40, 3), np.uint8)).save(image, "JPEG")
                caption = (
                    "cat"
                    if i == 3
                    else f"a photo of {nouns[i % 3]} number {shard}{i}"
                    if i % 4
                    else f"one {nouns[i % 3]} {shard}{i}"
                )
                for suffix, data in (("jpg", b"broken" if i == 11 else image.getvalue()), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{shard:02d}{i:03d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    rows = 200
    table = pa.table(
        {
            "url": [f"http://x/{i}" for i in range(rows)],
            "caption": [f"a photo of {nouns[i % 3]} {i}" if i % 5 else f"photo {i}" for i in range(rows)],
            "clip_score": pa.array(rng.random(rows), pa.float32()),
        }
    )
    pq.write_table(table, folder / "pool.parquet")
    (folder / "tars.yaml").write_text(TARS)
    (folder / "texts.yaml").write_text(TEXTS)
    (folder / "entries.txt").write_text(ENTRIES)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A folder with the recipes tars.yaml and texts.yaml and what they read; not to be changed."""
    return made_once(tmp_path_factory, "pool", write_pool)[0]


@pytest.fixture(scope="session")
def finished(pool, tmp_path_factory):
    """A finished run of each recipe, and what the command printed; not to be changed."""

    def make(folder):
        return {
            name: (folder / name, run_command("run", str(pool / f"{name}.yaml"), "--out", str(folder / name)))
            for name in ("tars", "texts")
        }

    done = made_once(tmp_path_factory, "runs", make)[1]
    assert [ended.status for _, ended in done.values()] == [0, 0], done
    return done


@pytest.fixture(params=["tars", "texts"])
def run(request, finished):
    """A finished run, not to be changed: once of tars, once of Parquet."""
    return finished[request.param][0]
