"""What is emitted: the bytes that came in, under names that are safe and unique, in shards of exactly N rows."""

import datetime as dt
import decimal
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.ask.verify import verify_run
from curate.base.errors import RecipeError, RunError
from curate.base.ids import content_uid, hash64
from curate.emit.columns import SIDECAR
from curate.emit.layout import Layout, Slice, lay_out
from curate.emit.output_format import emit_shard
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.publish.forget.forget import forget
from curate.recipe.recipe import Recipe, parse_recipe
from curate.store.items import Items
from pipelines.prepare import prepare
from tests.laws.pools import Ran, run_beam, run_local, watch_measuring
from tests.publish.runs import run_query

IMG2DATASET = [
    "url", "key", "caption", "status", "error_message", "width", "height", "original_width", "original_height", "exif",
    "sha256",
]  # fmt: skip
STATS = {
    "count", "successes", "failed_to_download", "failed_to_resize", "duration", "start_time", "end_time", "status_dict",
}  # fmt: skip

Rich = tuple[Ran, list[tuple[str, bytes]]]


def picture(number: int, form: str = "JPEG", size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, 100, 200)).save(file, form)
    return file.getvalue() + (f"{number}".encode() if form == "JPEG" else b"")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def tars(*paths: str | tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": f"s{i}", "format": "webdataset", "path": path} for i, path in enumerate(paths)]


def parquets(folder: Path, *tables: pa.Table, group: int = 1000) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=group)
    return [{"name": f"s{i}", "format": "parquet", "path": f"{folder}/{i}.parquet"} for i in range(len(tables))]


def recipe(sources: list[dict[str, Any]], rows_per_shard: int = 10_000, **sections: Any) -> Recipe:
    limits = {"max_failed": 1.0, "max_failed_files": 1.0}
    return parse_recipe({"input": sources, "output": {"rows_per_shard": rows_per_shard}, **limits, **sections})


def emitted(out: Path, sources: list[dict[str, Any]], rows_per_shard: int = 10_000, **sections: Any) -> Ran:
    """A finished run that `curate verify` finds whole."""
    ran = run_local(recipe(sources, rows_per_shard, **sections), out)
    assert verify_run(str(out))[1] == []
    return ran


def samples_of(ran: Ran) -> dict[str, dict[str, bytes]]:
    """Suffix → content, by name, over all shards; no name occurs twice."""
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in ran.members:
        key, _, suffix = name.partition(".")
        assert suffix not in samples.setdefault(key, {})
        samples[key][suffix] = data
    return samples


def sidecars(ran: Ran) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(ran.folder.glob("shards/*.parquet"))])


def names_of(ran: Ran) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name, _ in ran.members))


# ---------------------------------------------------------------- content of tars
@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Rich:
    """One tar with all that a sample may hold, in odd orders."""
    base = tmp_path_factory.mktemp("rich")
    fields = {"url": "http://x/1", "original_width": 999, "height": 31, "exif": '{"Make": "é"}', "n": [1, {"a": None}]}
    members = [
        ("one.cls", b"7"),
        ("one.txt", b"\xef\xbb\xbfa caption \r\n with breaks\r\n"),
        ("one.jpg", picture(1)),
        ("one.seg.png", picture(9, "PNG")),
        ("one.json", json.dumps(fields, indent=4).encode()),
        ("one.npy", b""),
        ("two.json", json.dumps({"caption": "only in the json, é写", "uid": "AB" * 16}).encode()),
        ("two.webp", picture(2, "WEBP")),
        ("Three.JPG", picture(3)),
        ("Three.TXT", b"in capitals"),
        ("sub/folder/four.png", picture(4, "PNG", (50, 20))),
        ("sub/folder/four.txt", "a caption, ünïcode".encode()),
        ("five.jpg", picture(5)),
        ("five.png", picture(6, "PNG")),
        ("five.txt", b"two images"),
        ("six.jpg", picture(7)),
        ("six.txt", b"odd suffixes and fields"),
        ("six.a<b", b"may not be in a path"),
        (
            "six.json",
            b'{"lone": "\\ud800", "width": "wide", "height": -3, "exif": {"a": 1}, "big": 1e400, "nan": [NaN, 1]}',
        ),
        ("README", b"no sample"),
        ("dropped.jpg", picture(8)),
        ("dropped.txt", b"dropped"),
    ]
    path = write_tar(base / "pool.tar", members)
    return emitted(base / "run", tars(path), rules={"chosen": "key <> 'dropped'"}), members


