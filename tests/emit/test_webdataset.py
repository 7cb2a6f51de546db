"""Tars contain the input's bytes under safe and unique names."""

import datetime as dt
import decimal
import hashlib
import json
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.ask.verify import verify_run
from curate.base.ids import hash64
from curate.emit import webdataset
from curate.emit.columns import SIDECAR
from curate.emit.webdataset import WebdatasetOutput
from curate.publish.forget.forget import forget
from curate.store.items import Items
from curate.store.store import RunStore
from curate.tar.writer import TarWriter, safe_key, safe_suffix
from tests.base.uids import content_uid
from tests.emit.written import (
    DOWNLOADED,
    STATS,
    emitted,
    names_of,
    pairs,
    parquets,
    picture,
    recipe,
    samples_of,
    sidecars,
    tars,
    write_tar,
)
from tests.kit import run_beam, run_local
from tests.kit.written_runs import run_query

IMG2DATASET = [
    "url", "key", "caption", "status", "error_message", "width", "height", "original_width", "original_height", "exif",
    "sha256",
]  # fmt: skip


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A run over a tar whose samples have members of every kind in odd orders; and the tar's members."""
    folder = tmp_path_factory.mktemp("rich")
    fields = {"url": "http://x/1", "original_width": 999, "height": 31, "exif": '{"Make": "é"}', "n": [1, {"a": None}]}
    odd = b'{"lone": "\\ud800", "width": "wide", "height": -3, "exif": {"a": 1}, "big": 1e400, "nan": [NaN, 1]}'
    members = [
        ("one.cls", b"7"), ("one.txt", b"\xef\xbb\xbfa caption \r\n with breaks\r\n"), ("one.jpg", picture(1)),
        ("one.seg.png", picture(9, "PNG")), ("one.json", json.dumps(fields, indent=4).encode()), ("one.npy", b""),
        ("two.json", json.dumps({"caption": "only in the json, é写", "uid": "AB" * 16}).encode()),
        ("two.webp", picture(2, "WEBP")), ("Three.JPG", picture(3)), ("Three.TXT", b"in capitals"),
        ("sub/folder/four.png", picture(4, "PNG", (50, 20))), ("sub/folder/four.txt", "a caption, ünïcode".encode()),
        ("five.jpg", picture(5)), ("five.png", picture(6, "PNG")), ("five.txt", b"two images"),
        ("six.jpg", picture(7)), ("six.txt", b"odd suffixes and fields"), ("six.a<b", b"may not be in a path"),
        ("six.json", odd), ("README", b"no sample"), ("dropped.jpg", picture(8)), ("dropped.txt", b"dropped"),
    ]  # fmt: skip
    path = write_tar(folder / "pool.tar", members)
    return emitted(folder / "run", tars(path), rules={"chosen": "key <> 'dropped'"}), members


def test_members_are_the_bytes_that_came_sorted_with_plain_headers(rich):
    ran, members = rich
    found = samples_of(ran)
    assert list(found) == ["one", "two", "Three", "sub/folder/four", "five", "six"]
    assert set(found["one"]) == {"cls", "txt", "jpg", "seg.png", "json", "npy"}
    odd = f"unsafe-{hash64('a<b'):016x}"
    for name, data in members:
        key, _, suffix = name.partition(".")
        if suffix and suffix != "json" and key != "dropped":
            assert found[key][odd if suffix == "a<b" else suffix.lower()] == data, name
    with tarfile.open(ran.folder / "shards/00000.tar") as tar:
        infos = tar.getmembers()
    assert {(i.mtime, i.uid, i.gid, i.mode, i.uname, i.type) for i in infos} == {(0, 0, 0, 0o644, "", tarfile.REGTYPE)}
    for name in names_of(ran):
        suffixes = [i.name.partition(".")[2] for i in infos if i.name.partition(".")[0] == name]
        assert suffixes == sorted(suffixes) and {"txt", "json"} <= set(suffixes)
    assert found["two"]["txt"] == "only in the json, é写".encode()


def test_json_is_byte_for_byte_what_it_was_and_the_uid(rich):
    ran, members = rich
    found, original = samples_of(ran), dict(members)
    uids = dict(zip(*(ran.table("samples")[name].to_pylist() for name in ("key", "uid")), strict=True))
    for key, files in found.items():
        before = original.get(f"{key}.json", b"{}")
        if key == "two":  # whose uid was in capitals
            assert files["json"] == before.replace(b"AB" * 16, b"ab" * 16) and uids[key] == "ab" * 16
            continue
        added = f'"uid": "{uids[key]}"'.encode()
        assert added in files["json"]
        assert files["json"].replace(b", " + added, b"").replace(added, b"") == before


