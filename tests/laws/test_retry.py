"""`--retry` retries URLs that may succeed, leaves earlier successes alone, and loses or doubles nothing."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.explain import explain_sample
from curate.ask.verify import verify_run
from curate.download.fetch import Fetcher
from curate.download.retry_record import Retries
from curate.measure import images as measuring
from curate.models.onnx_encoder import OnnxEncoder
from curate.publish.forget.forget import forget
from curate.publish.forget.lists import read_list
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests.kit import Ran, encode, picture, run_beam, run_local, write_metadata
from tests.kit.kills import states_of
from tests.kit.url_lists import HOSTS, recipe, write_list
from tests.kit.web import Web, running
from tests.kit.written_runs import run_query

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

URLS = 60
# Each path, and the day from which it succeeds; None: never.
KINDS = {"image/{}": 0, "later/1/{}": 1, "status/404/{}": None, "later/2/{}": 2, "image/{}?b": 0, "status/500/{}": None}


@pytest.fixture(scope="module")
def web():
    images = {str(i): encode(picture(i, 100)) for i in range(URLS)}
    with running(Web(images | {f"{i}?b": data for i, data in images.items()}, HOSTS)) as servers:
        yield servers


@pytest.fixture(scope="module", autouse=True)
def short_memory():
    """Let each run try failing hosts again, like a new process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.pool.urls.format._fetcher", lambda source: Fetcher(source.network))
        yield


def urls_of(web):
    return [web.url(list(KINDS)[i % len(KINDS)].format(i), i % HOSTS) for i in range(URLS)]


