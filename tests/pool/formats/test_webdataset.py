"""Tars: one row per sample, captions and uids from the right source, and members at their offsets."""

import hashlib
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
import xxhash
from PIL import Image

from curate.base import schema
from curate.base.errors import RecipeError
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.read.json_fields import read_json
from tests import kit

UID = "0123456789abcdef" * 2


def jpeg(color=0, size=(40, 30), format="JPEG"):
    return kit.encode(Image.new("RGB", size, (color, 100, 200)), format)


def write_tar(path, samples):
    """Write samples: key → suffix → bytes, text, or fields."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for suffix, content in members.items():
                text = json.dumps(content) if isinstance(content, dict) else content
                kit.add_member(tar, f"{key}.{suffix}", text.encode() if isinstance(text, str) else text)
    return path


def run_over(folder, samples, **sections):
    """A run over the tars of a folder, one of them with these samples; its tables match the schemas and each other."""
    write_tar(folder / "a.tar", samples)
    ran = kit.run_local(kit.recipe_of(f"{folder}/*.tar", **sections), folder / f"run{len(list(folder.iterdir()))}")
    kit.conserved(ran)
    table, members = ran.table("samples"), ran.table("members")
    assert table.schema.remove_metadata() == schema.SAMPLES and members.schema.remove_metadata() == schema.MEMBERS
    base = ["unit", "row", "uid"]
    assert members.select(base).to_pydict() == table.select(base).to_pydict()
    assert [uid is None for uid in table["uid"].to_pylist()] == [one != "ok" for one in table["status"].to_pylist()]
    return ran


def measured(folder, samples, **sections):
    """The rows by key."""
    return {row["key"]: row for row in run_over(folder, samples, **sections).table("samples").to_pylist()}


def test_everything_of_a_sample(tmp_path):
    image = jpeg(7, (64, 32))
    sample = {"jpg": image, "txt": "zwei schöne Hunde", "json": {"url": "http://x/y"}, "cls": b"3"}
    [row] = measured(tmp_path, {"x/s": sample}, measure={"image": {"phash": True}}).values()
    assert row.pop("phash") is not None
    assert row.pop("offset") == (tmp_path / "a.tar").read_bytes().index(image)
    assert row == {
        "unit": 0, "row": 0, "uid": xxhash.xxh3_128_hexdigest("http://x/y\0zwei schöne Hunde".encode()),
        "source": "pool", "shard": f"{tmp_path}/a.tar", "key": "x/s", "url": "http://x/y", "caption": "zwei schöne Hunde",
        "language": None, "words": 3, "characters": 17, "width": 64, "height": 32, "bytes": len(image),
        "format": "jpeg", "sha256": hashlib.sha256(image).hexdigest(), "original_sha256": None,
        "status": "ok", "error": None,
    }  # fmt: skip


def test_rows_are_in_the_order_of_the_tar_and_members_lie_where_they_say(tmp_path):
    shards = {
        shard: {f"{shard}{i}": {"txt": f"caption {shard} {i}", "seg.PNG": f"mask {i}", "jpg": jpeg(i)} for i in (3, 1, 2, 0)}
        for shard in "ab"
    }  # fmt: skip
    write_tar(tmp_path / "b.tar", shards["b"])
    ran = run_over(tmp_path, shards["a"])
    rows = ran.table("samples").to_pylist()
    assert [row["key"] for row in rows] == [*shards["a"], *shards["b"]]
    for row, members in zip(rows, ran.table("members").to_pylist(), strict=True):
        data, expected = Path(row["shard"]).read_bytes(), shards[row["key"][0]][row["key"]]
        spans = zip(members["suffix"], members["offset"], members["size"], strict=True)
        parts = {suffix: data[offset : offset + size] for suffix, offset, size in spans}
        texts = {"txt": row["caption"].encode(), "seg.png": expected["seg.PNG"].encode()}
        assert parts == {**texts, "jpg": expected["jpg"]} and row["caption"] == expected["txt"]
        assert row["offset"] == members["offset"][members["suffix"].index("jpg")]
        assert row["bytes"] == len(parts["jpg"])


def test_captions_come_from_txt_else_from_the_configured_key(tmp_path):
    """Each sample's caption and status, and its caption with caption_key: alt."""
    fields = {"caption": "of json", "alt": "of alt"}
    cases = {
        "both": ({"txt": "of txt", "json": fields}, "of txt", "ok", "of txt"),
        "json": ({"json": fields}, "of json", "ok", "of alt"),
        "other": ({"json": {"alt": "of alt"}}, None, "no_caption", "of alt"),
        "number": ({"json": {"caption": 5, "alt": ["x"]}}, None, "no_caption", None),
        "null": ({"json": {"caption": None, "alt": None}}, None, "no_caption", None),
        "empty": ({"txt": "", "json": fields}, None, "empty_caption", None),
    }
    samples = {key: {"jpg": jpeg()} | members for key, (members, *_) in cases.items()}
    found, of_alt = measured(tmp_path, samples), measured(tmp_path, samples, source={"caption_key": "alt"})
    captions = {key: (found[key]["caption"], found[key]["status"], of_alt[key]["caption"]) for key in cases}
    assert captions == {key: case[1:] for key, case in cases.items()}


