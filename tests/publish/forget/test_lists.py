"""Lists of what to forget: what is accepted, and what is an error that names its line."""

import gzip
import hashlib
import io
import os
import threading
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


def test_lines_are_told_by_their_form(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(f"\ufeff{UID.upper()}\r\n\n  {IMAGE}\n{URL}\n{UID}\n".encode())
    assert shown(read_list(str(path))) == {"uid": [UID], "url": [HASHED], "sha256": [IMAGE]}


@pytest.mark.parametrize(("kind", "line", "value"), [("uid", UID, UID), ("sha256", IMAGE, IMAGE), ("url", URL, HASHED)])
def test_lines_of_a_kind(tmp_path, kind, line, value):
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n{line}\n")
    assert shown(read_list(str(path), kind)) == {kind: [value]}


def test_a_url_of_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"http://x/\xff\n")
    assert shown(read_list(str(path))) == {"url": [hashlib.sha256(b"http://x/\xff").hexdigest()]}


@pytest.mark.parametrize(
    ("kind", "line", "accepted"),
    [
        ("uid", UID[:-1], "a uid (32 hex digits)"),
        ("uid", IMAGE, "a uid (32 hex digits)"),
        ("uid", URL, "a uid (32 hex digits)"),
        ("sha256", UID, "the sha256 of an image (64 hex digits)"),
        ("url", UID, "a URL, exactly as in the pool"),
        (None, UID[:-1], "a uid (32 hex digits), the sha256 of an image (64 hex digits), a URL"),
        (None, "a cat on a mat", "a uid (32 hex digits), the sha256"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path, kind, line, accepted):
    path = tmp_path / "list.txt"
    good = {"uid": UID, "sha256": IMAGE, "url": URL, None: UID}[kind]
    path.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(RecipeError) as caught:
        read_list(str(path), kind)
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
    record = Record.read(RunStore(str(tmp_path))).append(read_list(path), REQUESTED)
    record.write(RunStore(str(tmp_path)))
    assert shown(read_list(f"{tmp_path}/forgotten.parquet")) == {"uid": [UID], "url": [HASHED]}


def test_parquet_is_read_by_one_thread(tmp_path, monkeypatch):
    """Another thread that still holds the file when Python ends, as after an error, aborts the process."""
    columns = {"uid": [f"{i:032x}" for i in range(20_000)], "other": [str(i) for i in range(20_000)]}
    pq.write_table(pa.table(columns), tmp_path / "u.parquet", row_group_size=2_000)
    readers = set()

    class Watched(io.FileIO):
        def read(self, size=-1):
            readers.add(threading.get_ident())
            return super().read(-1 if size is None else size) or b""

    monkeypatch.setattr("curate.recipe.files.open", lambda path, mode, opener: Watched(path), raising=False)
    assert len(read_list(str(tmp_path / "u.parquet"))) == 20_000
    assert readers == {threading.get_ident()}


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(f"{UID}\n".encode())))
    assert shown(read_list("-", "uid")) == {"uid": [UID]}


def test_a_store_that_cannot_be_asked(monkeypatch):
    """Its library raises errors of its own, which do not name the file."""

    class UnknownError(Exception):
        pass

    def read(*_):
        raise UnknownError("no credentials")

    monkeypatch.setattr(lists, "read_whole", read)
    with pytest.raises(RecipeError, match=r"s3://bucket/x\.txt: cannot be read as a list of items: .*no credentials"):
        read_list("s3://bucket/x.txt")


def test_what_cannot_be_read(tmp_path):
    for name in ("none.txt", "none.parquet", "none.npy"):
        with pytest.raises(RecipeError, match=name):
            read_list(f"{tmp_path}/{name}")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_too_many_lines(tmp_path, monkeypatch, end):
    monkeypatch.setattr("curate.publish.forget.lists.MAX_LINES", 100)
    (tmp_path / "a.txt").write_text(end * 101, newline="")
    with pytest.raises(RecipeError, match=r"lines; accepted: at most 100, and several lists"):
        read_list(str(tmp_path / "a.txt"))


