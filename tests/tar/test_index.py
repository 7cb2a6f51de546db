import io
import os
import random
import tarfile

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.schema import DAMAGE_REASONS, FILE_REASONS
from curate.tar.byte_sources import ByteSource, MmapSource, RangeSource, open_source
from curate.tar.index import decode_name, index_tar
from curate.tar.walk import BLOCK, FOLDER, REGULAR


class BytesSource(ByteSource):
    """Bytes in memory."""

    def __init__(self, data):
        self.data, self.size = memoryview(data), len(data)

    def read(self, offset, length):
        return self.data[offset : offset + length]


class CountingFs:
    """A file system that counts what is asked of it."""

    def __init__(self, data, ranges=True):
        self.data, self.ranges = data, ranges
        self.requests = []

    def size(self, path):
        return len(self.data)

    def cat_file(self, path, start, end):
        self.requests.append((start, end - start))
        return self.data[start:end] if self.ranges else self.data


def index(data, window=None):
    """The index of bytes in memory, or of a remote file of which so many come at a time."""
    if window is None:
        return index_tar(BytesSource(data))
    source = RangeSource(CountingFs(data), "a.tar")
    source.WINDOW = window
    return index_tar(source)


def make_tar(members, fmt=tarfile.USTAR_FORMAT, **fields):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name, size, kind=b"0", signed=False, magic=b"ustar\x0000"):
    """A header with any bytes for a size, and a right checksum."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" + bytes(16) + size.ljust(12, b"\0") + bytes(12) + b" " * 8)
    block += kind + bytes(100) + magic.ljust(8, b"\0")
    block = block.ljust(BLOCK, b"\0")
    total = sum(block) - (256 * sum(b > 127 for b in block) if signed else 0)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def rows(found):
    return list(zip(found.names, found.types.tolist(), found.offsets.tolist(), found.sizes.tolist(), strict=True))


SMALL = make_tar([("s0.jpg", b"i" * 700), ("s0.txt", b"a caption"), ("s1.jpg", b""), ("s1.txt", b"c" * 512)])


# ---------------------------------------------------------------- tarfile as the oracle
names = st.one_of(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=300),
    st.text("ab/.é写", min_size=1, max_size=260),
).filter(lambda name: not name.endswith("/"))


@settings(max_examples=50)
@given(
    st.lists(st.tuples(names, st.integers(0, 1500), st.sampled_from("0125")), min_size=1, max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([None, 512, 5000]),
    st.booleans(),
)
def test_index_equals_tarfile(members, fmt, window, marked):
    out = io.BytesIO()
    headers = {"comment": "global", "path": "never/used"} if fmt == tarfile.PAX_FORMAT and marked else {}
    with tarfile.open(fileobj=out, mode="w", format=fmt, pax_headers=headers) as tar:
        for name, size, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind.encode(), size if kind == "0" else 0, "target" * 30
            info.mtime = 1.5  # a PAX header for each, as webdataset writes it
            tar.addfile(info, io.BytesIO(bytes(size)))
    data = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.pax_headers = {}
        expected = [(m.offset_data, m.size, m.type[0]) for m in tar]
    found = index(data, window)
    assert found.damage is None and found.complete.all()
    assert [(o, s, t) for _, t, o, s in rows(found)] == expected
    want = [name + "/" * (kind == "5") for name, _, kind in members]
    assert [name.rstrip("/") for name in found.names] == [name.rstrip("/") for name in want]


def test_prefixes_of_names():
    """USTAR has them, GNU and v7 do not."""
    name = "d" * 100 + "/" + "e" * 90 + ".jpg"
    assert index(make_tar([(name, b"x"), ("short.jpg", b"y")])).names == [name, "short.jpg"]
    for magic in (b"ustar  \0", b""):
        block = bytearray(header(b"a.jpg", b"00000000000", magic=magic))
        block[345:357] = b"14000000000\0"  # GNU's atime
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        assert index(bytes(block)).names == ["a.jpg"]


def test_numbers_of_any_writer():
    body = padded(b"x" * 5)
    for size in (b"00000000005\0", b"          5 ", b"5\0", b"\x80" + bytes(10) + b"\x05", b"5 \0junk"):
        found = index(header(b"a.jpg", size) + body)
        assert (found.sizes.tolist(), found.damage) == ([5], None), size


def test_checksums():
    """Signed ones count too; what is none is never right: its sum is -1, or equal, modulo 65,521 as in Adler-32."""
    found = index(header("é.jpg".encode() * 8, b"0", signed=True))
    assert found.names == ["é.jpg" * 8] and found.damage is None
    for stored, ones, last in (
        (b"no octal", 255, 239), (b"no octal", 257, 0), (b"%07o\0" % (504 * 255 + 256 - 65521), 504, 0),
    ):  # fmt: skip
        block = (b"\xff" * ones + bytes([last])).ljust(504, b"\0")[:504]
        damage = index(block[:148] + stored + block[148:] + bytes(2 * BLOCK)).damage
        assert damage and damage.reason == "not_a_tar"


def pax(body, kind=b"x"):
    return header(b"PaxHeader", b"%o" % len(body), kind) + padded(body)


def test_types_and_sizes():
    """v7's types; members that are no files, as they are; the size of a PAX header."""
    v7 = header(b"d/", b"", b"\0", magic=b"") + header(b"a.jpg", b"", b"\0", magic=b"") + header(b"c", b"", b"7")
    assert index(v7).types.tolist() == [FOLDER, REGULAR, REGULAR]
    links = header(b"a.jpg", b"0000777", b"2") + header(b"b.jpg", b"0000777", b"1")  # a size, and no data
    assert rows(index(links + header(b"c.jpg", b"1", b"Z") + padded(b"x") + header(b"d.jpg", b"0"))) == [
        ("a.jpg", ord("2"), 512, 0), ("b.jpg", ord("1"), 1024, 0), ("c.jpg", ord("Z"), 1536, 1),
        ("d.jpg", REGULAR, 2560, 0),
    ]  # fmt: skip
    data = pax(b"10 size=3\n") + header(b"a.jpg", b"0") + padded(b"xyz") + header(b"b.jpg", b"0")
    assert [(n, s) for n, _, _, s in rows(index(data))] == [("a.jpg", 3), ("b.jpg", 0)]