CAPTIONS = [
    (b"caf\xe9", "caption_not_utf8", None), (b" \n\t", "empty_caption", None), (b"a\0b", "caption_nul", None),
    (b"\xef\xbb\xbfa mark", "ok", "a mark"), (b"x" * 10_000, "ok", "x" * 10_000),
    (b"x" * 10_001, "caption_too_long", None), (("é" * 40_000).encode(), "caption_too_long", None),
    (b"x" + ("é" * 40_000).encode(), "caption_too_long", None), (("x" * 65_535 + "é").encode(), "caption_too_long", None),
]  # fmt: skip
WRONG_JSON = [b"", b"{", b"[1]", b"5", b"null", b'"text"', b"\xff", b"[" * 100_000, b'{"a": 1}x']


def test_naughty_captions_and_json(tmp_path):
    samples = {f"c{n}": {"txt": text, "jpg": jpeg()} for n, (text, *_) in enumerate(CAPTIONS)}
    samples |= {f"j{n}": {"jpg": jpeg(), "txt": "a", "json": raw} for n, raw in enumerate(WRONG_JSON)}
    lone = b'{"caption": "a \\ud800 b", "url": "http://\\ud800"}'  # half of a surrogate pair
    samples |= {"s": {"json": lone, "jpg": jpeg()}, "t": {"json": lone, "txt": "fine", "jpg": jpeg()}}
    rows = measured(tmp_path, samples)
    found = [rows[f"c{n}"] for n in range(len(CAPTIONS))]
    assert [(row["status"], row["caption"]) for row in found] == [case[1:] for case in CAPTIONS]
    assert all((row["sha256"] is not None) == (row["status"] == "ok") for row in found)  # other images are not read
    for n, raw in enumerate(WRONG_JSON):
        fields, fault = read_json(raw)
        assert fields == {} and fault and len(fault) <= 200
        assert (rows[f"j{n}"]["status"], rows[f"j{n}"]["error"]) == ("invalid_json", fault)
    assert rows["s"]["status"] == "caption_not_utf8"
    assert rows["t"]["status"] == "ok" and rows["t"]["url"] == "http://?"


