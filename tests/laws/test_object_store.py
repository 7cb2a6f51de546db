"""Runs in S3 can do all that local runs can, and write the same bytes. A local server imitates S3."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow as pa
import pytest

from curate.base.errors import RecipeError, RunError
from curate.publish import publish
from curate.store.lease import Holder
from curate.store.lock import find_holder, locked
from curate.store.store import RunStore
from curate.store.tables import UnitTables
from curate.store.validity import valid_digest
from pipelines.claim import claim_folder, claimed
from pipelines.driver import run as run_pipeline
from pipelines.prepare import prepare
from tests import kit
from tests.kit.commands import run_command
from tests.kit.range_server import serving_ranges
from tests.kit.s3 import bucket, bucket_at, serving_s3
from tests.kit.store_faults import RECIPE
from tests.kit.store_requests import check_files
from tests.kit.waiting import wait_until
from tests.laws.attempts import twice

__all__ = ["bucket"]
pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("rows", [1, 2_000_000])
def test_the_first_complete_file_wins(rows, bucket):
    """A conditional PUT decides, for small and for large files."""

    def scores(value, rows=1):
        return pa.table({"score": np.full(rows, value)})

    folder = RunStore(f"{bucket}/first{rows}")
    one, other = UnitTables(folder, 0), UnitTables(folder, 0)
    one.write("scores", scores(0.0), "older")
    assert one.write("scores", scores(1.0, rows), "key") and not other.write("scores", scores(2.0), "key")
    assert one.read("scores").equals(scores(1.0, rows))
    assert one.write("samples", scores(1.0, rows), "key") and not other.write("samples", scores(2.0), "key")
    assert one.write("matches", scores(1.0), "key", is_final=False) and not other.write("matches", scores(2.0), "key")
    for text in (b"one", b"other"):
        with folder.commit("both") as store:
            store.write_bytes("shards/a", text)
            store.write_bytes("shards/b", text)
    assert folder.read_bytes("shards/a") == folder.read_bytes("shards/b") == b"one"
    for name in ("scores", "samples", "matches"):
        assert one.is_done(name, "key") and valid_digest(folder, f"tables/{name}/00000.parquet")
    assert all(name.startswith("tmp/commits/") for name in folder.files("tmp"))


def test_of_many_who_come_at_once_one_has_the_lease(bucket):
    """A conditional PUT decides, also if the holder is dead and all try to end its lease."""
    folder = RunStore(f"{bucket}/leased")
    inside = []

    def work(number):
        with suppress(RunError), locked(folder, "run", lambda holder: holder.is_stale):
            inside.append(number)
            assert inside == [number]
            inside.remove(number)
            return True
        return False

    for _ in range(3):
        folder.write_json("tmp/lease/000007", Holder.make("run").model_copy(update={"lasts": -1.0}).model_dump())
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(work, range(8))) >= 1
        assert folder.files("tmp") == []


@pytest.mark.slow
def test_a_driver_that_was_killed_leaves_a_lease(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(kit.write_tars(tmp_path / "tars", kit.make_samples(9), 1)).parent
    out, go = f"{bucket}/handed", threading.Event()
    with serving_ranges(path, gates={"GET": go}) as served:
        source = f"{{name: pool, format: webdataset, path: '{served.url}/00000.tar'}}"
        (tmp_path / "recipe.yaml").write_text(f"input: {source}\nmax_failed: 1.0")
        words = ("run", str(tmp_path / "recipe.yaml"), "--out", out, "--detach")
        assert f"which logs to handed.log\n  curate status {out} --watch" in curate(*words)
        holder = find_holder(RunStore(out))
        assert holder is not None
        process = psutil.Process(holder.process)
        now = run_command("status", out)
        assert now.status == 3 and f"process {process.pid} on " in now.out and f"{tmp_path}/handed.log on " in now.out
        assert run_command(*words).status == 1
        process.kill()
        psutil.wait_procs([process])
        now = run_command("status", out)
        assert now.status == 1 and "has ended; with --take-over, run its recipe again" in now.out
        refused = run_command(*words)
        assert refused.status == 1 and "--take-over` continues the run" in refused.err
        go.set()
        curate(*words, "--take-over")
        assert "rows are kept" in curate("status", out, "--watch")
    wait_until(lambda: "curate sql" in (tmp_path / "handed.log").read_text())
    wait_until(lambda: RunStore(out).exists("logs/driver.log"))
    assert "measure 1/1" in RunStore(out).read_bytes("logs/driver.log").decode()
    assert "nothing differs" in curate("verify", out)


def curate(*arguments):
    done = run_command(*arguments)
    assert done.status == 0, done.err
    return done.out


def run_units(path, out, **sections):
    """A run with a unit for each tar, whose tables are merged."""
    recipe = kit.recipe_of(path, max_failed=1.0, output={"rows_per_shard": 5}, **sections)
    prepared = prepare(recipe, out, unit_size=1)
    claim_folder(prepared)
    run_pipeline(prepared)
    return prepared.context.store


@pytest.mark.slow
def test_no_file_is_left_but_the_manifest_s(bucket, tmp_path, monkeypatch):
    """An earlier start had more shards and other chunks of units. Attempts that repeat work leave no files either."""
    samples = kit.make_samples(40)
    path = kit.write_tars(tmp_path / "pool", samples, 8)
    monkeypatch.setattr(publish, "MIN_UNITS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "CHUNK_UNITS", 4)
        patch.setattr(publish, "mark_published", None)
        with pytest.raises(RunError, match="NoneType"):
            run_units(path, f"{bucket}/left")
    left = set(RunStore(f"{bucket}/left").files())
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("\n".join(sample.url for sample in samples if sample.url))
    store = run_units(path, f"{bucket}/left", blocklist=str(blocked))
    check_files(store)
    assert {name for name in left - {*store.files()} if name.startswith("shards/")}
    assert "tables/samples/00000-00003.parquet" in left
    with twice():
        check_files(run_units(path, f"{bucket}/twice"))


@pytest.mark.slow
def test_a_run_in_a_bucket(bucket, tmp_path):
    store = fsspec.filesystem("s3")
    tars = Path(kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)).parent
    for tar in tars.iterdir():
        store.put(str(tar), f"{bucket}/pool/{tar.name}")
    metadata = kit.write_metadata(tmp_path)
    (tmp_path / "here.yaml").write_text(RECIPE % (tars, metadata))
    (tmp_path / "there.yaml").write_text(RECIPE % (f"{bucket}/pool", metadata))
    here, there = str(tmp_path / "here"), f"{bucket}/run"
    curate("run", str(tmp_path / "here.yaml"), "--out", here)
    curate("run", str(tmp_path / "there.yaml"), "--out", there)

    tars_here = {path.name: path.read_bytes() for path in (tmp_path / "here" / "shards").glob("*.tar")}
    assert tars_here == {path.rpartition("/")[2]: store.cat(path) for path in store.glob(f"{there}/shards/*.tar")}
    assert "Both keep the same" in curate("diff", here, there)
    assert "nothing differs" in curate("verify", there)
    assert curate("sql", there, "funnel", "--format", "csv") == curate("sql", here, "funnel", "--format", "csv")
    assert curate("whatif", there, "--set", "balance.t=5") == curate("whatif", here, "--set", "balance.t=5")
    assert f"{there}/report.html" in curate("report", there)
    assert b"data:image/jpeg" in store.cat(f"{there}/report.html")

    [row] = json.loads(curate("sql", there, "SELECT uid FROM kept ORDER BY uid LIMIT 1", "--format", "json"))
    assert "verdict: kept" in curate("explain", there, row["uid"])
    (tmp_path / "gone.txt").write_text(row["uid"])
    done = " ".join(curate("forget", there, "--uids", str(tmp_path / "gone.txt")).split())
    assert "published 1 of all these rows, in 1 shard, which was rewritten" in done
    assert "nothing differs" in curate("verify", there)
    assert "verdict: forgotten" in curate("explain", there, row["uid"])
    curate("run", str(tmp_path / "there.yaml"), "--out", f"{bucket}/again", "--reuse", there)
    assert "verdict: forgotten" in curate("explain", f"{bucket}/again", row["uid"])


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named(tmp_path):
    """The message comes for inputs by name and by glob, and for --out."""
    local = kit.recipe_of(kit.write_tars(tmp_path / "tars", kit.make_samples(5)[:5], 1))
    with serving_s3() as url, bucket_at(url):
        for path in ("s3://nosuch/a.tar", "s3://nosuch/*.tar"):
            with pytest.raises(RecipeError, match=r"no bucket 'nosuch'|The specified bucket does not exist"):
                prepare(kit.recipe_of(path), str(tmp_path / "out"))
        with (
            pytest.raises(
                RecipeError, match=r"nosuch/out: there is no bucket 'nosuch'; create it, or correct its name"
            ),
            claimed(prepare(local, "s3://nosuch/out")),
        ):
            pass
