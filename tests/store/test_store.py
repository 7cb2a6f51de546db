import errno
import os
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema
from curate.base.errors import RunError
from curate.store.store import RunStore
from curate.store.validity import has_key

TABLE = pa.table({"uid": ["0" * 32, "1" * 32], "rule": ["words", None], "n": [1, 2], "x": [0.5, None]})


def test_bytes_and_json(folder):
    assert folder.files() == [] and not folder.exists("a/b.txt")
    folder.write_bytes("a/b.txt", b"one")
    folder.write_json("c.json", {"z": 1, "a": ["é", None]})
    assert folder.files() == ["a/b.txt", "c.json"] and folder.files("a") == ["a/b.txt"] and folder.files("none") == []
    assert (folder.read_bytes("a/b.txt"), folder.size("a/b.txt")) == (b"one", 3)
    assert folder.read_json("c.json") == {"z": 1, "a": ["é", None]}
    assert list(folder.read_json("c.json")) == ["z", "a"]
    assert "é".encode() in folder.read_bytes("c.json")
    folder.write_bytes("c.json", b'{"z": 1, "a"')  # replaces the longer one
    assert folder.size("c.json") == 12
    with pytest.raises(RunError, match=r"c\.json: is damaged"):
        folder.read_json("c.json")


def test_files_are_removed(folder, tmp_path):
    """A folder, many files at once, and a link but not its target."""
    for name in ("a/one", "a/two", "b/three", "c/d/four", "c/five"):
        folder.write_bytes(name, b"x")
    assert folder.names("a") == ["one", "two"] and folder.names("none") == []
    folder.delete_files(["a/one", "b/three"])
    folder.delete_files([])
    assert folder.files() == ["a/two", "c/d/four", "c/five"] or folder.files() == ["a/two", "c/five", "c/d/four"]
    for name in ("c", "none"):
        folder.delete(name)
    if folder.is_local:
        os.symlink(folder.path("a/two"), folder.path("link"))
        folder.delete("link")
    assert folder.files() == ["a/two"] and folder.names("a") == ["two"]


def test_row_groups_are_as_asked_for(folder):
    folder.write_parquet("t.parquet", TABLE, groups=[1, 1])
    with folder.open("t.parquet") as file:
        assert pq.read_metadata(file).num_row_groups == 2
    with folder.open_parquet("t.parquet") as opened:
        assert opened.read_group(1).equals(TABLE.slice(1))
    folder.write_parquet("empty.parquet", TABLE.slice(0, 0), groups=[0])
    assert folder.read_parquet("empty.parquet").equals(TABLE.slice(0, 0))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("stood", [False, True])
def test_nothing_is_left_of_a_file_that_fails(folder, error, stood):
    if stood:
        folder.write_bytes("a/b", b"before")
    before = folder.files()

    def fail():
        with folder.create("a/b") as file:
            file.write(b"half of it" * 1000)
            file.flush()
            raise error

    with pytest.raises(error):
        fail()
    assert folder.files() == before and folder.exists("a/b") is stood
    assert not stood or folder.read_bytes("a/b") == b"before"


def test_it_stands_only_when_the_block_ends(folder):
    """On a disk it is written in tmp/ of the run."""
    with folder.create("deep/er/a") as file:
        file.write(b"half")
        file.flush()
        assert not folder.exists("deep/er/a")
        assert not folder.is_local or [folder.size(name) for name in folder.files("tmp")] == [4]
    assert folder.read_bytes("deep/er/a") == b"half" and not folder.files("tmp")


def test_parquet_without_a_key_stands_for_nothing(folder, tmp_path):
    """The file is plain Parquet; other metadata of a table is dropped."""
    folder.write_parquet("x.parquet", TABLE)
    folder.write_parquet("y.parquet", TABLE, "")
    assert folder.footer("x.parquet") == (None, None, 2) == folder.footer("y.parquet")
    assert not any(has_key(folder, name, key) for name in ("x.parquet", "y.parquet") for key in ("", "key"))
    folder.write_parquet("z.parquet", TABLE.replace_schema_metadata({"pandas": "{}", "other": "x"}), "key")
    assert folder.schema("z.parquet").metadata == {b"curate.key": b"key"}
    assert not folder.is_local or pq.read_table(folder.path("z.parquet")).equals(TABLE)