def test_uids(tmp_path):
    image, url = jpeg(), "http://x/é"
    by_url = xxhash.xxh3_128_hexdigest(f"{url}\0c".encode())
    by_image = xxhash.xxh3_128_hexdigest(f"{hashlib.sha256(image).hexdigest()}\0c".encode())
    cases = {
        "own": ({"uid": UID, "url": url}, UID), "upper": ({"uid": UID.upper(), "url": url}, UID),
        "short": ({"uid": UID[:-1], "url": url}, by_url), "odd": ({"uid": int("1" * 32), "url": url}, by_url),
        "url": ({"url": url}, by_url), "empty": ({"url": ""}, by_image), "null": ({"url": None, "uid": None}, by_image),
        "list": ({"url": [url]}, by_image), "none": ({}, by_image),
    }  # fmt: skip
    samples = {key: {"jpg": image, "txt": "c", "json": fields} for key, (fields, _) in cases.items()}
    for decode in (True, False):
        rows = measured(tmp_path, samples, measure={"image": {"decode": decode}})
        assert {key: row["uid"] for key, row in rows.items()} == {key: uid for key, (_, uid) in cases.items()}


def test_images(tmp_path):
    images = {
        "png": {"png": jpeg(1, format="PNG")}, "webp": {"webp": jpeg(1, format="WEBP")}, "lies": {"png": jpeg(5)}, "none": {},
        "empty": {"jpg": b""}, "text": {"jpg": b"no image"}, "cut": {"jpg": jpeg(size=(300, 300))[:-100]},
        "big": {"jpg": jpeg(size=(500, 400))},
    }  # fmt: skip
    samples = {key: members | {"txt": "c"} for key, members in images.items()}
    found = measured(tmp_path, samples, measure={"image": {"max_pixels": 100_000}})
    assert {key: row["format"] if row["status"] == "ok" else row["status"] for key, row in found.items()} == {
        "png": "png", "webp": "webp", "lies": "jpeg", "none": "no_image", "empty": "empty_image", "text": "not_an_image",
        "cut": "truncated_image", "big": "too_many_pixels",
    }  # fmt: skip
    assert found["none"]["offset"] is None and found["none"]["bytes"] is None and found["text"]["bytes"] == 8
    headers = measured(tmp_path, samples, measure={"image": {"decode": False}})
    assert headers["cut"]["status"] == headers["big"]["status"] == "ok"


def resized(folder, samples, url="{}"):
    """The message about resized images, for a source with a tar of these samples."""
    path = url.format(write_tar(folder / "a.tar", samples))
    if "://" in path:
        fsspec.filesystem("memory").pipe(path, (folder / "a.tar").read_bytes())
    return WebdatasetInput().resized(WebdatasetSource(name="pool", format="webdataset", path=path), path)


def sizes(width, height, original_width, original_height):
    return {"width": width, "height": height, "original_width": original_width, "original_height": original_height}


@pytest.mark.parametrize("url", ["{}", "memory://{}"])
def test_images_that_were_resized_are_noticed(tmp_path, url):
    """From the first hundred samples, if they are in the first megabytes: the rest of the tar is not read."""
    samples = {"0": {"jpg": b"x" * 1000, "json": sizes(256, 256, 256, 256)}}
    for i in range(1, 300):
        samples[f"{i}"] = {"jpg": b"x" * (5_000 if i < 150 else 100_000), "json": sizes(256, 256, 640, 48 * i)}
    how = "for example from 640 x 48 to 256 x 256"
    assert resized(tmp_path, samples, url) == f"99 of its first 100 images were resized, {how}"
    samples = {f"{i}": {"jpg": b"x" * 1_500_000, "json": sizes(9, 9, 8, 8)} for i in range(9)}
    assert resized(tmp_path, samples, url).startswith(
        "5 of its first 5 images were resized, for example from 8 x 8 to 9 x 9"
    )


def test_images_that_were_not_resized(tmp_path):
    for stated in (
        sizes(640, 480, 640, 480), sizes(480, 640, 640, 480), sizes(None, None, None, None),  # turned by EXIF; unknown
        {"width": 256, "height": 256}, {"original_width": 640, "original_height": 480}, {}, "[1]",
        sizes(True, False, 2, 3), sizes("256", "256", "640", "480"),
    ):  # fmt: skip
        assert resized(tmp_path, {"0": {"jpg": b"x", "json": stated}, "1": {"jpg": b"x", "txt": "no json"}}) == ""