def test_the_sidecar_and_the_stats_have_img2datasets_fields(rich):
    ran, _ = rich
    table = pq.read_table(ran.folder / "shards/00000.parquet")
    assert table.select(SIDECAR.names).schema.remove_metadata() == SIDECAR
    assert table.column_names == [*SIDECAR.names, "big", "lone", "probability"]
    assert SIDECAR.names[: len(IMG2DATASET)] == IMG2DATASET
    rows = {row["key"]: row for row in table.to_pylist()}
    samples = {row["key"]: row for row in ran.table("samples").to_pylist()}
    assert list(rows) == names_of(ran)
    for key, row in rows.items():
        same = ("uid", "caption", "url", "width", "height", "sha256", "source")
        assert {name: row[name] for name in same} == {name: samples[key][name] for name in same}
        assert (row["status"], row["error_message"]) == ("success", None)
    size = ("original_width", "original_height", "exif")
    assert [rows["one"][name] for name in size] == [999, 31, '{"Make": "é"}']
    assert [rows["six"][name] for name in size] == [40, 30, None]  # no sizes that can be: those of the image
    assert [rows["sub/folder/four"][name] for name in size] == [50, 20, None]
    stats = json.loads((ran.folder / "shards/00000_stats.json").read_text())
    assert set(stats) == {*STATS, "json_dtype"} and 0 <= stats["end_time"] - stats["start_time"] < 60
    assert stats["count"] == stats["successes"] == 6 and stats["status_dict"] == {"success": 6}
    assert stats["failed_to_download"] == stats["failed_to_resize"] == 0
    assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {"00000.tar": 6}


# ---- digests

ADDED = ', "uid": "UID"}'
CASES = {  # the json that comes, the json in the shard, and whether the image's digest as it was downloaded is known
    "none": ('{"n": 1.50}', f'{{"n": 1.50{ADDED}', False),
    "same": ('{"sha256": "STORED"}', f'{{"sha256": "STORED"{ADDED}', False),
    "capitals": ('{"sha256": "UPPER"}', f'{{"sha256": "UPPER"{ADDED}', False),
    "resized": (
        '{\n    "sha256": "DDD",\n    "n": {"sha256": "DDD"}\n}',
        '{\n    "sha256": "STORED",\n    "n": {"sha256": "DDD"}, "uid": "UID", "original_sha256": "DDD"\n}', True,
    ),
    "plain": ('{"sha256": "DDD"}', '{"sha256": "STORED", "uid": "UID", "original_sha256": "DDD"}', True),
    "curated": ('{"sha256": "STORED", "original_sha256": "DDD"}',
     f'{{"sha256": "STORED", "original_sha256": "DDD"{ADDED}', True),
    "again": ('{"sha256": "EEE", "original_sha256": "DDD"}', f'{{"sha256": "STORED", "original_sha256": "DDD"{ADDED}',
     True),
    "null": ('{"sha256": null}', f'{{"sha256": "STORED"{ADDED}', False),
    "no digest": ('{"sha256": ["x"]}', '{"sha256": "STORED", "uid": "UID", "original_sha256": ["x"]}', False),
    "nulls": ('{"sha256": "DDD", "original_sha256": null}', f'{{"sha256": "STORED", "original_sha256": "DDD"{ADDED}',
     True),
    "renewed": ('{"uid": "not one", "captions": {"original": "an older one"}, "z": 1e-7}',
     '{"uid": "UID", "captions": {"original": "an older one"}, "z": 1e-7}', False),  # captions of an earlier run stay
}  # fmt: skip


def test_digests_are_of_the_stored_image_and_of_the_downloaded_one(tmp_path):
    """Digests in jsons, in the Parquet file, in tables, and in queries; forget finds samples by both."""
    members, expected = [], {}
    for i, (key, (source, target, is_known)) in enumerate(CASES.items()):
        stored = hashlib.sha256(picture(i)).hexdigest()
        values = {"STORED": stored, "UPPER": stored.upper(), "DDD": DOWNLOADED, "EEE": "e" * 64}
        for name, value in (values | {"UID": content_uid(None, stored, key)}).items():
            source, target = source.replace(name, value), target.replace(name, value)  # noqa: PLW2901
        members += [(f"{key}.jpg", picture(i)), (f"{key}.txt", key.encode()), (f"{key}.json", source.encode())]
        expected[key] = target, stored, DOWNLOADED if is_known else None
    path = write_tar(tmp_path / "p.tar", members)
    ran = emitted(tmp_path / "run", tars(path))
    found, listed = samples_of(ran), {row["caption"]: row for row in sidecars(ran).to_pylist()}
    rows = {row["key"]: row for row in ran.table("samples").to_pylist()}
    for key, (written, stored, original) in expected.items():
        assert found[key]["json"].decode() == written, key
        assert hashlib.sha256(found[key]["jpg"]).hexdigest() == stored
        for row in (rows[key], listed[key]):
            assert (row["sha256"], row["original_sha256"]) == (stored, original), key
    downloaded = sorted(key for key, (*_, original) in expected.items() if original)
    query = f"SELECT key FROM kept WHERE original_sha256 = '{DOWNLOADED}' ORDER BY key"
    assert [key for (key,) in run_query(str(ran.folder), query).rows] == downloaded
    for digest, keys in ((expected["same"][1], ["same"]), (DOWNLOADED, downloaded)):
        result = forget(str(ran.folder), Items.of({"sha256": [bytes.fromhex(digest)]}))
        assert (result.rows.requested, result.rows.linked, len(result.absent)) == (len(keys), 0, 0)
    assert set(names_of(ran)) == expected.keys() - {"same", *downloaded} and verify_run(str(ran.folder))[1] == []
    assert DOWNLOADED not in (ran.folder / "shards/00000.tar").read_bytes().decode("latin-1")
    assert ran.table("samples")["original_sha256"].null_count == len(expected)
    again = emitted(tmp_path / "again", tars(path), blocklist=str(ran.folder / "forgotten.parquet"))
    assert set(names_of(again)) == set(names_of(ran))


