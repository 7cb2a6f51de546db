"""Lists of what to forget: what is accepted, and errors that name the line."""

import gzip
import hashlib
import io
import os
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError
from curate.publish.forget import lists
from curate.publish.forget.lists import read_list
from curate.store.forgotten import REQUESTED, Record
from curate.store.items import KINDS, hex_of
from curate.store.store import RunStore

UID, OTHER, IMAGE = "0123456789abcdef0123456789abcdef", "f" * 30 + "00", "00" + "e" * 62
URL = "https://example.com/ü?a=b c"
HASHED = hashlib.sha256(URL.encode()).hexdigest()


def shown(items):
    return {kind: hex_of(items[kind]) for kind in KINDS if len(items[kind])}


@pytest.fixture
def write(tmp_path):
    """Write a list, and return its path."""

    def write_list(content, name="list.txt"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write_list


@pytest.mark.parametrize(
    ("kind", "lines", "found"),
    [
        (None, f"\ufeff{UID.upper()}\r\n\n  {IMAGE}\n{URL}\n{UID}\n".encode(), {"uid": [UID], "url": [HASHED], "sha256": [IMAGE]}),
        ("uid", f"{UID}\n{UID}\n".encode(), {"uid": [UID]}), ("sha256", f"{IMAGE}\n{IMAGE}\n".encode(), {"sha256": [IMAGE]}),
        ("url", f"{URL}\n{URL}\n".encode(), {"url": [HASHED]}),
        (None, b"http://x/\xff\n", {"url": [hashlib.sha256(b"http://x/\xff").hexdigest()]}),
    ],
)  # fmt: skip
def test_lines(write, kind, lines, found, monkeypatch):
    """Without a kind, the form of a line says it."""
    assert shown(read_list(write(lines), kind)) == found
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    assert shown(read_list("-", kind)) == found


def test_a_line_that_is_no_item_is_named(write):
    uid, image, url = "a uid (32 hex digits)", "the sha256 of an image (64 hex digits)", "a URL"
    for kind, line, accepted in (
        ("uid", UID[:-1], uid), ("uid", IMAGE, uid), ("uid", URL, uid), ("sha256", UID, image), ("url", UID, url),
        (None, UID[:-1], f"{uid}, {image}, {url}"), (None, "a cat on a mat", f"{uid}, {image}"),
    ):  # fmt: skip
        path = write(f"{({'uid': UID, 'sha256': IMAGE, 'url': URL, None: UID})[kind]}\n\n{line}\n".encode())
        with pytest.raises(RecipeError) as caught:
            read_list(path, kind)
        assert f"{path}, line 3: {line!r} is not an item; accepted: {accepted}" in str(caught.value)


def test_arrays_of_uids(tmp_path):
    pairs = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in (OTHER, UID)]
    np.save(tmp_path / "uids.npy", np.array(pairs, "u8,u8"))
    np.save(tmp_path / "numbers.npy", np.arange(3))
    assert shown(read_list(f"{tmp_path}/uids.npy", "uid")) == {"uid": sorted([UID, OTHER])}
    for name, kind in (("numbers.npy", "uid"), ("uids.npy", "url")):
        with pytest.raises(RecipeError, match="accepted: uids as u8,u8"):
            read_list(f"{tmp_path}/{name}", kind)


def test_columns_of_parquet_and_records(tmp_path):
    path = f"{tmp_path}/list.parquet"
    pq.write_table(pa.table({"UID": [UID, None], "url": [URL, ""], "text": ["a", "b"]}), path)
    assert shown(read_list(path, "uid")) == {"uid": [UID]}
    assert shown(read_list(path)) == {"uid": [UID], "url": [HASHED]}
    with pytest.raises(RecipeError, match="no column sha256; columns: uid, url, text"):
        read_list(path, "sha256")
    Record.read(RunStore(str(tmp_path))).append(read_list(path), REQUESTED).write(RunStore(str(tmp_path)))
    assert shown(read_list(f"{tmp_path}/forgotten.parquet")) == {"uid": [UID], "url": [HASHED]}