def test_members_are_the_bytes_that_came(rich: Rich) -> None:
    ran, members = rich
    found = samples_of(ran)
    assert list(found) == ["one", "two", "Three", "sub/folder/four", "five", "six"]
    assert set(found["one"]) == {"cls", "txt", "jpg", "seg.png", "json", "npy"}
    odd = f"unsafe-{hash64('a<b'):016x}"
    for name, data in members:
        key, _, suffix = name.partition(".")
        if suffix and suffix != "json" and key != "dropped":
            assert found[key][odd if suffix == "a<b" else suffix.lower()] == data, name


def test_members_are_sorted_and_headers_are_plain(rich: Rich) -> None:
    ran, _ = rich
    with tarfile.open(ran.folder / "shards/00000.tar") as tar:
        infos = tar.getmembers()
    assert {(i.mtime, i.uid, i.gid, i.mode, i.uname, i.type) for i in infos} == {(0, 0, 0, 0o644, "", tarfile.REGTYPE)}
    for name in names_of(ran):
        suffixes = [i.name.partition(".")[2] for i in infos if i.name.partition(".")[0] == name]
        assert suffixes == sorted(suffixes) and {"txt", "json"} <= set(suffixes)


def test_json_is_byte_for_byte_what_it_was_and_the_uid(rich: Rich) -> None:
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


def test_a_caption_from_the_json_gets_a_txt(rich: Rich) -> None:
    assert samples_of(rich[0])["two"]["txt"] == "only in the json, é写".encode()


def test_the_sidecar_has_img2datasets_columns(rich: Rich) -> None:
    ran, _ = rich
    table = pq.read_table(ran.folder / "shards/00000.parquet")
    assert table.select(SIDECAR.names).schema.remove_metadata() == SIDECAR
    assert (
        table.column_names == [*SIDECAR.names, "big", "lone", "probability"]
        and SIDECAR.names[: len(IMG2DATASET)] == IMG2DATASET
    )
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


def test_stats_and_sizes(rich: Rich) -> None:
    ran, _ = rich
    stats = json.loads((ran.folder / "shards/00000_stats.json").read_text())
    assert set(stats) == STATS
    assert stats["count"] == stats["successes"] == 6 and stats["status_dict"] == {"success": 6}
    assert stats["failed_to_download"] == stats["failed_to_resize"] == 0
    assert 0 <= stats["end_time"] - stats["start_time"] < 60
    assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {"00000.tar": 6}


def test_fields_of_an_earlier_curation_are_renewed(tmp_path: Path) -> None:
    before = {"uid": "not one", "captions": {"original": "an older one", "rewrite": "x"}, "z": 1e-7}
    members = [("k.jpg", picture(1)), ("k.txt", b"a new caption"), ("k.json", json.dumps(before).encode())]
    ran = emitted(tmp_path / "run", tars(write_tar(tmp_path / "p.tar", members)))
    sha256 = ran.table("samples")["sha256"][0].as_py()
    text = json.dumps(before | {"uid": content_uid(None, sha256, "a new caption")})
    assert samples_of(ran)["k"]["json"] == text.encode()  # captions of an earlier run stay, where this one writes none


