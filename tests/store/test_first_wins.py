"""The first complete file wins: a single file, one without a key, a replacement, and files that belong together."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest

from curate.store.store import RunStore
from curate.store.tables import OpenTables, UnitTables
from curate.store.validity import recorded_line, valid_digest

NAME = "tables/scores/00000.parquet"


def scores(value):
    return pa.table({"unit": pa.array([0], pa.int32()), "row": pa.array([0], pa.int32()), "score": [value]})


def put(folder, value, key="key", is_final=True):
    """Write as an attempt that has not seen another's file."""
    return UnitTables(folder, 0).write("scores", scores(value), key, is_final=is_final)


def check(folder, value):
    assert folder.read_parquet(NAME)["score"].to_pylist() == [value]
    assert valid_digest(folder, NAME) is not None
    assert recorded_line(folder, NAME).sha256 == folder.digest(NAME).sha256
    assert not [name for name in folder.files("tmp") if not name.startswith("tmp/commits/")]


def test_the_first_stays(folder):
    """A late attempt reads it."""
    assert put(folder, 1.0) and not put(folder, 2.0) and not put(folder, 3.0)
    check(folder, 1.0)
    with OpenTables(folder, 0) as late:
        assert not late.write("scores", scores(2.0), "key")
        assert late.read("scores", ["score"])["score"].to_pylist() == [1.0]


def test_who_is_late_leaves_nothing_in_a_run_that_is_published(folder):
    """On a disk, this holds even if tables were merged."""
    put(folder, 1.0)
    folder.delete("parts")
    folder.write_bytes("_SUCCESS", b"")
    with OpenTables(folder, 0) as late:
        assert not late.write("scores", scores(2.0), "key") and not late.written
    assert folder.read_parquet(NAME)["score"].to_pylist() == [1.0] and not folder.files("parts")
    folder.delete("tables")
    if folder.is_local:
        assert not put(folder, 2.0) and not folder.exists(NAME) and not folder.files("parts")


@pytest.mark.parametrize("damage", ["key", "content", "note"])
def test_what_is_of_no_use_is_replaced_once(damage, folder):
    put(folder, 0.0, "older" if damage == "key" else "key")
    if damage == "content":
        folder.fs.pipe_file(folder.path(NAME), folder.read_bytes(NAME)[:-1] + b"?")
    if damage == "note":
        folder.delete(f"parts/digests/{NAME}")
    assert put(folder, 1.0) and not put(folder, 2.0)
    check(folder, 1.0)
    assert UnitTables(folder, 0).is_done("scores", "key")


def test_without_a_key_it_holds_until_the_next_start(folder):
    tables = UnitTables(folder, 0)
    assert put(folder, 1.0, is_final=False) and not put(folder, 2.0, is_final=False) and not put(folder, 3.0)
    check(folder, 1.0)
    assert tables.is_done("scores", "key") and not tables.has_key("scores", "key") and not tables.find("scores", "key")
    folder.delete("tmp")
    assert not tables.is_done("scores", "key")
    assert put(folder, 4.0, is_final=False) and not put(folder, 5.0)
    check(folder, 4.0)
    folder.delete("tmp")
    assert put(folder, 6.0) and not put(folder, 7.0, is_final=False)
    check(folder, 6.0)


def test_what_a_kill_left_of_a_replacement_is_completed(folder, monkeypatch):
    """The commit decides: the next attempt puts the committed files into place."""

    def die(*_):
        raise KeyboardInterrupt

    put(folder, 0.0, "older")
    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "_put_staged", die)
        with pytest.raises(KeyboardInterrupt):
            put(folder, 1.0)
    assert folder.read_parquet(NAME)["score"].to_pylist() == [0.0]
    assert UnitTables(folder, 0).is_done("scores", "key")
    check(folder, 1.0)


def test_a_table_that_follows_from_the_one_there_replaces_it(folder):
    put(folder, 1.0)
    UnitTables(folder, 0).rewrite("scores", scores(9.0), "key")
    assert not put(folder, 1.0)
    check(folder, 9.0)


@pytest.mark.parametrize("there", ["nothing", "older"])
def test_of_many_at_once_one_wins(there, tmp_path):
    """All files that belong together come from one attempt."""
    for number in range(10):
        folder, both_folder = (RunStore(str(tmp_path / f"{name}{number}")) for name in ("one", "both"))
        if there == "older":
            put(folder, -1.0, "older")
        together = Barrier(8)

        def attempt(value):
            together.wait()  # noqa: B023
            has_won = put(folder, float(value))  # noqa: B023
            put_both(both_folder, b"x" * value)  # noqa: B023
            return has_won, both(both_folder)  # noqa: B023

        with ThreadPoolExecutor(8) as pool:
            won, found = zip(*pool.map(attempt, range(1, 9)), strict=True)
        assert sum(won) == 1
        check(folder, float(won.index(True) + 1))
        [(text, rows)] = set(found)
        assert len(text) == rows and len(both_folder.files("tmp")) == 1