def test_bad_pax_records():
    for body in (
        b"999999 path=a\n", b"0 path=a\n", b"-5 path=a\n", b"path=a\n", b"10 path=a", b"12 path=abcd\n",
        b"99999999999999999999 path=a\n", b"11 size=-1\n\n", b"30 size=99999999999999999999\n\n\n", b"1", b"5", b" ",
        b"0000000000000012 path=a\n",
    ):  # fmt: skip
        found = index(header(b"good.jpg", b"0") + pax(body) + header(b"a.jpg", b"0"))
        assert found.names == ["good.jpg"] and reason(found) == "damaged_tar", body
        assert "good.jpg" in found.damage.detail and "512" in found.damage.detail


def test_names_that_are_no_text():
    assert decode_name("写%é".encode()) == "写%é"
    assert decode_name(b"caf\xe9%.jpg") == "caf%E9%25.jpg"
    assert decode_name(b"caf\xe9.jpg") != decode_name(b"caf\xe8.jpg")
    assert decode_name(b"a\0b") == "a%00b"
    assert decode_name(b"\xed\xa0\x80") == "%ED%A0%80"
    found = index(pax(b"12 path=a\0b\n") + header(b"x", b"0") + header(b"b.jpg", b"0"))
    assert found.names == ["a%00b", "b.jpg"]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_decoded_names_are_text_and_distinct(a, b):
    decode_name(a).encode()
    assert "\0" not in decode_name(a)
    bad = [b"\xff" + a, b"\xff" + b]
    assert (decode_name(bad[0]) == decode_name(bad[1])) == (a == b)


# ---------------------------------------------------------------- damage
def reason(found):
    return found.damage.reason if found.damage else None


FILES = [  # (bytes, reason, part of the detail)
    (b"", "empty_file", ""), (b"<!DOCTYPE html>" * 99, "not_a_tar", "it is HTML"), (b"<html>", "not_a_tar", ""),
    (b"\x1f\x8b" + bytes(999), "compressed_tar", ""), (b"BZh9" + bytes(999), "compressed_tar", ""),
    (b"\xfd7zXZ\0" + bytes(9), "compressed_tar", ""), (b"\x28\xb5\x2f\xfd" + bytes(999), "compressed_tar", ""),
    (SMALL[:400], "truncated_tar", ""), (bytes(10240), None, ""), (SMALL + b"garbage" * 200, None, ""),
    (SMALL + SMALL, "damaged_tar", ""), (SMALL[:512], "truncated_tar", ""),
    (b"PAR1" + bytes(999), "not_a_tar", "it is Parquet"), (b"\n <!doctype HTML>", "not_a_tar", "it is HTML"),
    (b"<?xml version='1.0'?><Error>", "not_a_tar", "it is XML"), (b"PK\3\4" + bytes(999), "not_a_tar", "it is a zip archive"),
    (b"version https://git-lfs.github.com/spec/v1\n", "not_a_tar", "it is a pointer of Git LFS"),
    (make_tar([("BZh.jpg", b"")]), None, ""),  # a name that looks compressed
]  # fmt: skip