UNSAFE = ["../up", "/abs", "a/../b", "C:x", "a\\b", "con", "q?", "a/ b", "x\ny", "%2e%2e/y", "w" * 201]


def test_unsafe_keys_give_way_to_uids(tmp_path):
    path = write_tar(tmp_path / "p.tar", pairs(*UNSAFE, "good", "sub/good", "写 真"))
    ran = emitted(tmp_path / "run", tars(path))
    uids = dict(zip(*(ran.table("samples")[name].to_pylist() for name in ("key", "uid")), strict=True))
    assert len(uids) == len(UNSAFE) + 3
    # What begins with dots is hidden, or has no key before its first dot: no sample; the others are all kept.
    assert names_of(ran) == [key if key in ("good", "sub/good", "写 真") else uid for key, uid in uids.items()]
    assert sidecars(ran)["key"].to_pylist() == names_of(ran)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and "run" not in p.parts and p.name != "p.tar"]


@pytest.mark.parametrize("run", [run_local, run_beam])
def test_keys_that_repeat_over_shards_and_sources_give_way_to_uids(tmp_path, run):
    """Beam groups the hashes of keys in four buckets."""
    letters = list("bcdefghijklmnop")
    pools = (["a", *letters, "only1"], letters, ["a", "q"])
    one, two, three = (write_tar(tmp_path / f"{i}.tar", pairs(*keys, first=100 * i)) for i, keys in enumerate(pools, 1))
    made = recipe(tars((one, two), three), 5, rules={"chosen": "caption <> 'caption 300'"})
    ran = run(made, tmp_path / "run")
    names = names_of(ran)
    # One of the two named a is dropped, so the other keeps its key.
    assert [name for name in names if len(name) < 32] == ["a", "only1", "q"] and len(names) == len(set(names)) == 33
    uids = [row["uid"] for row in ran.table("samples").to_pylist() if row["key"] in letters]
    assert sorted(name for name in names if len(name) == 32) == sorted(uids)


# ---- Parquet with images


def test_parquet_with_images_gives_tars(tmp_path):
    images = [picture(1), picture(2, "PNG"), picture(3, "WEBP"), b"broken", picture(5)]
    plain = pa.table({
        "jpg": pa.array(images, pa.binary()), "text": ["first", "second", "third", "fourth", "fifth"],
        "key": ["k1", "../k2", "k3", "k4", None], "score": [0.5, float("nan"), None, 1.0, float("inf")],
        "when": [dt.datetime(2024, 1, 2, 3, 4)] * 5, "price": pa.array([decimal.Decimal("1.50")] * 5),
        "tags": [["a"], [], None, ["b", "c"], ["d"]], "raw": pa.array([b"\0"] * 5, pa.large_binary()),
    })  # fmt: skip
    plain = plain.append_column("sha256", pa.array([DOWNLOADED, *[None] * 4]))  # as img2dataset's Parquet states it
    struct = pa.table({"image": pa.array([{"bytes": picture(7), "path": "x.jpg"}]), "caption": ["in a struct"]})
    ran = emitted(tmp_path / "run", parquets(tmp_path / "pool", plain, struct, group=2), rows_per_shard=2)
    rows = {row["caption"]: row for row in ran.table("samples").to_pylist()}
    found = samples_of(ran)
    names = ["k1", rows["second"]["uid"], "k3", rows["fifth"]["uid"], rows["in a struct"]["uid"]]
    assert names_of(ran) == names
    suffixes = ["jpg", "png", "webp", "jpg", "jpg"]
    for name, suffix, image in zip(names, suffixes, [*images[:3], images[4], picture(7)], strict=True):
        assert set(found[name]) == {suffix, "txt", "json"} and found[name][suffix] == image
    first, second, fifth = (json.loads(found[names[i]]["json"], parse_constant=pytest.fail) for i in (0, 1, 3))
    assert first == {
        "text": "first", "key": "k1", "score": 0.5, "when": "2024-01-02 03:04:00", "price": "1.50", "tags": ["a"],
        "uid": rows["first"]["uid"], "sha256": hashlib.sha256(images[0]).hexdigest(), "original_sha256": DOWNLOADED,
    }  # fmt: skip
    assert sidecars(ran)["original_sha256"].to_pylist() == [DOWNLOADED, *[None] * 4]
    assert second["score"] is None and fifth["score"] is None
    assert found[names[4]]["txt"] == b"in a struct"
    assert ran.counts == {"failed": 1, "kept": 5}