# ---------------------------------------------------------------- columns of the source
def field_pool(folder: Path) -> list[dict[str, Any]]:
    """Tars as img2dataset writes them with further columns, whose types differ from file to file, and Parquet with images."""
    rows: list[list[dict[str, Any]]] = [
        [
            {"NSFW": "NO", "similarity": 1, "LICENSE": None, "is_ad": False, "uid": None, "tags": ["x"]}
            for _ in range(3)
        ],
        [
            {"NSFW": "é", "similarity": 0.1, "LICENSE": "cc", "is_ad": None, "Url": "x"},
            {"NSFW": 7, "similarity": "low"},
        ],
        [{"note": 2**40, "exif": '{"Make": "x"}', "key": "other"}, {"note": 2**70}],
    ]
    paths = []
    for tar, of_tar in enumerate(rows):
        members = []
        for i, fields in enumerate(of_tar):
            key = f"{tar}{i}"
            members += [(f"{key}.jpg", picture(10 * tar + i)), (f"{key}.txt", f"caption {key}".encode())]
            members.append((f"{key}.json", json.dumps({"sha256": DOWNLOADED, **fields}).encode()))
        paths.append(write_tar(folder / f"{tar}.tar", members))
    table = pa.table(
        {
            "jpg": pa.array([picture(90), picture(91)]),
            "TEXT": ["in Parquet", "too"],
            "NSFW": ["UNSURE", None],
            "note": pa.array([1, 2], pa.int8()),
            "when": [dt.date(2024, 1, 2)] * 2,
            "raw": [b"0", b"1"],
        }
    )
    return [*tars(*paths), *({**one, "name": "q"} for one in parquets(folder / "q", table))]