def wanted_on(day):
    """Return the status of each URL after tries on all days until this one."""
    kinds = {path: "ok" if comes is not None and comes <= day else "http_503" for path, comes in KINDS.items()}
    statuses = [*(kinds | {"status/404/{}": "http_404", "status/500/{}": "http_500"}).values()]
    return statuses * (URLS // len(KINDS))


SECTIONS = {"max_failed": 1.0, "rules": {"wide": "width > 100", "words": "words > 3"}}


@dataclass
class Days:
    """A finished run that was retried twice."""

    recipe: Any
    folder: Path
    samples: list[pa.Table]
    asked: list[Counter[str]]
    decoded: list[int]
    kept: list[bytes]


@pytest.fixture(scope="module")
def days(web, tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    metadata = write_metadata(folder, ["picture", "number", "of number 7"])
    path, source = write_list(folder / "list.parquet", urls_of(web)), {"number_sample_per_shard": 13}
    one = recipe(path, source, match={"metadata": str(metadata)}, balance={"t": 15}, **SECTIONS)
    found = Days(one, folder / "run", [], [], [], [])
    decode = measuring.measure_image
    calls = []

    def counting(*given):
        calls.append(1)
        return decode(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure_image", counting)
        for day in range(3):
            web.day = day
            web.log.clear()
            calls.clear()
            ran = run_beam(one, found.folder, retry=True) if day == 1 else run_local(one, found.folder, retry=day > 0)
            found.samples.append(ran.table("samples"))
            found.asked.append(Counter(path for _, path, _ in web.log))
            found.decoded.append(len(calls))
            found.kept.append(ran.kept)
            assert verify_run(str(found.folder))[1] == []
    return found


def test_what_came_later_is_there_and_every_url_is_one_row(days, web):
    urls = urls_of(web)
    for day, samples in enumerate(days.samples):
        found = dict(zip(samples["url"].to_pylist(), samples["status"].to_pylist(), strict=True))
        assert len(samples) == len(urls) and found == dict(zip(urls, wanted_on(day), strict=True))


def test_only_what_may_pass_is_tried_again(days, web, tmp_path):
    """No earlier image is decoded again, and the kept samples are those of an undisturbed run."""
    for day in (1, 2):
        assert not [path for path in days.asked[day] if "404" in path or "image" in path or f"later/{day - 1}/" in path]
        assert [path for path in days.asked[day] if "later/2/" in path]
    assert days.decoded == [URLS // 3, URLS // 6, URLS // 6]
    web.day = 2
    undisturbed = run_local(days.recipe, tmp_path / "run")
    assert undisturbed.kept == days.kept[2] and days.kept[0] != days.kept[1] != days.kept[2]
    assert prepare(days.recipe, str(days.folder)).finished
    claim = json.loads((days.folder / "run.json").read_bytes())
    assert claim["retries"]["rounds"] == 2 == Retries.read(RunStore(str(days.folder))).rounds


def test_attempts_add_up(days):
    failures = pq.read_table(days.folder / "failures.parquet").to_pylist()
    attempts = {(row["reason"], row["attempts"], row["may_pass"]) for row in failures}
    assert attempts == {("http_404", 1, False), ("http_500", 9, True)}
    one = next(row for row in failures if row["reason"] == "http_500")
    assert one["detail"] == "500 Something"
    told = str(explain_sample(str(days.folder), one["key"]))
    assert f"500 Something (9 attempts, the last at {one['attempted']:%Y-%m-%d %H:%M:%S} UTC)" in told


def test_sql_sees_the_rounds(days):
    rows, query = Retries.read(RunStore(str(days.folder))).table, "SELECT * FROM retries ORDER BY ALL"
    listed = sorted(tuple(row.values()) for row in rows.to_pylist())
    assert listed and run_query(str(days.folder), query).rows == listed
    with duckdb.connect(str(days.folder / "stats.duckdb"), read_only=True) as client:
        client.execute(f"SET VARIABLE run = '{days.folder}'").execute((days.folder / "views.sql").read_text())
        assert client.execute(query).fetchall() == listed


def test_reuse_takes_the_rounds(days, web, tmp_path):
    web.log.clear()
    other = days.recipe.model_copy(update={"rules": {"words": "words > 2"}})
    ran = run_local(other, tmp_path / "run", reuse=days.folder)
    assert not web.log
    assert ran.table("samples").drop_columns(["unit"]).equals(days.samples[2].drop_columns(["unit"]))
    assert verify_run(str(tmp_path / "run"))[1] == []


def test_models_see_what_is_new_alone(web, tmp_path, monkeypatch):
    """Scores and embeddings, beside columns of the list."""
    seen = []
    whole = OnnxEncoder.start_images
    monkeypatch.setattr(OnnxEncoder, "start_images", lambda own, views: seen.append(len(views)) or whole(own, views))
    urls = [web.url(("image/{}" if i % 4 else "later/1/{}").format(i), i % HOSTS) for i in range(40)]
    path = write_list(tmp_path / "list.parquet", urls, similarity=[i / 40 for i in range(40)])
    model = f"onnx:{files('curate.demo') / 'clip'}"
    one = recipe(
        path,
        {"number_sample_per_shard": 10},
        measure={"clip": {"model": model, "embeddings": True}, "image": {"phash": True}},
        rules={"best": {"top": 0.5, "of": "clip_score"}, "near": "similarity >= 0.1"},
    )
    web.day = 0
    run_local(one, tmp_path / "run")
    assert sum(seen) == 30
    seen.clear()
    web.day = 1
    again = run_local(one, tmp_path / "run", retry=True)
    assert sum(seen) == 10
    undisturbed = run_local(one, tmp_path / "undisturbed")
    assert again.kept == undisturbed.kept
    for table, names in (("scores", ["clip_score", "similarity"]), ("samples", ["phash", "width"])):
        for name in names:
            ours, theirs = (
                dict(zip(run.table(table)["uid"].to_pylist(), run.table(table)[name].to_pylist(), strict=True))
                for run in (again, undisturbed)
            )
            assert len(ours) == 40 and ours == pytest.approx(theirs)


# ---------------------------------------------------------------- kills, damage and forgetting
@pytest.fixture(scope="module")
def small(web, tmp_path_factory):
    """A recipe, its run on a day when half the images are missing, and its retry on the next day."""
    folder = tmp_path_factory.mktemp("small")
    urls = [web.url(("image/{}" if i % 2 else "later/1/{}").format(i)) for i in range(12)]
    one = recipe(write_list(folder / "list.parquet", urls), {"number_sample_per_shard": 4})
    web.day = 0
    run_local(one, folder / "before")
    web.day = 1
    shutil.copytree(folder / "before", folder / "after")
    return one, folder / "before", run_local(one, folder / "after", retry=True)


def rows_of(ran):
    """Everything about each row except the time."""
    return sorted(ran.table("samples").drop_columns(["error"]).to_pylist(), key=lambda row: (row["unit"], row["row"]))


@pytest.mark.slow
def test_a_kill_before_each_kind_of_file_of_a_retry(small, tmp_path):
    one, before, after = small
    shutil.copytree(before, tmp_path / "out")
    with states_of(tmp_path / "out", tmp_path / "killed") as states:
        run_local(one, tmp_path / "out", retry=True)
    assert len(states) > 15
    for number, out in enumerate([*states[:4], *states[4:-2:2], *states[-2:]]):
        again = Ran(out) if prepare(one, str(out)).finished else run_local(one, out, retry=True)
        if "retries" not in again.run:  # without its record the retry did not begin
            assert number < 4 and rows_of(again) == rows_of(Ran(before))
            again = run_local(one, out, retry=True)
        assert again.run["retries"]["rounds"] == 1
        assert rows_of(again) == rows_of(after) and again.kept == after.kept
        assert verify_run(str(out))[1] == []


def test_without_the_record_the_rows_are_those_of_the_first_round(small, web, tmp_path):
    """Another --retry then finds the images in the shards."""
    one, before, after = small
    shutil.copytree(after.folder, tmp_path / "run")
    (tmp_path / "run/retries.parquet").unlink()
    web.log.clear()
    first = run_local(one, tmp_path / "run")
    assert first.kept == Ran(before).kept and rows_of(first) == rows_of(Ran(before))
    second = run_local(one, tmp_path / "run", retry=True)
    assert not web.log and second.kept == after.kept and rows_of(second) == rows_of(after)


def test_lost_shards_come_again_and_no_row_is_there_twice(small, web, tmp_path):
    """Even if they now contain images that were missing at first."""
    one, _, after = small
    shutil.copytree(after.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/pool")
    shutil.rmtree(tmp_path / "run/tables/samples")
    again = run_local(one, tmp_path / "run")
    assert again.kept == after.kept and again.counts == after.counts
    assert sorted(again.table("samples")["url"].to_pylist()) == sorted(after.table("samples")["url"].to_pylist())


def test_what_is_forgotten_is_not_tried_again(small, web, tmp_path):
    one, before, _ = small
    shutil.copytree(before, tmp_path / "run")
    samples = Ran(before).table("samples").to_pylist()
    gone = [next(row["url"] for row in samples if (row["status"] == "ok") == came) for came in (True, False)]
    (tmp_path / "gone.txt").write_text("\n".join(gone))
    forget(str(tmp_path / "run"), read_list(str(tmp_path / "gone.txt")))
    web.log.clear()
    again = run_local(one, tmp_path / "run", retry=True)
    assert again.counts == {"failed": 1, "forgotten": 1, "kept": 10} and len(web.log) == 5 + web.asked("robots.txt")
    assert not any(url.endswith(path) for url in gone for _, path, _ in web.log)
    assert verify_run(str(tmp_path / "run"))[1] == []


def test_forgetting_reaches_what_came_later(small, web, tmp_path):
    one, _, after = small
    shutil.copytree(after.folder, tmp_path / "run")
    samples = after.table("samples").to_pylist()
    gone = next(row["url"] for row in samples if "later/1/4" in row["url"])
    (tmp_path / "gone.txt").write_text(gone)
    forget(str(tmp_path / "run"), read_list(str(tmp_path / "gone.txt")))
    held = b"".join(file.read_bytes() for file in (tmp_path / "run/pool").iterdir())
    assert web.images["4"] not in held and web.images["2"] in held and f'{gone}"'.encode() not in held
    listed = [pq.read_table(path)["url"].to_pylist() for path in (tmp_path / "run/pool").glob("*.parquet")]
    assert gone not in chain(*listed) and len([url for urls in listed for url in urls if url is None]) == 2
    assert verify_run(str(tmp_path / "run"))[1] == []
    web.log.clear()
    other = run_local(one, tmp_path / "other", reuse=tmp_path / "run")
    assert other.counts == {"forgotten": 1, "kept": 11} and not web.log
    assert prepare(one, str(tmp_path / "run"), retry=True).finished  # nothing may come


@pytest.mark.slow
def test_a_unit_of_which_nothing_is_left_and_units_that_share_files(web, tmp_path):
    """Units have several shards, and their tables are merged; in some units all rows are retried."""
    urls = [web.url(f"later/1/{i}" if i < 10 or i % 3 == 0 else f"image/{i}") for i in range(URLS)]
    urls += [web.url(f"status/404/1?{i}") for i in range(200)]
    one = recipe(write_list(tmp_path / "list.parquet", urls), {"number_sample_per_shard": 2})
    web.day = 0
    first = run_local(one, tmp_path / "run")
    assert first.run["units_per_file"] and max(Counter(first.table("samples")["unit"].to_pylist()).values()) == 4
    web.day = 1
    web.log.clear()
    again = run_local(one, tmp_path / "run", retry=True)
    assert again.counts == {"failed": 200, "kept": URLS}
    later = {f"/later/1/{i}" for i in range(URLS) if i < 10 or i % 3 == 0}
    assert {path for _, path, _ in web.log} - {"/robots.txt"} == later
    assert again.kept == run_local(one, tmp_path / "undisturbed").kept
    assert verify_run(str(tmp_path / "run"))[1] == []
    other = run_local(one, tmp_path / "other", reuse=tmp_path / "run")
    assert other.kept == again.kept and rows_of(other) == rows_of(again)