# ---- the format itself

ODD = ["syn.json", "jpg", "..", "a/b", "con", "unsafe-0", "%2e%2e", "x" * 51]
SUFFIXES = st.text(max_size=6) | st.sampled_from(ODD)


@given(st.lists(SUFFIXES.filter(lambda suffix: suffix not in ("txt", "json")), unique=True, max_size=6), st.booleans())
@example(["a<b", f"unsafe-{hash64('a<b'):016x}"], False)
def test_the_files_of_a_sample_are_safe_sorted_and_each_there_once(suffixes, has_synthetic):
    files = webdataset._order_files(tuple(suffixes), has_synthetic)
    written = {place: name.removeprefix(".") for name, place in files}
    assert len(set(written.values())) == len(files) and [name for name, _ in files] == sorted(name for name, _ in files)
    assert all(map(safe_suffix, written.values()))
    assert (written[len(suffixes)], written[len(suffixes) + 1]) == ("txt", "json")
    assert written.get(len(suffixes) + 2) == ("syn.json" if has_synthetic else None)
    for place, suffix in enumerate(suffixes):  # a member gives way to the synthetic text only
        if safe_suffix(suffix):
            assert written.get(place) == (None if has_synthetic and suffix == "syn.json" else suffix)


KEYS = st.none() | st.sampled_from(["a", "b/c", "../d", "e:f", "0" * 32])


@given(st.lists(st.tuples(KEYS, st.integers(0, 3)), max_size=8))
def test_names_are_unique_and_keys_wherever_they_can_be(rows):
    """If two rows could have a name, by key or by uid, only the row with this uid has it. `name_hashes` finds such names."""
    keys, uids = [key for key, _ in rows], [f"{number}{i}".rjust(32, "0") for i, (_, number) in enumerate(rows)]
    kept = pa.array([True] * len(rows) + [False])
    tables = TablesInMemory(
        samples=pa.table({"key": pa.array([*keys, "a"], pa.string()), "uid": [*uids, "f" * 32]}),
        decisions=pa.table({"kept": kept}),
    )
    hashes, counts = np.unique(WebdatasetOutput().name_hashes(tables), return_counts=True)
    names = webdataset._names(keys, uids, hashes[counts > 1])
    assert len(set(names)) == len(names)
    may_be = Counter(name for key, uid in zip(keys, uids, strict=True) for name in {key, uid})
    for name, key, uid in zip(names, keys, uids, strict=True):
        assert name == (key if key is not None and safe_key(key) and may_be[key] == 1 else uid)


class TablesInMemory:
    """What `name_hashes` needs of a unit's tables."""

    def __init__(self, **tables):
        self.tables = tables

    def read(self, name, columns):
        return self.tables[name].select(columns)


def test_members_of_samples_are_read_and_taken_out(tmp_path):
    """Images and further files are read; a shard without some samples holds the bytes of the others."""
    kind, store, samples = WebdatasetOutput(), RunStore(str(tmp_path)), ("a", "b/c", "d" * 32)
    whole = {
        f"{key}.{suffix}": f"{key} {suffix}".encode() for key in samples for suffix in ("jpg", "json", "seg.png", "txt")
    }
    for removed in (["a"], ["b/c", "d" * 32], ["e"], [*samples]):
        with store.create("shards/00000.tar") as file, TarWriter(file) as writer:
            for name, data in whole.items():
                writer.add(name, data)
        assert kind.names(store, "shards/00000") == {*samples}
        read = dict(kind.members(store, "shards/00000", {"b/c", "e"}))
        assert read == {"b/c.jpg": b"b/c jpg", "b/c.seg.png": b"b/c seg.png"}
        assert kind.remove(store, "shards/00000", pa.table({"key": removed})) == ["shards/00000.tar"]
        with tarfile.open(store.path("shards/00000.tar")) as tar:
            left = {info.name: tar.extractfile(info).read() for info in tar}
        assert left == {name: data for name, data in whole.items() if name.partition(".")[0] not in removed}