@pytest.fixture(scope="module")
def with_fields(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("fields")
    sources = field_pool(folder)
    return emitted(folder / "run", sources, rows_per_shard=2), sources


def test_the_sources_columns_stay_in_the_parquet_of_shards(with_fields: tuple[Ran, list[dict[str, Any]]]) -> None:
    ran, _ = with_fields
    paths = list(ran.folder.glob("shards/*.parquet"))
    schemas = {pq.read_schema(path).remove_metadata().to_string() for path in paths}
    assert len(paths) == 5 and len(schemas) == 1, "readers of many files want one schema"
    table = sidecars(ran)
    own = {
        "LICENSE": "string",
        "NSFW": "string",
        "TEXT": "string",
        "is_ad": "bool",
        "note": "int64",
        "similarity": "double",
        "when": "string",
    }
    assert {field.name: str(field.type) for field in list(table.schema)[len(SIDECAR) : -1]} == own
    rows = {row["caption"]: {name: row[name] for name in own if row[name] is not None} for row in table.to_pylist()}
    first = {"NSFW": "NO", "similarity": 1.0, "is_ad": False}
    assert rows == {
        "caption 00": first, "caption 01": first, "caption 02": first,
        "caption 10": {"NSFW": "é", "similarity": 0.1, "LICENSE": "cc"}, "caption 11": {},
        "caption 20": {"note": 2**40}, "caption 21": {},
        "in Parquet": {"TEXT": "in Parquet", "NSFW": "UNSURE", "note": 1, "when": "2024-01-02"},
        "too": {"TEXT": "too", "note": 2, "when": "2024-01-02"},
    }  # fmt: skip
    glob = f"{ran.folder}/shards/*.parquet"
    assert duckdb.sql(f"SELECT count(nsfw), count(note), sum(similarity) FROM '{glob}'").fetchall() == [(5, 3, 3.1)]


def test_columns_of_the_source_do_not_depend_on_units_or_workers(
    with_fields: tuple[Ran, list[dict[str, Any]]], tmp_path: Path
) -> None:
    ran, sources = with_fields
    again = run_beam(recipe(sources, 2), tmp_path / "again")
    assert read_run(again) == read_run(ran)
    one_unit = [{**sources[0], "path": [source["path"] for source in sources[:3]]}, sources[3]]
    cut = run_local(recipe(one_unit, 100), tmp_path / "cut")
    names = [name for name in sidecars(cut).column_names if name != "source"]
    assert sidecars(cut).select(names).equals(sidecars(ran).select(names))


def read_run(ran: Ran) -> dict[str, bytes]:
    """The bytes of a run's shards, but for what tells times."""
    return {path.name: path.read_bytes() for path in ran.folder.glob("shards/*") if path.suffix in (".tar", ".parquet")}


def test_another_field_writes_shards_again_and_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = field_pool(tmp_path)[:2]
    first = emitted(tmp_path / "first", sources[:1])
    read = watch_measuring(monkeypatch)
    second = run_local(recipe(sources), tmp_path / "second", reuse=first.folder)
    assert len(read) == 1, "only the tar that was added"
    names = sidecars(second).column_names
    assert "is_ad" in sidecars(first).column_names and "is_ad" in names
    assert sidecars(first).schema.field("similarity").type == pa.int64()
    assert sidecars(second).schema.field("similarity").type == pa.float64()


# ---------------------------------------------------------------- digests
DOWNLOADED = "d" * 64


def digest_pool(folder: Path) -> tuple[str, dict[str, tuple[str, str, str | None]]]:
    """A tar, and of each sample the json that is expected, its uid left out, and the digest of the image as it was downloaded."""
    cases: dict[str, tuple[str, str, str | None]] = {
        "none": ('{"n": 1.50}', '{"n": 1.50}', None),
        "same": ('{"sha256": "STORED"}', '{"sha256": "STORED"}', None),
        "capitals": ('{"sha256": "UPPER"}', '{"sha256": "UPPER"}', None),
        "resized": (
            '{\n    "sha256": "DDD",\n    "n": {"sha256": "DDD"}\n}',
            '{\n    "sha256": "STORED",\n    "n": {"sha256": "DDD"}, "uid": "UID", "original_sha256": "DDD"\n}',
            DOWNLOADED,
        ),
        "plain": ('{"sha256": "DDD"}', '{"sha256": "STORED", "uid": "UID", "original_sha256": "DDD"}', DOWNLOADED),
        "curated": ('{"sha256": "STORED", "original_sha256": "DDD"}',) * 2 + (DOWNLOADED,),
        "again": (
            '{"sha256": "' + "e" * 64 + '", "original_sha256": "DDD"}',
            '{"sha256": "STORED", "original_sha256": "DDD"}',
            DOWNLOADED,
        ),
        "null": ('{"sha256": null}', '{"sha256": "STORED"}', None),
        "no digest": ('{"sha256": ["x"]}', '{"sha256": "STORED", "uid": "UID", "original_sha256": ["x"]}', None),
        "nulls": (
            '{"sha256": "DDD", "original_sha256": null}', '{"sha256": "STORED", "original_sha256": "DDD"}', DOWNLOADED
        ),
    }  # fmt: skip
    members, expected = [], {}
    for i, (key, (source, target, original)) in enumerate(cases.items()):
        stored = hashlib.sha256(picture(i)).hexdigest()
        uid = content_uid(None, stored, key)
        values = {"STORED": stored, "UPPER": stored.upper(), "DDD": DOWNLOADED, "UID": uid}
        came, written = source, target if "UID" in target else target[:-1] + ', "uid": "UID"}'
        for name, value in values.items():
            came, written = (text.replace(name, value) for text in (came, written))
        members += [(f"{key}.jpg", picture(i)), (f"{key}.txt", key.encode()), (f"{key}.json", came.encode())]
        expected[key] = written, stored, original
    return write_tar(folder / "p.tar", members), expected


def test_sha256_is_of_the_stored_image_everywhere(tmp_path: Path) -> None:
    path, expected = digest_pool(tmp_path)
    ran = emitted(tmp_path / "run", tars(path))
    found, listed = samples_of(ran), {row["caption"]: row for row in sidecars(ran).to_pylist()}
    rows = {row["key"]: row for row in ran.table("samples").to_pylist()}
    for key, (written, stored, original) in expected.items():
        files = found[key]
        assert files["json"].decode() == written, key
        assert hashlib.sha256(files["jpg"]).hexdigest() == stored
        for row in (rows[key], listed[key]):
            assert (row["sha256"], row["original_sha256"]) == (stored, original), key
    query = "SELECT key FROM kept WHERE original_sha256 = 'd' || repeat('d', 63) ORDER BY key"
    assert [key for (key,) in run_query(str(ran.folder), query).rows] == sorted(k for k, e in expected.items() if e[2])


def test_forget_finds_both_digests(tmp_path: Path) -> None:
    path, expected = digest_pool(tmp_path)
    ran = emitted(tmp_path / "run", tars(path))
    stored, downloaded = expected["same"][1], [key for key, (_, _, original) in expected.items() if original]
    result = forget(str(ran.folder), Items.of({"sha256": [bytes.fromhex(stored)]}))
    assert (result.rows.requested, result.rows.linked, len(result.absent)) == (1, 0, 0)
    result = forget(str(ran.folder), Items.of({"sha256": [bytes.fromhex(DOWNLOADED)]}))
    assert (result.rows.requested, result.rows.linked, len(result.absent)) == (len(downloaded), 0, 0)
    assert set(names_of(ran)) == expected.keys() - {"same", *downloaded} and verify_run(str(ran.folder))[1] == []
    assert DOWNLOADED not in (ran.folder / "shards/00000.tar").read_bytes().decode("latin-1")
    left = [row["original_sha256"] for row in ran.table("samples").to_pylist()]
    assert left == [None] * len(expected)
    again = emitted(tmp_path / "again", tars(path), blocklist=str(ran.folder / "forgotten.parquet"))
    assert set(names_of(again)) == set(names_of(ran))


def test_parquet_states_digests_too(tmp_path: Path) -> None:
    """As img2dataset's output of format parquet does: of the image as it was downloaded."""
    stored = hashlib.sha256(picture(1)).hexdigest()
    table = pa.table({"jpg": pa.array([picture(1), picture(2)]), "caption": ["a", "b"], "sha256": [DOWNLOADED, None]})
    ran = emitted(tmp_path / "run", parquets(tmp_path / "q", table))
    assert sidecars(ran)["original_sha256"].to_pylist() == [DOWNLOADED, None]
    fields = [json.loads(files["json"]) for files in samples_of(ran).values()]
    assert (fields[0]["sha256"], fields[0]["original_sha256"]) == (stored, DOWNLOADED)
    assert fields[1]["sha256"] == sidecars(ran)["sha256"][1].as_py() and "original_sha256" not in fields[1]


# ---------------------------------------------------------------- names
def pairs(*keys: str, first: int = 0) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.{suffix}", data)
        for i, key in enumerate(keys, first)
        for suffix, data in (("jpg", picture(i)), ("txt", f"caption {i}".encode()))
    ]