def test_what_a_file_is():
    for data, expected, detail in FILES:
        found = index(data)
        assert reason(found) == expected, data[:20]
        assert expected is None or (expected in {**FILE_REASONS, **DAMAGE_REASONS} and detail in found.damage.detail)


def test_truncation_at_every_byte():
    whole = rows(index(SMALL))
    end = max(o + s + -s % BLOCK for _, _, o, s in whole)
    boundaries = {0} | {o + s + -s % BLOCK for _, _, o, s in whole}
    for length in range(1, end + 1100):
        found = index(SMALL[:length], window=512)
        complete = [row for row, c in zip(rows(found), found.complete, strict=True) if c]
        assert complete == [row for row in whole if row[2] + row[3] <= length]
        assert found.complete[:-1].all()
        if length in boundaries or length >= end:
            assert found.damage is None
        else:
            assert reason(found) == ("not_a_tar" if length < 262 else "truncated_tar"), length
        if not found.complete.all():
            assert found.damage is not None
            name, _, offset, size = rows(found)[-1]
            assert f"{name}: {length - offset} of {size} bytes" in found.damage.detail


def test_truncation_of_long_names():
    data = make_tar([("a.jpg", b"x" * 600), ("n" * 300 + ".jpg", b"y" * 600)], tarfile.PAX_FORMAT)
    gnu = make_tar([("a.jpg", b"x" * 600), ("n" * 300 + ".jpg", b"y" * 600)], tarfile.GNU_FORMAT)
    for tar in (data, gnu):
        for length in range(1537, 1536 + 512 * 5, 7):
            found = index(tar[:length])
            assert found.names[0] == "a.jpg" and len(found) <= 2
            assert reason(found) == "truncated_tar"
            assert len(found) == 1 or found.names[1] == "n" * 300 + ".jpg"


def test_sizes_that_are_no_numbers_or_too_large():
    for size in (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"-0000000001", b"12345678", b"0x10", b"\x81" + bytes(11)):
        found = index(header(b"good.jpg", b"0") + header(b"a.jpg", size) + bytes(1024))
        assert found.names == ["good.jpg"] and reason(found) == "damaged_tar"
    for size in (b"77777777777", b"\x80" + bytes(4) + b"\x7f" + bytes(6)):
        found = index(header(b"a.jpg", size) + bytes(1024))
        assert found.names == ["a.jpg"] and not found.complete[0] and reason(found) == "truncated_tar"
    for kind in (b"x", b"L", b"K", b"g"):  # extensions that claim gigabytes
        found = index(header(b"good.jpg", b"0") + header(b"e", b"77777777777", kind) + bytes(10240), window=512)
        assert found.names == ["good.jpg"] and reason(found) == "damaged_tar"


def test_chains_of_extensions_end():
    one = pax(b"")
    assert reason(index(one * 5000, window=512)) == "damaged_tar"
    assert index(one * 3 + header(b"a.jpg", b"0")).names == ["a.jpg"]
    assert reason(index(one + bytes(1024))) == "damaged_tar"  # no member follows
    assert reason(index(one)) == "truncated_tar"
    assert reason(index(pax(b"", b"g") + bytes(1024))) is None  # what git archive makes of nothing


def test_flipped_bytes_never_crash():
    rng = random.Random(1)
    long = make_tar([("n" * 200 + ".jpg", b"x" * 600), ("é.txt", b"cap")], tarfile.PAX_FORMAT, mtime=1.5)
    for base in (SMALL, long, make_tar([("n" * 200 + ".jpg", b"x")] * 2, tarfile.GNU_FORMAT)):
        for _ in range(600):
            data = bytearray(base)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(base) // BLOCK) * BLOCK + rng.choice(
                    [rng.randrange(BLOCK), rng.randrange(124, 157)]
                )
                data[at] = rng.randrange(256)
                if rng.random() < 0.7:  # with a right checksum, so that the other fields are believed
                    block = at // BLOCK * BLOCK
                    data[block + 148 : block + 156] = b" " * 8
                    data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + BLOCK])
            whole, windowed = index(bytes(data)), index(bytes(data), window=512)
            assert rows(whole) == rows(windowed) and whole.damage == windowed.damage
            assert whole.complete[:-1].all()
            ends = whole.offsets + whole.sizes
            assert (whole.sizes >= 0).all() and (np.diff(whole.offsets) >= BLOCK).all()
            assert (ends[whole.complete] <= len(data)).all()