def test_every_schema_survives_also_without_rows(folder):
    for kind in (schema.SAMPLES, schema.MEMBERS, schema.MATCHES, schema.DECISIONS, schema.FAILURES, schema.ENTRIES):
        folder.write_parquet("x.parquet", kind.empty_table(), "key")
        assert folder.read_parquet("x.parquet").schema.remove_metadata() == kind


def test_equal_tables_give_equal_bytes(folder):
    rows = 70_000
    table = pa.table(
        {
            "uid": [f"{i:032x}" for i in range(rows)],
            "caption": [f"caption {i % 997}" for i in range(rows)],
            "source": ["a", "b"] * (rows // 2),
            "ids": pa.array([list(range(i % 4)) for i in range(rows)], pa.list_(pa.int32())),
        }
    )
    chunks = pa.concat_tables([table[:1], table[1:60_000], table[60_000:]])
    elsewhere = RunStore(f"memory://commit-{uuid.uuid4().hex}")
    for where, name, same in (
        (folder, "a", table), (folder, "b", table.take(list(range(rows)))), (folder, "c", chunks), (elsewhere, "d", table),
    ):  # fmt: skip
        where.write_parquet(name, same, "key", "note")
    first = folder.read_bytes("a")
    assert folder.read_bytes("b") == first and folder.read_bytes("c") == first and elsewhere.read_bytes("d") == first
    folder.write_parquet("e", table, "another key", "note")
    assert folder.read_bytes("e") != first


# ---- taking a file of another run


def test_adopting_by_link(tmp_path):
    old, new = RunStore(str(tmp_path / "old")), RunStore(str(tmp_path / "new"))
    old.write_parquet("tables/x.parquet", TABLE, "key")
    new.adopt(old, "tables/x.parquet", "tables/x.parquet", old.digest("tables/x.parquet"))
    assert os.path.samefile(old.path("tables/x.parquet"), new.path("tables/x.parquet"))
    assert new.files("tables") == ["tables/x.parquet"] and has_key(new, "tables/x.parquet", "key")
    new.write_parquet("tables/x.parquet", TABLE, "another")  # leaves the other run as it is
    assert has_key(old, "tables/x.parquet", "key")


def test_adopting_by_copy_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    old, new = RunStore(str(tmp_path / "old")), RunStore(str(tmp_path / "new"))
    old.write_bytes("tables/x", b"data")
    new.write_bytes("tables/y", b"something older")
    new.adopt(old, "tables/x", "tables/y", old.digest("tables/x"))
    assert new.read_bytes("tables/y") == b"data" and new.files("tables") == ["tables/y"]
    assert not os.path.samefile(old.path("tables/x"), new.path("tables/y"))


@pytest.mark.parametrize("ways", ["mm", "lm", "ml"])
def test_adopting_between_file_systems(ways, tmp_path):
    places = {"l": str(tmp_path), "m": f"memory://commit-{uuid.uuid4().hex}"}
    old, new = RunStore(f"{places[ways[0]]}/old"), RunStore(f"{places[ways[1]]}/new")
    old.write_bytes("a/x", b"data" * 100_000)
    new.adopt(old, "a/x", "a/x", old.digest("a/x"))
    assert new.read_bytes("a/x") == b"data" * 100_000 and new.files() == ["a/x"]


def test_what_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    """A file that others removed or added meanwhile is no error."""
    folder, unlink, rmdir = RunStore(str(tmp_path / "run")), os.unlink, os.rmdir
    for name in "abc":
        folder.write_bytes(f"tmp/{name}", b"x")

    def refused(path, **options):
        if path == "b":
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refused)
    with pytest.raises(PermissionError, match="'b'"):
        folder.delete("tmp")

    def raced(path, **options):  # another process is first
        unlink(path, **options)
        unlink(path, **options)

    def late(path, **options):
        if others:
            (tmp_path / "run/tmp" / others.pop()).write_bytes(b"x")
        rmdir(path, **options)

    others = ["d", "e"]
    monkeypatch.setattr(os, "unlink", raced)
    monkeypatch.setattr(os, "rmdir", late)
    folder.delete("tmp")
    assert not others and not (tmp_path / "run/tmp").exists()
