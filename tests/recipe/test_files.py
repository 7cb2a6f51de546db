"""Small user files are read up to a limit; endless or blocking files are refused at once."""

import io
import os
import struct
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.captions.kinds import recaption
from curate.captions.kinds.prompts import load_template
from curate.match.metadata import read_metadata
from curate.models.heads import load_head
from curate.models.hugging_face import model_name
from curate.publish.forget.lists import read_list
from curate.recipe.files import open_zip, read_columns, read_npy, read_whole
from curate.signals.clusters import Clusters, load_clusters


def test_files_up_to_the_limit(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    fsspec.filesystem("memory").pipe("/files/x", b"0123456789")
    for path in (f"{tmp_path}/x", f"file://{tmp_path}/x", f"{tmp_path}/link", "memory://files/x"):
        assert read_whole(path, 10) == b"0123456789"
        with pytest.raises(ValueError, match="more than 9 bytes; accepted"):
            read_whole(path, 9)


def test_devices_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in ("/dev/zero", f"{tmp_path}/link", f"{tmp_path}/pipe", f"file://{tmp_path}/pipe"):
        with pytest.raises(OSError, match="is a pipe or a device; accepted: a regular file"):
            read_whole(path, 1 << 40)
    with pytest.raises(IsADirectoryError):
        read_whole(str(tmp_path), 10)
    with pytest.raises(FileNotFoundError):
        read_whole(f"{tmp_path}/none", 10)


def test_what_a_recipe_names_is_no_device(tmp_path):
    for name, read in (
        ("template.txt", lambda path: load_template(recaption.FORM, path)),
        ("centroids.npy", lambda path: load_clusters("c", Clusters(centroids=path))),
        ("head.pth", lambda path: load_head(path, "none", "none")), ("metadata.json", read_metadata),
    ):  # fmt: skip
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(RecipeError, match=r"is a pipe or a device; accepted: a regular file"):
            read(str(tmp_path / name))


def parquet(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def test_columns():
    columns = {
        "text": pa.array(["a", None, "b"]), "large": pa.array(["a", None, "b"], pa.large_string()),
        "bytes": pa.array([b"\xff", None, b""]), "view": pa.array(["a", None, "b"], pa.string_view()),
        "number": pa.array([1, None, 3]), "lists": pa.array([["a"], None, []]),
        "coded": pa.array(["a", None, "a"]).dictionary_encode(),
    }  # fmt: skip
    found = read_columns(parquet(**columns), list(columns), 1 << 20)
    assert found.to_pydict() == {name: column.to_pylist() for name, column in columns.items()}
    assert found.schema.field("text").type == pa.string()
    assert read_columns(parquet(**columns), ["number"], 1 << 20).column_names == ["number"]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["long texts", "many rows", "many nulls", "many items"])
def test_few_bytes_that_stand_for_many(kind):
    """They are refused without being decompressed."""
    bomb = {
        "long texts": lambda: pa.array(["x" * 100_000]).take(pa.array([0] * 250)),
        "many rows": lambda: pa.repeat(pa.scalar("x"), 6_000_000), "many nulls": lambda: pa.nulls(6_000_000, pa.string()),
        "many items": lambda: pa.ListArray.from_arrays([0, 6_000_000], pa.repeat(pa.scalar("x"), 6_000_000)),
    }[kind]()  # fmt: skip
    data = parquet(column=bomb, other=bomb)
    assert len(data) < 200_000
    before = pa.total_allocated_bytes()
    del bomb
    with pytest.raises(ValueError, match="unpacked, it has more than 20,000,000 bytes; accepted"):
        read_columns(data, ["column"], 20_000_000)
    assert pa.default_memory_pool().bytes_allocated() <= before
    assert len(read_columns(parquet(column=pa.array(["x"]), other=pa.nulls(1)), ["column"], 10_000)) == 1


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="the kernel's messages are not here")
def test_a_file_of_the_kernel_is_not_waited_for():
    """It is a regular file by type, but reading it blocks until the next message."""
    with pytest.raises((OSError, ValueError)):
        read_whole("/proc/kmsg", 0)
    with pytest.raises(RecipeError, match=r"/proc/kmsg: cannot be read|not an item"):
        read_list("/proc/kmsg", "uid")
    with pytest.raises(OSError, match="size does not match its number of bytes"):
        read_whole("/proc/self/pagemap", 1 << 40)  # which has bytes without end


def test_headers_of_arrays():
    """They are Python expressions, and Python's parser fails on these in several ways."""
    for header in (
        "{'shape': (" + "1+" * 4000 + "1,)}", "(" * 9000, "-" * 9000 + "1",
        "{'descr': " + "(" * 90 + "'<f4'" + ",)" * 90 + ", 'fortran_order': False, 'shape': (8,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2000000000000,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    ):  # fmt: skip
        content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(64)
        with pytest.raises(ValueError, match=r"."):
            read_npy(content)


def test_an_archive_of_too_many_members(monkeypatch):
    """A directory of 1 GiB would take 15 GB and minutes before a member is read."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a" * 100, b"")
    assert len(open_zip(file).namelist()) == 1
    monkeypatch.setattr("curate.recipe.files._MAX_DIRECTORY", 100)
    with pytest.raises(ValueError, match="the zip's directory has 146 bytes; accepted: at most 100"):
        open_zip(file)
    with pytest.raises(zipfile.BadZipFile):
        open_zip(io.BytesIO(b"no zip"))


def test_a_folder_of_a_model_with_a_pipe(tmp_path):
    """A model's name is read before anything is loaded."""
    os.mkfifo(tmp_path / "config.json")
    assert model_name(str(tmp_path)).startswith("model@")
    os.unlink(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert model_name(str(tmp_path)).startswith("model@")
    (tmp_path / "config.json").write_text('{"model_type": "qwen"}')
    assert model_name(str(tmp_path)).startswith("qwen@")
