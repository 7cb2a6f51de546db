"""`curate forget`: what it says, what it refuses before anything is changed, and what other commands say after it."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.store.forgotten import Record
from curate.store.lock import locked
from curate.store.store import RunStore
from tests.kit import files_of
from tests.kit.commands import Done

pytestmark = pytest.mark.usefixtures("without_beam")

Finished = dict[str, tuple[Path, Done]]


@pytest.fixture
def texts(finished, tmp_path):
    return Path(shutil.copytree(finished["texts"][0], tmp_path / "texts"))


def published(run):
    rows = []
    for path in sorted((run / "tables/samples").iterdir()):
        kept = pq.read_table(run / "tables/decisions" / path.name)["kept"]
        rows += pq.read_table(path).filter(kept).to_pylist()
    return rows


def plain(done):
    """What was printed, columns apart by one space."""
    return " ".join(done.out.split())


def test_what_was_done_is_printed(cli, texts, tmp_path):
    one, two = published(texts)[:2]
    (tmp_path / "uids.txt").write_text(f"{one['uid']}\n")
    (tmp_path / "urls.txt").write_text(f"{two['url']}\nhttp://nowhere.example/1\n")
    lists = ("--uids", f"{tmp_path}/uids.txt", "--urls", f"{tmp_path}/urls.txt")
    before = files_of(texts)
    tried = cli("forget", str(texts), *lists, "--dry-run")
    assert (tried.status, tried.err) == (1, "")  # one of them is nowhere
    assert files_of(texts) == before
    assert "published 2 of all these rows, in 1 shard, to be rewritten" in plain(tried)
    assert tried.out.endswith(f"{texts}: nothing was changed\n")
    done = cli("forget", str(texts), *lists)
    assert (done.status, done.err) == (1, "")
    assert plain(done).startswith("requested 3 items matching rows 2 ")
    assert "published 2 of all these rows, in 1 shard, which was rewritten" in plain(done)
    assert "not in this pool 1 item, blocked in runs that reuse this one http://nowhere.example/1" in plain(done)
    assert f"`curate verify {texts}` checks it" in done.out
    verified = cli("verify", str(texts))
    assert verified.status == 0 and "forgotten items are absent from tables, shards and uids.npy" in verified.out
    again = cli("forget", str(texts), *lists)
    assert (again.status, again.out) == (0, f"{texts}: nothing to do: 3 items requested, all forgotten already\n")
    explained = cli("explain", str(texts), one["uid"])
    assert "removed on request, 20" in explained.out and one["caption"] not in explained.out
    funnel = cli("sql", str(texts), "SELECT rows FROM funnel WHERE rule = 'forgotten'", "--format", "json")
    assert json.loads(funnel.out) == [{"rows": 2}]


def test_what_is_absent_is_printed_as_it_was_given(cli, texts, tmp_path, monkeypatch):
    """In its own case, from standard input too; of a table, which has no lines, by its hash."""
    typed = [8 * "ABCD", "http://x/\x1b[2J", "http://x/\xff"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f" {typed[0]} \r\n".encode())))
    (tmp_path / "urls.txt").write_bytes("\n".join(typed[1:]).encode("latin-1"))
    shown = cli("forget", str(texts), "--uids", "-", "--urls", f"{tmp_path}/urls.txt", "--dry-run").out.splitlines()
    assert {f"  {typed[0]}", "  http://x/\\x1b[2J", "  http://x/\\xff"} <= set(shown)
    pq.write_table(pa.table({"url": ["http://y/3"]}), tmp_path / "urls.parquet")
    done = cli("forget", str(texts), "--urls", f"{tmp_path}/urls.parquet", "--dry-run")
    assert f"  URL with sha256 {hashlib.sha256(b'http://y/3').hexdigest()}\n" in done.out


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--uids", "hello", "line 1: 'hello' is not an item; accepted: a uid (32 hex digits)"),
        ("--sha256", "0" * 32, "accepted: the sha256 of an image (64 hex digits)"),
        ("--urls", "cat", "accepted: a URL, exactly as in the pool"),
        ("--uids", None, "list.txt: no such file"),
        ("--uids", "\n", "list.txt: is empty; accepted: at least one item"),
    ],
)
def test_a_wrong_list_changes_nothing(cli, texts, tmp_path, option, text, message):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    before = files_of(texts)
    done = cli("forget", str(texts), option, str(path))
    assert (done.status, done.out) == (2, "") and message in done.err, done
    assert files_of(texts) == before


def test_a_pool_without_images_knows_no_sha256(cli, texts, tmp_path):
    (tmp_path / "images.txt").write_text("0" * 64)
    done = cli("forget", str(texts), "--sha256", f"{tmp_path}/images.txt", "--dry-run")
    assert done.status == 1 and "this pool has no images, so no sha256 was compared" in done.out


def test_the_uids_of_a_run_can_be_forgotten(cli, texts):
    """uids.npy is a list too."""
    rows = len(published(texts))
    done = cli("forget", str(texts), "--uids", str(texts / "uids.npy"))
    assert done.status == 0 and f"published {rows:,} of all these rows, in" in plain(done)
    assert len(np.load(texts / "uids.npy")) == 0 and cli("verify", str(texts)).status == 0


def test_an_interrupted_request_is_reported_and_completed(cli, texts, tmp_path):
    (tmp_path / "uids.txt").write_text(published(texts)[0]["uid"])
    assert cli("forget", str(texts), "--uids", f"{tmp_path}/uids.txt").status == 0
    (texts / "_SUCCESS").unlink()
    (texts / "tmp").mkdir()
    (texts / "tmp/forgetting.json").write_text(
        json.dumps({"items": 1, "record": Record.read(RunStore(str(texts))).facts.to_json()})
    )
    for command in (("sql", str(texts), "funnel"), ("verify", str(texts)), ("explain", str(texts), "0" * 32)):
        done = cli(*command)
        assert (
            done.status == 1
            and f"`curate forget` was interrupted, and `curate forget {texts}` completes it" in done.err
        )
    done = cli("forget", str(texts), "--dry-run")
    assert (done.status, done.out) == (
        2,
        "",
    ) and "an earlier request was interrupted; without --dry-run it is completed" in done.err
    done = cli("forget", str(texts))
    assert (done.status, done.out) == (0, f"{texts}: a request that had been interrupted is now completed\n")
    assert cli("verify", str(texts)).status == 0
    # Killed before the record had it, nobody knows what it was.
    (texts / "_SUCCESS").unlink()
    (texts / "tmp").mkdir()
    (texts / "tmp/forgetting.json").write_text(
        json.dumps({"items": 7, "record": {"items": 9, "requests": 1, "key": "", "digest": ""}})
    )
    done = cli("forget", str(texts))
    assert done.out == f"{texts}: a request of 7 items was interrupted before it was recorded; repeat it\n"
    assert cli("verify", str(texts)).status == 0


def test_a_lost_request_is_reported_by_the_run_that_goes_on(cli, pool, texts, caplog):
    (texts / "_SUCCESS").unlink()
    (texts / "tmp").mkdir()
    (texts / "tmp/forgetting.json").write_text(
        json.dumps({"items": 1, "record": {"items": 9, "requests": 1, "key": "", "digest": ""}})
    )
    assert cli("run", str(pool / "texts.yaml"), "--out", str(texts)).status == 0
    assert f"{texts}: a request to forget 1 item was interrupted before it was recorded" in caplog.text
    assert cli("verify", str(texts)).status == 0


def test_a_finished_run_that_is_run_again_leaves_the_lock(cli, pool, finished, tmp_path):
    out = Path(shutil.copytree(finished["texts"][0], tmp_path / "run"))
    with locked(RunStore(str(out)), "forget"):
        done = cli("run", str(pool / "texts.yaml"), "--out", str(out))
        assert "nothing to do" in done.out and (out / "tmp/lock").exists()
    assert cli("run", str(pool / "texts.yaml"), "--out", str(out)).status == 0 and not (out / "tmp").exists()


@pytest.mark.thorough
def test_a_blocklist_in_a_plan_and_a_run(cli, pool, finished, tmp_path):
    row = published(finished["texts"][0])[0]
    (tmp_path / "gone.txt").write_text(f"{row['url']}\n")
    setting = ("--set", f"blocklist={tmp_path}/gone.txt")
    planned = cli("plan", str(pool / "texts.yaml"), *setting)
    assert planned.status == 0 and "forgotten −1 (0.50%)" in plain(planned), planned
    done = cli("run", str(pool / "texts.yaml"), "--out", f"{tmp_path}/run", *setting)
    assert done.status == 0 and "forgotten" in done.out
    assert row["url"] not in {r["url"] for r in published(tmp_path / "run")}
    assert cli("verify", f"{tmp_path}/run").status == 0
    again = cli("run", str(pool / "texts.yaml"), "--out", f"{tmp_path}/run")
    assert "nothing to do" in again.out, "what was blocked stays so without the list"


def test_no_run(cli, tmp_path):
    done = cli("forget", str(tmp_path), "--uids", "-")
    assert done.status == 2
