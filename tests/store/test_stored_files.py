"""Files of a folder are found and read; a failed read differs from a missing or damaged file."""

import io
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.base.errors import DamagedError, RecipeError
from curate.base.meter import METER
from curate.store.layout import DIGESTS
from curate.store.store import RunStore
from curate.store.stored_files import StoredFiles
from curate.store.validity import has_key, valid_digest

TABLE = pa.table({"uid": ["0" * 32, "1" * 32], "rule": ["words", None], "n": [1, 2], "x": [0.5, None]})


def test_what_another_process_wrote_is_there(folder):
    folder.write_bytes("a/x", b"data")
    folder.write_bytes("b", b"more")
    files = StoredFiles(folder.url)
    assert files.files() == ["a/x", "b"] and files.names("a") == ["x"]
    assert files.exists("a") and files.exists("a/x") and not files.exists("a/y") and not files.exists("b/x")
    assert (files.size("a/x"), files.read_bytes("a/x")) == (4, b"data")
    assert files.digest("b").sha256 == folder.digest("b").sha256 != files.digest("a/x").sha256
    before = files.state("b")
    assert files.state("b") == before
    folder.write_bytes("b", b"fewer")
    assert files.state("b") != before
    with pytest.raises(FileNotFoundError):
        files.state("none")


def test_a_library_that_does_not_count_from_the_end(monkeypatch):
    """Azure's library does not."""
    plain = MemoryFileSystem.cat_file

    def cat_file(fs, path, start=None, end=None):
        assert (start or 0) >= 0
        return bytes(plain(fs, path, start, end))

    monkeypatch.setattr(MemoryFileSystem, "protocol", ("abfs", "az", "abfss"))
    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    folder = RunStore(f"memory://commit-{uuid.uuid4().hex}")
    folder.write_parquet("t.parquet", TABLE, "key")
    assert folder.key("t.parquet") == "key" and folder.read_parquet("t.parquet").equals(TABLE)
    assert not folder.exists("other.parquet") and folder.key("other.parquet") is None


def test_parquet_is_read_in_part(folder):
    folder.write_parquet("t.parquet", TABLE, "key", "note")
    files = StoredFiles(folder.url)
    assert files.read_parquet("t.parquet", ["x", "n"]).equals(TABLE.select(["x", "n"]))
    assert files.schema("t.parquet").names == TABLE.column_names
    assert files.footer("t.parquet") == ("key", "note", 2) and files.key("t.parquet") == "key"
    assert files.key("none.parquet") is None and not has_key(files, "t.parquet", "")
    wide = pa.table({f"a_column_with_a_long_name_{i:05d}": [i] for i in range(2000)})
    folder.write_parquet("year=2020/wide.parquet", wide, "key", "note")
    assert files.footer("year=2020/wide.parquet") == ("key", "note", 1), "longer than what is read first"
    assert files.read_parquet("year=2020/wide.parquet").equals(wide), "a folder named like a partition gives no column"


@pytest.mark.parametrize("schema", [b"!not base64!", b"AAAA"])
def test_a_table_whose_arrow_schema_is_damaged(folder, schema):
    """The footer is whole; Arrow reads its own schema only when it needs the types."""
    pq.write_table(TABLE, sink := io.BytesIO())
    data = sink.getvalue()
    at = data.rindex(b"ARROW:schema") + len(b"ARROW:schema") + 10
    folder.write_bytes("t.parquet", data[:at] + schema + data[at + len(schema) :])
    for read in (folder.schema, folder.read_parquet, lambda name: folder.open_parquet(name).schema):
        with pytest.raises(DamagedError, match=r"t\.parquet: is damaged"):
            read("t.parquet")