def test_lists_that_do_not_end(tmp_path, monkeypatch):
    """A device, a pipe that nobody writes to, more bytes than a list may have, few bytes that stand for many."""
    for name in ("x.txt", "x.npy", "x.parquet"):
        (tmp_path / name).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", "x.txt", "x.npy", "x.parquet", "pipe"):
        with pytest.raises(RecipeError, match="is a pipe or a device; accepted: a regular file"):
            read_list(str(tmp_path / path), "uid")
    monkeypatch.setattr("curate.publish.forget.lists.MAX_BYTES", 10_000)
    (tmp_path / "long.txt").write_text(f"{UID}\n" * 400)
    pq.write_table(pa.table({"uid": [UID] * 4000}), tmp_path / "long.parquet")
    pq.write_table(pa.table({"kind": ["uid"] * 4000, "value": [UID] * 4000}), tmp_path / "record.parquet")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(bytes(10_001))))
    for path in (f"{tmp_path}/long.txt", f"{tmp_path}/long.parquet", f"{tmp_path}/record.parquet", "-"):
        with pytest.raises(RecipeError, match="more than 10,000 bytes"):
            read_list(path)


def test_arrays_that_are_none(tmp_path):
    header = b"\x93NUMPY\x01\x00v\x00{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': (1000000000000000,), }"
    (tmp_path / "huge.npy").write_bytes(header.ljust(127) + b"\n")
    with open(tmp_path / "several.npy", "wb") as file:
        np.savez(file, a=np.arange(3))
    for name in ("huge.npy", "several.npy"):
        with pytest.raises(RecipeError, match=name):
            read_list(f"{tmp_path}/{name}", "uid")


def test_an_empty_array_is_no_list(tmp_path):
    (tmp_path / "uids.npy").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"uids.npy: cannot be read"):
        read_list(f"{tmp_path}/uids.npy", "uid")


@pytest.mark.parametrize("data", [URL.encode("utf-16"), gzip.compress(URL.encode(), mtime=0x2F3A2F3A)])
@pytest.mark.parametrize("kind", ["url", None])
def test_what_is_no_utf8_text_is_no_url(tmp_path, data, kind):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=r"list.txt: holds NUL bytes, so it is compressed or UTF-16"):
        read_list(str(path), kind)


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (["uid", "uid"], [UID[:16], UID[16:]]),  # two halves make no uid
        (["image", "uid"], [IMAGE, UID]),
        ([None, "uid"], [UID, UID]),
        (["uid", "uid"], [None, UID]),
        (["url", "uid"], [URL, UID]),
        ([1, 2], [3, 4]),
    ],
)
def test_a_table_that_is_no_record(tmp_path, kinds, values):
    path = f"{tmp_path}/list.parquet"
    pq.write_table(pa.table({"kind": kinds, "value": values}), path)
    with pytest.raises(
        RecipeError, match=r"row 0: .* is not a row of a forgotten.parquet; accepted: uid and 32 hex digits, url and"
    ):
        read_list(path)


def test_lines_are_those_of_python(tmp_path):
    """A wrong one is numbered as there, too."""
    path, typed = tmp_path / "list.txt", dict[str, str]()
    content = f"\ufeff{UID}\r\r\n \t{URL}\v\f\n\n{IMAGE}\r{OTHER} \n{URL}/\r\n{UID}".encode() + b"\nx:\xff\n"
    path.write_bytes(content)
    urls = [URL.encode(), f"{URL}/".encode(), b"x:\xff"]
    items = read_list(str(path), None, typed)
    hashed = sorted(hashlib.sha256(url).hexdigest() for url in urls)
    assert shown(items) == {"uid": sorted([UID, OTHER]), "url": hashed, "sha256": [IMAGE]}
    assert {typed[value] for value in hashed} == {URL, f"{URL}/", r"x:\xff"} and typed[UID] == UID
    path.write_bytes(content + b"a cat\xff")
    with pytest.raises(RecipeError, match=rf"line {len(content.splitlines()) + 1}: 'a cat"):
        read_list(str(path))


def test_too_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.publish.forget.lists.MAX_LINES", 100)
    pq.write_table(pa.table({"url": [""] * 401}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"401 rows; accepted: at most 400, and several lists"):
        read_list(str(tmp_path / "a.parquet"))


def test_lines_take_no_objects(tmp_path, monkeypatch):
    """Of each line, what is held is its hash, and the bytes of the list."""
    monkeypatch.setattr("curate.publish.forget.lists.MAX_BYTES", 1 << 22)  # Python makes room for as many
    path = tmp_path / "a.txt"
    path.write_text(f"{URL}\n")
    Record.read(RunStore(str(tmp_path))).append(read_list(str(path)), REQUESTED)  # what is imported at first use
    path.write_text("".join(f"http://x/{i}\n" for i in range(100_000)))
    tracemalloc.start()
    try:
        items = read_list(str(path))
        record = Record.read(RunStore(str(tmp_path))).append(items, REQUESTED)
        assert len(record) == 100_000 and tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
