"""Killed downloads, and those in another order, give the same result, and request no complete shard again."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.recipe.recipe import load_recipe
from tests import kit
from tests.kit.kills import check_killed, kill_at
from tests.kit.web import Web, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

URLS, SHARD, HOSTS = 80, 5, 8  # some units have several shards
NETWORK = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "pause": 0.01, "per_host": 16}
SOURCE = {"name": "web", "format": "urls", "path": "list.parquet", "network": NETWORK}
KINDS = ["image/{n}"] * 6 + ["status/404", "text/html"]


@pytest.fixture(scope="module")
def web():
    with running(Web({str(i): kit.encode(kit.picture(i, 100)) for i in range(60)}, HOSTS)) as servers:
        servers.delay = lambda path: 0.05
        yield servers


def write_recipe(folder, web):
    """A list of distinct URLs, of which some give the same picture, and a recipe of all steps."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    urls = [web.url(KINDS[n % len(KINDS)].format(n=n % 45) + f"?{n}", n % HOSTS) for n in range(URLS)]
    captions = [f"{kit.caption(rng)} {n}" for n in range(URLS)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
    recipe = {
        "input": SOURCE | {"number_sample_per_shard": SHARD, "thread_count": 8},
        "match": {"metadata": kit.write_metadata(folder)}, "rules": {"words": "words > 3"},
        "dedup": {"by": ["uid", "sha256"]}, "balance": {"t": 10}, "output": {"rows_per_shard": 30}, "max_failed": 1.0,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def whole(web, tmp_path_factory):
    """The recipe, and an undisturbed run."""
    recipe = write_recipe(tmp_path_factory.mktemp("downloads"), web)
    return recipe, kit.run_local(load_recipe(str(recipe)), recipe.parent / "undisturbed").folder


def check_equal(out, undisturbed):
    """Check that a run equals the undisturbed one except for times, and has one row for each URL of its list."""

    def lasting(folder):
        found = kit.lasting_files(folder)
        for path in found:
            if path.startswith(("pool/", "failures")) and path.endswith(".parquet"):
                rows = pq.read_table(folder / path).to_pylist()
                found[path] = repr([row | {"attempted": None} for row in rows])
        return found

    assert lasting(out) == lasting(undisturbed)
    assert set(kit.files_of(out)) == set(kit.files_of(undisturbed)) and verify_run(str(out))[1] == []
    listed = sorted(pq.read_table(out.parent / "list.parquet")["url"].to_pylist())
    assert sorted(kit.Ran(out).table("samples")["url"].to_pylist()) == listed
    downloaded = pa.concat_tables([pq.read_table(path, columns=["url"]) for path in (out / "pool").glob("*.parquet")])
    assert sorted(downloaded["url"].to_pylist()) == listed


def complete(out):
    """The request paths of all URLs in complete shards."""
    paths = (path.with_name(path.name.replace("_stats.json", ".parquet")) for path in out.glob("pool/*_stats.json"))
    urls = (url for path in paths for url in pq.read_table(path, columns=["url"])["url"].to_pylist())
    return {"/" + url.split("/", 3)[3] for url in urls}


@pytest.mark.slow
def test_kills(whole, web, tmp_path, monkeypatch):
    recipe, undisturbed = whole
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    out, killed, asked_before, kills = recipe.parent / "killed", 0, len(web.log), 4
    rng = np.random.default_rng(kills)
    files = 3 * URLS // SHARD
    for moment in np.sort(rng.choice(np.arange(1, files), kills, replace=False)).tolist():
        there, before = complete(out), len(web.log)
        killed += kill_at(moment, float(rng.uniform(0, 0.1)), out, "run", recipe, "--out", out)
        check_killed(out)
        assert there.isdisjoint(path for _, path, _ in web.log[before:])
    there, before = complete(out), len(web.log)
    kit.run_beam(load_recipe(str(recipe)), out)
    assert there.isdisjoint(path for _, path, _ in web.log[before:])
    check_equal(out, undisturbed)
    assert not list(tmp_path.rglob("*.tar"))
    # On a busy machine, the last runs may end before their kill.
    assert killed >= kills / 2, f"only {killed} runs were still there to be killed"
    # Only URLs of unfinished shards are requested again.
    asked = Counter(path for _, path, _ in web.log[asked_before:] if path != "/robots.txt")
    assert len(asked) == URLS and max(asked.values()) <= 1 + kills
    assert asked.total() < URLS + kills * URLS / 2


@pytest.mark.slow
def test_the_order_of_downloads_changes_nothing(whole, web, monkeypatch):
    recipe, undisturbed = whole
    delay = lambda path: int(hashlib.sha256(path.encode()).hexdigest()[:4], 16) / 0xFFFF * 0.1  # noqa: E731
    monkeypatch.setattr(web, "delay", delay)
    ran = kit.run_beam(load_recipe(str(recipe)), recipe.parent / "shuffled")
    check_equal(ran.folder, undisturbed)


@pytest.mark.slow
def test_an_image_that_ends_what_resizes_it_is_a_row_that_failed(web, tmp_path):
    """The image kills three processes of the command. The next process isolates it, and keeps all others."""
    web.images["deadly"] = kit.encode(kit.picture(0).resize((31, 31)))
    urls = [web.url(f"image/{name}", 0) for name in (0, 1, 2, "deadly", 4, 5)]
    pq.write_table(pa.table({"url": urls, "caption": [f"caption {url}" for url in urls]}), tmp_path / "list.parquet")
    recipe = {"input": SOURCE | {"image_size": 64}, "max_failed": 0.2}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    words = [sys.executable, "-m", "tests.kit.deadly_downloads", "run", str(tmp_path / "recipe.yaml"), "--out"]
    done = subprocess.run([*words, str(tmp_path / "run")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"in flight: .*shard \d+ \(killed [123] times?", done.stderr)) == 3, done.stderr
    [failed] = pq.read_table(tmp_path / "run/failures.parquet").to_pylist()
    assert failed["reason"] == "worker_died" and "3 processes died while they downloaded" in failed["detail"]
    assert kit.Ran(tmp_path / "run").table("samples")["url"].to_pylist()[failed["row"]].endswith("image/deadly")
    assert len(np.load(tmp_path / "run/uids.npy")) == 5 and not (tmp_path / "run/parts").exists()