def test_damaged_tars(tmp_path):
    contents = {"empty_file": b"", "not_a_tar": b"no tar" * 500, "compressed_tar": b"\x1f\x8b" + bytes(2000)}
    data = write_tar(
        tmp_path / "a.tar", {f"{i}": {"txt": "c", "jpg": jpeg(60 + 60 * i)} for i in range(3)}
    ).read_bytes()
    contents["truncated_tar"] = data[: data.rindex(jpeg(180)) + 100]
    for reason, content in contents.items():
        (tmp_path / f"{reason}.tar").write_bytes(content)
    assert measured(tmp_path, {"s": {"jpg": jpeg(), "txt": "c"}})["2"]["status"] == "truncated_member"
    ran = run_over(tmp_path, {"s": {"jpg": jpeg(), "txt": "c"}})
    assert {key for key, outcome in ran.by_key.items() if outcome == "kept"} == {"s", "0", "1"}
    assert {name: reason for (name, key), reason in ran.reasons.items() if not key} == {
        f"{reason}.tar": reason for reason in contents
    }


VALUES = [  # of the json: what each declared type makes of it, null where it is not named
    (0.25, {"float": 0.25}), (3, {"float": 3.0, "int": 3}), (3.0, {"float": 3.0, "int": 3}),
    (2**63 - 1, {"float": float(2**63 - 1), "int": 2**63 - 1}), (2**63, {"float": 2.0**63}), (10**400, {}),
    (True, {"bool": True}), ("0.3", {"text": "0.3"}), ("", {"text": ""}), ("é写", {"text": "é写"}), (None, {}), ([1], {}),
    ({"a": 1}, {}), (float("nan"), {}),
]  # fmt: skip


def test_fields_are_columns_by_their_declared_types(tmp_path):
    declared = {name: name for name in ("float", "int", "text", "bool")}
    samples = {
        f"{i:02d}": {"jpg": jpeg(i), "txt": f"caption {i}", "json": json.dumps(dict.fromkeys(declared, value))}
        for i, (value, _) in enumerate(VALUES)
    }
    samples |= {
        "lone": {"jpg": jpeg(99), "txt": "lone", "json": '{"text": "\\ud800"}'},
        "none": {"jpg": jpeg(98), "txt": "a"},
    }
    scores = run_over(tmp_path, samples, source={"columns": declared}).table("scores").select(list(declared))
    assert scores.schema.types == [pa.float64(), pa.int64(), pa.string(), pa.bool_()]
    nothing = dict.fromkeys(declared)
    assert scores.to_pylist() == [*(nothing | expected for _, expected in VALUES), nothing | {"text": "?"}, nothing]
    with pytest.raises(RecipeError, match=r"input\.0\.columns\.a"):
        kit.recipe_of("a.tar", source={"columns": {"a": "double"}})


def test_captions_and_fields_of_too_many_bytes(tmp_path, monkeypatch):
    """A tar's captions are in memory together, so too long ones are cut, also in json."""
    samples = {"a": {"jpg": jpeg(), "json": {"caption": "é" * 100_000, "note": "n" * 50_000}}}
    samples["b"] = {"jpg": jpeg(1), "json": {"caption": "b c d"}}
    assert run_over(tmp_path, samples).by_key == {"a": "caption_too_long", "b": "kept"}
    monkeypatch.setattr("curate.pool.formats.webdataset._TEXT_BYTES", 100_000)
    [failure] = run_over(tmp_path, samples).table("failures").to_pylist()
    assert (failure["reason"], failure["detail"]) == (
        "unreadable", "its captions and fields have more than 100,000 bytes; accepted: at most that",
    )  # fmt: skip
