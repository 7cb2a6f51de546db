import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.tar.writer import TarWriter, safe_key, safe_suffix, tar_header


def write(members):
    out = io.BytesIO()
    with TarWriter(out) as tar:
        offsets = [tar.add(name, data) for name, data in members]
    assert tar.offset == len(out.getvalue())
    return out.getvalue(), offsets


names = st.one_of(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=300),
    st.text("ab/é写", min_size=1, max_size=260),
).filter(lambda name: not name.endswith("/"))


@settings(max_examples=50)
@given(st.lists(st.tuples(names, st.integers(0, 1500)), max_size=8))
def test_tarfile_reads_what_is_written(members):
    files = [(name, bytes([i + 1]) * size) for i, (name, size) in enumerate(members)]
    data, offsets = write(files)
    assert (data, offsets) == write(files)
    assert len(data) % 512 == 0 and data.endswith(bytes(1024))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for found, (name, content), offset in zip(tar, files, offsets, strict=True):
            file = tar.extractfile(found)
            assert file is not None and file.read() == content
            assert (found.name, found.offset_data) == (name, offset)
            assert (found.mode, found.uid, found.gid, found.mtime, found.uname, found.gname) == (0o644, 0, 0, 0, "", "")


def test_short_headers_are_tarfiles_own():
    prefix = "d" * 150 + "/" + "n" * 90 + ".jpg"
    for name, size in (("a.jpg", 0), ("写.jpg", 12345), ("n" * 100, 8**11 - 1), (prefix, 7)):
        info = tarfile.TarInfo(name)
        info.size = size
        assert tar_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def test_long_names_and_sizes():
    assert len(tar_header("n" * 100, 1)) == len(tar_header("d/" + "n" * 100, 1)) == 512
    assert len(tar_header("n" * 101, 1)) == len(tar_header("a.jpg", 8**11)) == 1536
    for name, size in (("a.jpg", 8**11), ("n" * 300, 10**15), ("n" * 101, 3), ("d/" + "n" * 90, 8**11)):
        with tarfile.open(fileobj=io.BytesIO(tar_header(name, size) + bytes(1024))) as tar:
            info = tar.next()
        assert info is not None and (info.name, info.size) == (name, size)
    for length in range(90, 140):  # the length of a record gains a digit
        with tarfile.open(fileobj=io.BytesIO(tar_header("n" * length, 0) + bytes(1024))) as tar:
            assert tar.getnames() == ["n" * length]


def test_names_that_cannot_be():
    for name in ("", "a\0b", "\ud800"):
        with pytest.raises(ValueError):
            tar_header(name, 0)
    with pytest.raises(ValueError, match="size"):
        tar_header("a", -1)


def test_large_members():
    sizes = [0, 1, 511, 512, 513, 262_143, 262_144, 262_145, 700_000, 5]
    files = [(f"{i}.bin", bytes([i + 1]) * size) for i, size in enumerate(sizes)]
    data, offsets = write(files)
    assert all(data[at : at + len(d)] == d for at, (_, d) in zip(offsets, files, strict=True))


def test_a_failed_archive_does_not_look_whole():
    out = io.BytesIO()
    with pytest.raises(KeyError), TarWriter(out) as tar:
        tar.add("a", bytes(300_000))
        raise KeyError
    assert bytes(1024) not in out.getvalue()[:512] and len(out.getvalue()) < 512 + 300_000 + 512


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar on this system")
def test_the_systems_tar_reads_it_without_a_word(tmp_path):
    files = ["a.jpg", "写.txt", "d" * 90 + "/" + "e" * 90 + ".jpg", "n" * 240]
    (tmp_path / "a.tar").write_bytes(write([(name, b"x" * 600) for name in files])[0])
    done = subprocess.run(
        ["tar", "tf", "a.tar", "--quoting-style=literal"], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == files and done.stderr == b""


SAFE = [
    *["s001", "a/b/s", "写真_02", "🚲\u200dx", "caf%E9", "-x", "console", "com10"],
    "50% off",
    "a b",
    "x" * 200,
    "é" * 100,
]
UNSAFE = [
    "", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "./a", "a.b", ".a", "a\\b", "c:", "c:/a", "a:b",
    "a\nb", "a\0", "a\x7f", "a\x85", "a\u2028", "\ud800", "a\ufffe", "x" * 201, "é" * 101, "con", "a/NUL",
    "Lpt1/a", "com¹", "a ", " a", "a /b", "a/ b", "a?", "a*", 'a"', "<a", "a|b", "%2e%2e", "%252e", "a%2Fb%2F",
    "a%00", "%5cx", "a\n", "con/x",
]  # fmt: skip


def test_safe_keys_and_suffixes():
    assert [key for key in SAFE + UNSAFE if safe_key(key)] == SAFE
    assert all(safe_suffix(suffix) for suffix in ("jpg", "seg.png", "写", "tar.gz", "s" * 50))
    for suffix in ("", "a.", ".a", "a..b", "a\\..\\b", "a/b", "a:b", "a\n", "%2fa", "a ", "s" * 51):
        assert not safe_suffix(suffix)


@given(st.text("ab./\\:% 2eEfF5cC0", max_size=12))
def test_safe_keys_stay_inside(key):
    if safe_key(key):
        assert (Path("/out") / f"{key}.jpg").resolve().is_relative_to("/out")
        name = f"{key}.tar.jpg"
        assert name.partition(".")[0] == key