def test_files_that_cannot_be_read(tmp_path, write, monkeypatch):
    header = b"\x93NUMPY\x01\x00v\x00{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': (1000000000000000,), }"
    np.savez(several := io.BytesIO(), a=np.arange(3))
    for name, content in (
        ("huge.npy", header.ljust(127) + b"\n"),
        ("several.npy", several.getvalue()),
        ("empty.npy", b""),
    ):
        with pytest.raises(RecipeError, match=name):
            read_list(write(content, name), "uid")
    for name in ("none.txt", "none.parquet", "none.npy"):
        with pytest.raises(RecipeError, match=name):
            read_list(f"{tmp_path}/{name}")
    for data in (URL.encode("utf-16"), gzip.compress(URL.encode(), mtime=0x2F3A2F3A)):
        for kind in ("url", None):
            with pytest.raises(RecipeError, match=r"list.txt: contains NUL bytes, so it is compressed or UTF-16"):
                read_list(write(data), kind)

    class UnknownError(Exception):
        """Of a store's library; it does not name the file."""

    def read(*_):
        raise UnknownError("no credentials")

    monkeypatch.setattr(lists, "read_whole", read)
    with pytest.raises(RecipeError, match=r"s3://bucket/x\.txt: cannot be read as a list of items: .*no credentials"):
        read_list("s3://bucket/x.txt")


def test_lists_without_end(tmp_path, monkeypatch):
    """A device, a pipe without a writer, too many bytes or lines, and few bytes that stand for many."""
    for name in ("x.txt", "x.npy", "x.parquet"):
        (tmp_path / name).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", "x.txt", "x.npy", "x.parquet", "pipe"):
        with pytest.raises(RecipeError, match="is a pipe or a device; accepted: a regular file"):
            read_list(str(tmp_path / path), "uid")
    monkeypatch.setattr(lists, "MAX_BYTES", 10_000)
    (tmp_path / "long.txt").write_text(f"{UID}\n" * 400)
    pq.write_table(pa.table({"uid": [UID] * 4000}), tmp_path / "long.parquet")
    pq.write_table(pa.table({"kind": ["uid"] * 4000, "value": [UID] * 4000}), tmp_path / "record.parquet")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(bytes(10_001))))
    for path in (f"{tmp_path}/long.txt", f"{tmp_path}/long.parquet", f"{tmp_path}/record.parquet", "-"):
        with pytest.raises(RecipeError, match="more than 10,000 bytes"):
            read_list(path)
    monkeypatch.setattr(lists, "MAX_LINES", 100)
    for end in ("\n", "\r", "\r\n"):
        (tmp_path / "a.txt").write_text(end * 101, newline="")
        with pytest.raises(RecipeError, match="lines; accepted: at most 100 per list"):
            read_list(str(tmp_path / "a.txt"))
    pq.write_table(pa.table({"url": [""] * 401}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="401 rows; accepted: at most 400 per list"):
        read_list(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (["uid", "uid"], [UID[:16], UID[16:]]),  # two halves make no uid
        (["image", "uid"], [IMAGE, UID]), ([None, "uid"], [UID, UID]), (["uid", "uid"], [None, UID]),
        (["url", "uid"], [URL, UID]), ([1, 2], [3, 4]),
    ],
)  # fmt: skip
def test_a_table_that_is_no_record(tmp_path, kinds, values):
    path = f"{tmp_path}/list.parquet"
    pq.write_table(pa.table({"kind": kinds, "value": values}), path)
    with pytest.raises(RecipeError, match=r"row 0: .* is not a row of a forgotten.parquet; accepted: kind uid with"):
        read_list(path)


def test_lines_are_split_as_python_does(write):
    """Line numbers too."""
    typed = {}
    content = f"\ufeff{UID}\r\r\n \t{URL}\v\f\n\n{IMAGE}\r{OTHER} \n{URL}/\r\n{UID}".encode() + b"\nx:\xff\n"
    items = read_list(write(content), None, typed)
    hashed = sorted(hashlib.sha256(url).hexdigest() for url in (URL.encode(), f"{URL}/".encode(), b"x:\xff"))
    assert shown(items) == {"uid": sorted([UID, OTHER]), "url": hashed, "sha256": [IMAGE]}
    assert {typed[value] for value in hashed} == {URL, f"{URL}/", r"x:\xff"} and typed[UID] == UID
    with pytest.raises(RecipeError, match=rf"line {len(content.splitlines()) + 1}: 'a cat"):
        read_list(write(content + b"a cat\xff"))


def test_a_long_list_takes_little_memory(write, tmp_path, monkeypatch):
    """The bytes of the list, and a hash for each line."""
    monkeypatch.setattr(lists, "MAX_BYTES", 1 << 22)  # Python makes room for as many
    Record.read(RunStore(str(tmp_path))).append(read_list(write(URL.encode())), REQUESTED)  # imports
    path = write("".join(f"http://x/{i}\n" for i in range(100_000)).encode())
    tracemalloc.start()
    try:
        record = Record.read(RunStore(str(tmp_path))).append(read_list(path), REQUESTED)
        assert len(record) == 100_000 and tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