def test_disks_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    folder = RunStore(str(tmp_path))
    assert not folder.is_guarded() and not folder.files()
    put(folder, 0.0, "older")
    assert put(folder, 1.0) and not put(folder, 2.0)
    check(folder, 1.0)


def test_an_answer_that_was_lost(tmp_path, monkeypatch):
    """A server created the link, but answered that it existed before: the file is ours."""
    link = os.link

    def link_and_fail(*paths):
        link(*paths)
        raise FileExistsError

    assert RunStore(str(tmp_path)).is_guarded() and not RunStore("memory://unguarded").is_guarded()
    monkeypatch.setattr(os, "link", link_and_fail)
    assert put(RunStore(str(tmp_path)), 1.0)
    monkeypatch.undo()
    check(RunStore(str(tmp_path)), 1.0)


# ---- files that belong together


def put_both(folder, text, done=None):
    with folder.commit("both", None if done is None else lambda: done) as store:
        store.write_bytes("shards/a", text)
        store.write_parquet(NAME, scores(len(text)), "key")
        written = store.recorded("shards/a")
        assert written is not None and written.bytes == len(text)


def both(folder):
    return folder.read_bytes("shards/a"), folder.read_parquet(NAME)["score"][0].as_py()


def test_files_of_one_attempt_are_placed(folder):
    folder.write_bytes("shards/a", b"what was there")
    put_both(folder, b"one")
    put_both(folder, b"other")
    assert both(folder) == (b"one", 3.0)
    check(folder, 3.0)
    assert valid_digest(folder, "shards/a")
    folder.delete("tmp")
    put_both(folder, b"of the next start")
    assert both(folder)[0] == b"of the next start"


def test_nothing_is_left_of_files_that_fail(folder):
    with pytest.raises(ZeroDivisionError), folder.commit("both") as store:
        store.write_bytes("shards/a", b"one")
        raise ZeroDivisionError
    assert not folder.exists("shards/a") and not folder.files("tmp") and not folder.complete_commit("both")


@pytest.mark.parametrize("first", [0, 1])
def test_whoever_comes_next_completes(first, folder, monkeypatch):
    """A kill comes after the commit: before the first file is in place, or between the two."""
    placed = []
    note = RunStore._record

    def noting(self, name, *rest):
        if len(placed) == first:
            raise KeyboardInterrupt
        placed.append(name)
        note(self, name, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "_record", noting)
        with pytest.raises(KeyboardInterrupt):
            put_both(folder, b"one")
    put_both(folder, b"other")
    assert both(folder) == (b"one", 3.0)
    assert folder.complete_commit("both") and both(folder) == (b"one", 3.0)


def test_a_commit_that_was_deleted_since(folder):
    """The files of a later attempt are dropped, with its commit."""
    folder.write_bytes("_SUCCESS", b"")  # such as of a list that Spark wrote
    put_both(folder, b"one", done=False)
    assert both(folder) == (b"one", 3.0)
    folder.delete_commit("both")
    put_both(folder, b"other", done=True)
    assert both(folder) == (b"one", 3.0) and not folder.files("tmp")


def test_nothing_of_a_published_run_is_replaced(folder):
    """A worker was cut off, and the run ended without it: its staged files are removed."""
    put(folder, 1.0, is_final=False)
    folder.delete("tmp")
    folder.write_bytes("_SUCCESS", b"")
    assert not put(folder, 2.0) and not put(folder, 3.0, is_final=False)
    put_both(folder, b"late")
    assert not folder.exists("shards/a") and not folder.files("tmp")
    check(folder, 1.0)


def test_a_folder_that_another_attempt_removes_meanwhile(tmp_path, monkeypatch):
    """Publishing removes `parts` after another attempt created it, and before that writes a digest."""
    make, times = os.makedirs, itertools.count()

    def remove_some(path, **options):
        make(path, **options)
        if next(times) < 6:  # parents too
            os.rmdir(path)

    folder = RunStore(str(tmp_path))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(os, "makedirs", remove_some)
    folder.write_bytes("pool/a.tar", b"one")
    assert folder.read_bytes("pool/a.tar") == b"one" and next(times) > 6 and valid_digest(folder, "pool/a.tar")