# ---------------------------------------------------------------- sources
def test_sources_agree(tmp_path):
    rng = random.Random(2)
    data = make_tar([(f"{i:03d}.jpg", rng.randbytes(rng.choice([0, 10, 5000, 200_000]))) for i in range(100)])
    (tmp_path / "a.tar").write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/index/a.tar", data)
    mapped, ranged = open_source(tmp_path / "a.tar"), open_source("memory://index/a.tar")
    assert isinstance(mapped, MmapSource) and isinstance(ranged, RangeSource)
    assert isinstance(open_source(f"file://{tmp_path}/a.tar"), MmapSource)
    found = index_tar(mapped)
    assert rows(found) == rows(index_tar(ranged)) == rows(index(data)) and len(found) == 100
    for _ in range(200):
        at, length = rng.randrange(len(data)), rng.choice([1, 600, 40_000, 2_000_000])
        assert mapped.read(at, length) == ranged.read(at, length) == data[at : at + length]
    assert mapped.read(len(data), 5) == ranged.read(len(data) + 7, 5) == b""


def test_more_members_than_a_call_of_the_kernel():
    data = b"".join(header(b"%05d.txt" % i, b"1") + padded(b"x") for i in range(9000))
    for window in (None, 1 << 16):
        found = index(data, window)
        assert len(found) == 9000 and found.names[8191:8193] == ["08191.txt", "08192.txt"]
        assert found.offsets.tolist() == [512 + 1024 * i for i in range(9000)]


def test_members_near_together_come_in_one_request():
    fs = CountingFs(make_tar([(f"{i:04d}.jpg", bytes(20_000)) for i in range(300)]))
    assert len(index_tar(RangeSource(fs, "a.tar"))) == 300 and len(fs.requests) < 15
    fs = CountingFs(make_tar([(f"{i:04d}.jpg", bytes([i % 256]) * 300_000) for i in range(100)]))
    found = index_tar(BytesSource(fs.data))
    spans = list(zip(found.offsets.tolist(), found.sizes.tolist(), strict=True))
    for every, least, most in ((1, 3, 5), (3, 3, 6), (10, 10, 10)):
        source = RangeSource(fs, "a.tar")
        wanted = spans[::every]
        source.expect(reversed(wanted))
        fs.requests.clear()
        assert all(source.read(offset, size) == fs.data[offset : offset + size] for offset, size in wanted)
        assert least <= len(fs.requests) <= most and max(length for _, length in fs.requests) <= source.TOGETHER
    far = sum(size for _, size in spans[::10])
    assert sum(length for _, length in fs.requests) == far  # no gap of more than 1 MiB is read


def test_servers_that_ignore_ranges_and_files_that_change():
    fs = CountingFs(SMALL, ranges=False)
    source = RangeSource(fs, "a.tar")
    source.WINDOW = 1024
    assert rows(index_tar(source)) == rows(index(SMALL))
    with pytest.raises(OSError, match="may have changed"):
        RangeSource(CountingFs(SMALL), "a.tar")._fetch(len(SMALL) - 5, 10)


def test_files_on_disk(tmp_path):
    """An empty file, none, a pipe, which is not waited for, and a view that outlives its source."""
    (tmp_path / "empty.tar").touch()
    assert reason(index_tar(open_source(tmp_path / "empty.tar"))) == "empty_file"
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(OSError, match=r"pipe\.tar: is not a regular file"):
        open_source(tmp_path / "pipe.tar")
    (tmp_path / "a.tar").write_bytes(SMALL)
    view = open_source(tmp_path / "a.tar").read(512, 4)
    assert bytes(view) == b"iiii"


def test_names_of_too_many_bytes(monkeypatch):
    """Headers of names, a megabyte each, without data: what is held of a tar would be as large as the tar."""
    monkeypatch.setattr("curate.tar.index._MAX_NAMES", 3_000_000)
    data = make_tar([(f"{i}{'a' * 900_000}.txt", b"") for i in range(20)], tarfile.PAX_FORMAT)
    indexed = index(data)
    assert indexed.damage and indexed.damage.reason == "damaged_tar" and 4 <= len(indexed) < 8
    assert "the names of its members have more than" in indexed.damage.detail