UNSAFE = ["../up", "/abs", "a/../b", "C:x", "a\\b", "con", "q?", "a/ b", "x\ny", "%2e%2e/y", "w" * 201]


def test_unsafe_keys_give_way_to_uids(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "p.tar", pairs(*UNSAFE, "good", "sub/good", "写 真"))
    ran = emitted(tmp_path / "run", tars(path))
    uids = dict(zip(*(ran.table("samples")[name].to_pylist() for name in ("key", "uid")), strict=True))
    assert len(uids) == len(UNSAFE) + 3
    # What begins with dots is hidden, or has no key before its first dot: no sample; the others are all kept.
    assert names_of(ran) == [key if key in ("good", "sub/good", "写 真") else uid for key, uid in uids.items()]
    assert sidecars(ran)["key"].to_pylist() == names_of(ran)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and "run" not in p.parts and p.name != "p.tar"]


def test_keys_that_repeat_over_shards_and_sources_give_way_to_uids(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "1.tar", pairs("a", "b", "only1"))
    two = write_tar(tmp_path / "2.tar", pairs("b", "c", first=10))
    three = write_tar(tmp_path / "3.tar", pairs("c", "d", first=20))
    four = write_tar(tmp_path / "4.tar", pairs("a", "e", first=30))
    sources = tars((one, two), (three, four))
    ran = emitted(tmp_path / "run", sources, rules={"chosen": "caption <> 'caption 30'"}, rows_per_shard=2)
    names = names_of(ran)
    # Of the two a one is dropped, so the other keeps its key.
    assert [name for name in names if len(name) < 32] == ["a", "only1", "d", "e"]
    assert len(names) == 8 and len(set(names)) == 8
    assert sorted(name for name in names if len(name) == 32) == sorted(
        row["uid"] for row in ran.table("samples").to_pylist() if row["key"] in ("b", "c")
    )


def test_a_key_that_is_the_uid_of_another_sample_gives_way(tmp_path: Path) -> None:
    """A stranger may name a sample as another one will be named, whose own key is not safe."""
    image = picture(0)
    victim = [("a:b.jpg", image), ("a:b.txt", b"the victim"), ("a:b.json", b'{"url": "http://x/v"}')]
    uid = content_uid("http://x/v", None, "the victim")
    path = write_tar(tmp_path / "p.tar", [*victim, *pairs(uid, "f" * 32, first=1)])
    ran = emitted(tmp_path / "run", tars(path))
    found = samples_of(ran)
    assert found[uid]["txt"] == b"the victim"
    assert len(found) == 3 and found["f" * 32]["txt"] == b"caption 2"  # a key that looks like a uid may stay