def test_json_that_is_nested_too_deep_is_damaged(folder):
    folder.write_bytes("run.json", b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(DamagedError, match=r"run\.json: is damaged"):
        folder.read_json("run.json")


def test_a_file_is_what_one_of_its_writers_wrote(folder):
    """Several attempts may have written it; the digest of the file in place tells which."""
    assert folder.recorded("shards/a") is None
    folder.write_bytes("shards/a", b"first", rows=1)
    folder.write_bytes("shards/a", b"second", rows=2)
    now = folder.digest("shards/a")
    assert folder.recorded("shards/a") == (*now[:2], 2) and valid_digest(folder, "shards/a")
    folder.write_bytes("elsewhere", b"changed")
    with folder.fs.open(folder.path("shards/a"), "wb") as file:
        file.write(b"changed")
    assert not folder.exists("shards/a") or valid_digest(folder, "shards/a") is None
    assert folder.recorded("elsewhere") is None  # the manifest lists no such file


def test_a_damaged_note_is_none(folder):
    folder.write_bytes("shards/a", b"data")
    note = folder.path(f"{DIGESTS}/shards/a")
    if not folder.is_local:
        (name,) = folder.names(f"{DIGESTS}/shards/a")
        folder.fs.mv(f"{note}/{name}", f"{note}/4")
    for text in ("", "4", "4\n", "4-ab-\n", "\n") if folder.is_local else [""]:  # cut, or another's
        if folder.is_local:
            Path(note).write_text(text)
        assert folder.recorded("shards/a") is None


def test_a_protocol_that_nobody_knows():
    """One letter is not a Windows drive here."""
    with pytest.raises(RecipeError, match="Protocol not known"):
        RunStore("g://bucket/run").exists("run.json")


class NoAnswer(Exception):
    """A store's library may raise an error that is no OSError."""


@pytest.mark.parametrize("error", [TimeoutError("slow"), NoAnswer("503")])
def test_a_read_that_fails_is_no_answer(folder, error, monkeypatch):
    """Every question raises an OSError; a missing or damaged file does not."""
    folder.write_parquet("t.parquet", TABLE, "key")

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(*((RunStore, "open") if folder.is_local else (type(folder.fs), "cat_file")), fail)
        for read in (lambda: has_key(folder, "t.parquet", "key"), lambda: folder.footer("t.parquet")):
            with pytest.raises(OSError):
                read()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", fail)
        for name in ("info", "cat_file"):
            patched.setattr(type(folder.fs), name, fail)
        with pytest.raises((OSError, NoAnswer)):
            folder.exists("t.parquet")
    assert has_key(folder, "t.parquet", "key") and not has_key(folder, "t.parquet", "other")
    assert not has_key(folder, "none.parquet", "key") and not folder.exists("t.parquet/none")
    folder.write_bytes("t.parquet", folder.read_bytes("t.parquet")[:-20])
    assert not has_key(folder, "t.parquet", "key")
    with pytest.raises(DamagedError, match=r"t\.parquet: is damaged"):
        folder.read_parquet("t.parquet")


def test_many_processes_write_one_log(folder):
    """A line that a kill cut is left out."""
    assert folder.read_log("tmp/log") == []
    for line in ("b.2", "a.1", "b.3"):
        folder.log("tmp/log", line)
    folder.write_bytes("tmp/log/other", b"b.4\nc.")
    assert sorted(folder.read_log("tmp/log")) == ["a.1", "b.2", "b.3", "b.4"]


def test_requests_to_a_store_are_counted_and_those_to_a_disk_are_not(tmp_path):
    for url, counted in ((f"memory://{tmp_path}", (2, 2)), (str(tmp_path), (0, 0))):
        store = RunStore(f"{url}/run")
        METER.take()
        with METER.at("emit"):
            store.write_bytes("a", b"1")
            METER.take()
            store.read_bytes("a")
            assert store.exists("a")
            store.names("")
            store.files("")
        used = METER.take()
        assert (used["emit", "reads"], used["emit", "writes"]) == counted


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    folder = StoredFiles(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        for read in (folder.digest, folder.read_json, folder.read_parquet):
            with pytest.raises(OSError, match=f"{name}: is not a regular file"):
                read(name)


def test_a_folder_is_no_file(monkeypatch):
    """s3fs lists the folder itself if its first file appears between two requests."""
    store = RunStore(f"memory://files-{uuid.uuid4().hex}")
    folder = {"name": store.path("tables"), "size": 0, "type": "directory"}
    monkeypatch.setattr(store.fs, "find", lambda path, detail: {path: folder})
    assert (store.files("tables"), store.sizes(), store.times("tables")) == ([], {}, {})
