"""`curate forget`: what it prints, what it refuses before anything is changed, and what other commands print after it."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.store.forgotten import Record
from curate.store.lock import locked
from curate.store.store import RunStore
from tests.cli.shared import changes, flat, query, refusal
from tests.kit import files_of

pytestmark = pytest.mark.usefixtures("without_beam")


@pytest.fixture
def texts(finished, tmp_path):
    return Path(shutil.copytree(finished["texts"][0], tmp_path / "texts"))


def published(run):
    rows = []
    for path in sorted((run / "tables/samples").iterdir()):
        kept = pq.read_table(run / "tables/decisions" / path.name)["kept"]
        rows += pq.read_table(path).filter(kept).to_pylist()
    return rows


def test_what_was_done_is_printed(cli, texts, tmp_path):
    one, two = published(texts)[:2]
    (tmp_path / "uids.txt").write_text(f"{one['uid']}\n")
    (tmp_path / "urls.txt").write_text(f"{two['url']}\nhttp://nowhere.example/1\n")
    command = ("forget", str(texts), "--uids", f"{tmp_path}/uids.txt", "--urls", f"{tmp_path}/urls.txt")
    before = files_of(texts)
    tried = cli(*command, "--dry-run")
    assert (tried.status, tried.err) == (1, "") and files_of(texts) == before  # one of them is nowhere
    done = cli(*command)
    assert (done.status, done.err) == (1, "")
    assert flat(done.out).startswith("requested 3 items matching rows 2 ")
    for text in (tried.out, done.out):
        assert "published 2 of all these rows, in 1 shard" in flat(text)
    assert "not in this pool 1 item, blocked in runs that reuse this one http://nowhere.example/1" in flat(done.out)
    assert cli("verify", str(texts)).status == 0
    assert cli(*command).out == f"{texts}: nothing to do: 3 items requested, all forgotten already\n"
    explained = cli("explain", str(texts), one["uid"])
    assert "removed on request, 20" in explained.out and one["caption"] not in explained.out
    assert query(texts, "SELECT rows FROM funnel WHERE rule = 'forgotten'") == [(2,)]


def test_absent_items_are_printed_as_they_were_given(cli, texts, tmp_path, monkeypatch):
    """Items keep their case, also from standard input. Tables have no lines, so their items are shown by hash."""
    items = [8 * "ABCD", "http://x/\x1b[2J", "http://x/\xff"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f" {items[0]} \r\n".encode())))
    (tmp_path / "urls.txt").write_bytes("\n".join(items[1:]).encode("latin-1"))
    shown = cli("forget", str(texts), "--uids", "-", "--urls", f"{tmp_path}/urls.txt", "--dry-run").out.splitlines()
    assert {f"  {items[0]}", "  http://x/\\x1b[2J", "  http://x/\\xff"} <= set(shown)
    pq.write_table(pa.table({"url": ["http://y/3"]}), tmp_path / "urls.parquet")
    done = cli("forget", str(texts), "--urls", f"{tmp_path}/urls.parquet", "--dry-run")
    assert f"  URL with sha256 {hashlib.sha256(b'http://y/3').hexdigest()}\n" in done.out
    (tmp_path / "images.txt").write_text("0" * 64)
    done = cli("forget", str(texts), "--sha256", f"{tmp_path}/images.txt", "--dry-run")
    assert done.status == 1 and "this pool has no images" in done.out


def test_a_wrong_list_changes_nothing(cli, texts, tmp_path):
    before, path = files_of(texts), tmp_path / "list.txt"
    for option, text, part in (
        ("--uids", None, "list.txt: no such file"), ("--uids", "hello", "accepted: a uid (32 hex digits)"),
        ("--sha256", "0" * 32, "accepted: the sha256 of an image (64 hex digits)"),
        ("--urls", "cat", "accepted: a URL, exactly as in the pool"), ("--uids", "\n", "list.txt: is empty"),
    ):  # fmt: skip
        if text is not None:
            path.write_text(text)
        assert part in refusal(cli("forget", str(texts), option, str(path)))
    assert cli("forget", str(tmp_path), "--uids", "-").status == 2 and files_of(texts) == before


def kill(run, items, record):
    """Change the run to the state that a killed `forget` leaves."""
    (run / "_SUCCESS").unlink()
    (run / "tmp").mkdir()
    (run / "tmp/forgetting.json").write_text(json.dumps({"items": items, "record": record}))


def test_an_interrupted_request_is_completed(cli, texts, tmp_path):
    (tmp_path / "uids.txt").write_text(published(texts)[0]["uid"])
    assert cli("forget", str(texts), "--uids", f"{tmp_path}/uids.txt").status == 0
    kill(texts, 1, Record.read(RunStore(str(texts))).facts.to_json())
    for command in (("sql", str(texts), "funnel"), ("verify", str(texts)), ("explain", str(texts), "0" * 32)):
        assert f"`curate forget {texts}` completes it" in refusal(cli(*command), 1)
    assert "An earlier request was interrupted" in refusal(cli("forget", str(texts), "--dry-run"))
    assert cli("forget", str(texts)).status == 0
    assert cli("verify", str(texts)).status == 0


def test_a_request_that_was_lost_is_reported(cli, pool, texts, caplog):
    """A kill came before the record had the request. `forget`, and a run that continues, report it."""
    lost = {"items": 9, "requests": 1, "key": "", "digest": ""}
    kill(texts, 7, lost)
    assert "a request of 7 items was interrupted before it was recorded" in cli("forget", str(texts)).out
    assert cli("verify", str(texts)).status == 0
    kill(texts, 1, lost)
    assert cli("run", str(pool / "texts.yaml"), "--out", str(texts)).status == 0
    assert "a request to forget 1 item was interrupted" in caplog.text and cli("verify", str(texts)).status == 0


def test_a_finished_run_that_is_run_again_leaves_the_lock(cli, pool, texts):
    with locked(RunStore(str(texts)), "forget"):
        done = cli("run", str(pool / "texts.yaml"), "--out", str(texts))
        assert "nothing to do" in done.out and (texts / "tmp/lock").exists()
    assert cli("run", str(pool / "texts.yaml"), "--out", str(texts)).status == 0 and not (texts / "tmp").exists()


@pytest.mark.thorough
def test_a_blocklist_in_a_plan_and_a_run(cli, pool, finished, tmp_path):
    row = published(finished["texts"][0])[0]
    (tmp_path / "gone.txt").write_text(f"{row['url']}\n")
    recipe, out, blocked = str(pool / "texts.yaml"), f"{tmp_path}/run", changes(f"blocklist={tmp_path}/gone.txt")
    assert "forgotten −1 (0.50%)" in flat(cli("plan", recipe, *blocked).out)
    assert cli("run", recipe, "--out", out, *blocked).status == 0
    assert row["url"] not in {r["url"] for r in published(tmp_path / "run")}
    assert cli("verify", out).status == 0
    assert "nothing to do" in cli("run", recipe, "--out", out).out, "what was blocked stays so without the list"