def test_a_sample_named_by_its_own_uid_keeps_that_name(tmp_path: Path) -> None:
    image, uid = picture(0), content_uid("http://x/v", None, "mine")
    members = [(f"{uid}.jpg", image), (f"{uid}.txt", b"mine"), (f"{uid}.json", b'{"url": "http://x/v"}')]
    assert names_of(emitted(tmp_path / "run", tars(write_tar(tmp_path / "p.tar", members)))) == [uid]


# ---------------------------------------------------------------- layout
@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 25))
def test_shards_are_full_but_the_last_and_keep_the_order(counts: list[int], rows_per_shard: int) -> None:
    units = [(Unit(i, "s", ()), count) for i, count in enumerate(counts)]
    kept = {unit.index: count for unit, count in units if count}
    shards = lay_out([unit for unit, _ in reversed(units)], Layout.of(kept, rows_per_shard))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert [shard.rows for shard in shards[:-1]] == [rows_per_shard] * (len(shards) - 1)
    assert not shards or 1 <= shards[-1].rows <= rows_per_shard
    laid = [(part.unit.index, part.first + i) for shard in shards for part in shard.slices for i in range(part.count)]
    assert laid == [(unit.index, i) for unit, count in units for i in range(count)]
    assert all(isinstance(part, Slice) and part.count for shard in shards for part in shard.slices)


@pytest.mark.parametrize("rows_per_shard", [1, 4, 6, 100])
def test_rows_per_shard_and_order(tmp_path: Path, rows_per_shard: int) -> None:
    paths = [write_tar(tmp_path / f"{n}.tar", pairs(*(f"{n}{i}" for i in range(5)), first=10 * n)) for n in range(3)]
    ran = emitted(tmp_path / "run", tars(*paths), rows_per_shard, rules={"chosen": "right(key, 1) <> '3'"})
    kept = [f"{n}{i}" for n in range(3) for i in (0, 1, 2, 4)]
    sizes = json.loads((ran.folder / "shards/sizes.json").read_text())
    assert list(sizes) == [f"{k:05d}.tar" for k in range(-(-12 // rows_per_shard))]
    assert list(sizes.values()) == [len(kept[k : k + rows_per_shard]) for k in range(0, 12, rows_per_shard)]
    assert names_of(ran) == kept and sidecars(ran)["key"].to_pylist() == kept
    for k, (name, rows) in enumerate(sizes.items()):
        with tarfile.open(ran.folder / "shards" / name) as tar:
            texts = [info.name for info in tar if info.name.endswith(".txt")]
        assert texts == [f"{key}.txt" for key in kept[k * rows_per_shard :][:rows]]
        assert pq.read_metadata(ran.folder / "shards" / name.replace("tar", "parquet")).num_rows == rows


def test_nothing_kept_gives_no_shards(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "p.tar", pairs("a", "b"))
    for name, sources in (("tar", tars(path)), ("text", parquets(tmp_path / "q", pa.table({"text": ["a", "b"]})))):
        ran = emitted(tmp_path / name, sources, rules={"none": "words > 99"})
        assert sorted(os.listdir(ran.folder / "shards")) == ["sizes.json"]
        assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {}
        assert len(np.load(ran.folder / "uids.npy")) == 0 and ran.counts == {"none": 2}


def test_a_pool_of_one_row(tmp_path: Path) -> None:
    ran = emitted(tmp_path / "tar", tars(write_tar(tmp_path / "p.tar", pairs("a"))), rows_per_shard=1)
    assert [name for name, _ in ran.members] == ["a.jpg", "a.json", "a.txt"]
    ran = emitted(tmp_path / "text", parquets(tmp_path / "q", pa.table({"text": ["a"]})), rows_per_shard=1)
    assert sidecars(ran)["text"].to_pylist() == ["a"]


# ---------------------------------------------------------------- what stands is not made again
def test_a_shard_that_stands_is_left_alone_and_one_in_part_is_made_anew(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "p.tar", pairs("a", "b", "c"))
    made = recipe(tars(path), 2)
    ran = run_local(made, tmp_path / "run")
    context, unit = prepare(made, str(tmp_path / "run")).context, Unit(0, "s0", ())
    unit = prepare(made, str(tmp_path / "run")).plan.units[0]
    shards, none = lay_out([unit], Layout.of({0: 3}, 2)), np.zeros(0, np.uint64)
    files = [ran.folder / f"shards/00000{suffix}" for suffix in (".tar", ".parquet", "_stats.json")]
    before = [(p.stat().st_ino, p.read_bytes()) for p in files]
    emit_shard(EmitSettings.of(context), shards[0], none)
    assert [(p.stat().st_ino, p.read_bytes()) for p in files] == before
    for file in files:
        file.unlink()
        emit_shard(EmitSettings.of(context), shards[0], none)
        assert [p.read_bytes() for p in files[:2]] == [data for _, data in before[:2]]
        assert files[2].exists()


def test_a_source_that_shrank_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "p.tar", pairs("a", "b"))
    made = recipe(tars(path))
    prepared = prepare(made, str(tmp_path / "run"))
    run_local(made, tmp_path / "run")
    (tmp_path / "run/shards/00000.tar").unlink()
    os.truncate(path, 600)
    with pytest.raises(RunError, match=r"p\.tar: the file changed during the run"):
        emit_shard(
            EmitSettings.of(prepared.context),
            lay_out(prepared.plan.units, Layout.of({0: 2}, 10))[0],
            np.zeros(0, np.uint64),
        )
    assert not (tmp_path / "run/shards/00000.tar").exists()


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "p.tar", pairs("a", "b:", "c"))
    one, two = (emitted(tmp_path / name, tars(path), 2) for name in ("one", "two"))
    for name in ("shards/00000.tar", "shards/00001.tar", "shards/00000.parquet", "shards/sizes.json", "uids.npy"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


# ---------------------------------------------------------------- Parquet with images
def test_parquet_with_images_gives_tars(tmp_path: Path) -> None:
    images = [picture(1), picture(2, "PNG"), picture(3, "WEBP"), b"broken", picture(5)]
    plain = pa.table(
        {
            "jpg": pa.array(images, pa.binary()),
            "text": ["first", "second", "third", "fourth", "fifth"],
            "key": ["k1", "../k2", "k3", "k4", None],
            "score": [0.5, float("nan"), None, 1.0, float("inf")],
            "when": [dt.datetime(2024, 1, 2, 3, 4)] * 5,
            "price": pa.array([decimal.Decimal("1.50")] * 5),
            "tags": [["a"], [], None, ["b", "c"], ["d"]],
            "raw": pa.array([b"\0"] * 5, pa.large_binary()),
        }
    )
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
        "uid": rows["first"]["uid"],
    }  # fmt: skip
    assert second["score"] is None and fifth["score"] is None
    assert found[names[4]]["txt"] == b"in a struct"
    assert ran.counts == {"failed": 1, "kept": 5}


# ---------------------------------------------------------------- Parquet without images
def test_imageless_pools_give_parquet_with_all_columns(tmp_path: Path) -> None:
    own = "0123456789abcdef" * 2
    when = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    one = pa.table(
        {
            "URL": ["http://x/1", "http://x/2", "http://x/3"],
            "TEXT": ["alpha one", "beta", "gamma three"],
            "site": pa.array(["a.example", None, "b.example"]).dictionary_encode(),
            "nested": pa.array([[{"a": 1, "b": ["x"]}], [], None]),
            "when": pa.array([when, None, when], pa.timestamp("us", "UTC")),
            "n": pa.array([1, 2, None], pa.int8()),
            "__index_level_0__": pa.array([5, 6, 7], pa.int64()),
        }
    )
    two = pa.table(
        {
            "uid": [own, None],
            "TEXT": ["delta four", "epsilon five"],
            "URL": ["http://x/4", "http://x/5"],
            "n": pa.array([70_000, -1], pa.int32()),
            "clip": pa.array([0.25, float("nan")], pa.float32()),
        }
    )
    sources = parquets(tmp_path / "pool", one, two, group=2)
    ran = emitted(tmp_path / "run", sources, 3, rules={"words": "words > 1"})
    table = sidecars(ran)
    assert set(table.column_names) == {*one.column_names, *two.column_names, "probability"}
    rows = table.to_pylist()
    uids = [content_uid(f"http://x/{i}", None, text) for i, text in ((1, "alpha one"), (3, "gamma three"))]
    assert [row["uid"] for row in rows] == [*uids, own, content_uid("http://x/5", None, "epsilon five")]
    assert [row["TEXT"] for row in rows] == ["alpha one", "gamma three", "delta four", "epsilon five"]
    assert [row["nested"] for row in rows] == [[{"a": 1, "b": ["x"]}], None, None, None]
    assert [row["when"] for row in rows] == [when, when, None, None]
    assert [row["site"] for row in rows] == ["a.example", "b.example", None, None]
    assert [row["n"] for row in rows] == [1, None, 70_000, -1]
    assert table.schema.field("n").type == pa.int32()
    assert [row["__index_level_0__"] for row in rows] == [5, 7, None, None]
    assert rows[2]["clip"] == 0.25 and np.isnan(rows[3]["clip"])
    assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {"00000.parquet": 3, "00001.parquet": 1}
    assert set(json.loads((ran.folder / "shards/00001_stats.json").read_text())) == STATS
    assert not list(ran.folder.glob("shards/*.tar"))


def test_a_uid_is_added_only_where_there_is_none(tmp_path: Path) -> None:
    with_uid = pa.table({"uid": [f"{i:032x}" for i in range(3)], "text": ["a", "b", "c"]})
    ran = emitted(tmp_path / "has", parquets(tmp_path / "q", with_uid))
    assert sidecars(ran).drop_columns("probability").equals(with_uid)
    without = with_uid.select(["text"])
    ran = emitted(tmp_path / "lacks", parquets(tmp_path / "r", without))
    assert sidecars(ran).select(["text"]).equals(without)
    assert sidecars(ran)["uid"].to_pylist() == [content_uid(None, None, text) for text in "abc"]


FOREIGN = {
    "upper": ["AB" * 16, "CD" * 16, "EF" * 16],
    "foreign": ["item-1", "item-2", None],
    "mixed": ["ab" * 16, "short", None],
    "numbers": [1, 2, 3],
    "nulls": pa.nulls(3),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["uid", "UID"])
def test_the_uid_is_the_ledgers_whatever_the_input_calls_so(tmp_path: Path, kind: str, name: str) -> None:
    table = pa.table({"text": ["a", "b", "c"], name: FOREIGN[kind]})
    ran = emitted(tmp_path / "run", parquets(tmp_path / "q", table))
    uids = ran.table("samples")["uid"].to_pylist()
    assert sidecars(ran)["uid"].to_pylist() == uids
    assert run_query(str(ran.folder), "SELECT uid FROM published SEMI JOIN kept USING (uid) ORDER BY uid").rows == [
        (uid,) for uid in sorted(uids)
    ]
    if name == "UID":
        assert sidecars(ran)["UID"].equals(table["UID"])


def test_row_groups_and_files_of_one_unit_come_in_order(tmp_path: Path) -> None:
    tables = [pa.table({"text": [f"f{f} r{i}" for i in range(25)], "i": range(25)}) for f in range(3)]
    parquets(tmp_path / "pool", *tables, group=4)
    sources = [{"name": "s", "format": "parquet", "path": f"{tmp_path}/pool/*.parquet"}]
    ran = emitted(tmp_path / "run", sources, 7, rules={"odd": "right(caption, 1) IN ('1', '3', '5', '7', '9')"})
    texts = [f"f{f} r{i}" for f in range(3) for i in range(1, 25, 2)]
    assert sidecars(ran)["text"].to_pylist() == texts
    assert sidecars(ran)["i"].to_pylist() == [i for _ in range(3) for i in range(1, 25, 2)]


def test_columns_of_one_name_and_other_types_are_refused_before_the_run(tmp_path: Path) -> None:
    sources = parquets(tmp_path / "q", pa.table({"text": ["a"], "x": [1]}), pa.table({"text": ["b"], "x": ["one"]}))
    with pytest.raises(RecipeError, match="different types"):
        prepare(recipe(sources), str(tmp_path / "run"))
