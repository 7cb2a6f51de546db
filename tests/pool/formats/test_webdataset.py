"""Tars: one row per sample, captions and uids from the right source, and members at their offsets."""

import hashlib
import json
import os
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
import xxhash
from PIL import Image

from curate.base import schema
from curate.base.errors import RecipeError
from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.pool.plan import make_plan
from curate.read.json_fields import read_json
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from tests import kit

UID = "0123456789abcdef" * 2


def jpeg(colour=0, size=(40, 30), format="JPEG"):
    return kit.encode(Image.new("RGB", size, (colour, 100, 200)), format)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            kit.add_member(tar, name, text.encode() if isinstance(text, str) else text)
    return path


def measure(path, caption_key="caption", **recipe):
    where = f"{path}/*.tar" if isinstance(path, Path) and path.is_dir() else str(path)
    source = {"name": "pool", "format": "webdataset", "path": where, "caption_key": caption_key}
    checked = parse_recipe({"input": source, **recipe})
    plan = make_plan(checked)
    folder = RunStore(f"{path if isinstance(path, Path) and path.is_dir() else Path(path).parent}/run")
    context = RunContext(checked, plan.pool, folder)
    for unit in plan.units:
        kit.measure(context, unit)
    return context, plan


def samples(context, plan):
    """All samples, after checking that the units' tables match the schemas and each other."""
    tables = []
    for unit in plan.units:
        table, members = context.unit_tables(unit).read("samples"), context.unit_tables(unit).read("members")
        assert table.schema.remove_metadata() == schema.SAMPLES
        assert members.schema.remove_metadata() == schema.MEMBERS
        base = table.select(["unit", "row", "uid"]).to_pydict()
        assert members.select(["unit", "row", "uid"]).to_pydict() == base
        assert base["unit"] == [unit.index] * len(table) and base["row"] == list(range(len(table)))
        status = table["status"].to_pylist()
        assert set(status) <= {"ok", *schema.SAMPLE_REASONS}
        assert [uid is None for uid in base["uid"]] == [found != "ok" for found in status]
        assert sum(context.unit_tables(unit).note("samples")["rows"]) == len(table)
        tables.append(table)
    return pa.concat_tables(tables)


def measured(path, **options):
    """The rows by key."""
    rows = samples(*measure(path, **options)).to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def test_everything_of_a_sample(tmp_path):
    image = jpeg(7, (64, 32))
    path = write_tar(
        tmp_path / "a.tar",
        {"x/s.jpg": image, "x/s.txt": "zwei schöne Hunde", "x/s.json": {"url": "http://x/y"}, "x/s.cls": b"3"},
    )
    context, plan = measure(path, measure={"image": {"phash": True}})
    [row] = samples(context, plan).to_pylist()
    assert row.pop("phash") is not None
    assert row.pop("offset") == path.read_bytes().index(image)
    assert row == {
        "unit": 0, "row": 0, "uid": xxhash.xxh3_128_hexdigest("http://x/y\0zwei schöne Hunde".encode()),
        "source": "pool", "shard": str(path), "key": "x/s", "url": "http://x/y", "caption": "zwei schöne Hunde",
        "language": None, "words": 3, "characters": 17, "width": 64, "height": 32, "bytes": len(image),
        "format": "jpeg", "sha256": hashlib.sha256(image).hexdigest(), "original_sha256": None,
        "status": "ok", "error": None,
    }  # fmt: skip


def test_rows_are_in_the_order_of_the_tar_and_members_lie_where_they_say(tmp_path):
    for shard in ("a", "b"):
        members = {}
        for i in (3, 1, 2, 0):
            members |= {
                f"{shard}{i}.txt": f"caption {shard} {i}",
                f"{shard}{i}.seg.PNG": f"mask {i}",
                f"{shard}{i}.jpg": jpeg(i),
            }
        write_tar(tmp_path / f"{shard}.tar", members)
    context, plan = measure(tmp_path)
    found = samples(context, plan)
    assert found["key"].to_pylist() == [f"{shard}{i}" for shard in "ab" for i in (3, 1, 2, 0)]
    members_of = pa.concat_tables(context.unit_tables(unit).read("members") for unit in plan.units).to_pylist()
    for row, places in zip(found.to_pylist(), members_of, strict=True):
        data = Path(row["shard"]).read_bytes()
        parts = {
            suffix: data[offset : offset + size]
            for suffix, offset, size in zip(places["suffix"], places["offset"], places["size"], strict=True)
        }
        number = row["key"][1:]
        assert parts == {
            "txt": row["caption"].encode(), "seg.png": f"mask {number}".encode(), "jpg": jpeg(int(number)),
        }  # fmt: skip
        assert row["offset"] == places["offset"][places["suffix"].index("jpg")]
        assert row["bytes"] == len(parts["jpg"])


def test_captions_come_from_txt_else_from_the_configured_key(tmp_path):
    image = jpeg()
    path = write_tar(
        tmp_path / "a.tar",
        {
            "both.jpg": image, "both.txt": "of txt", "both.json": {"caption": "of json", "alt": "of alt"},
            "json.jpg": image, "json.json": {"caption": "of json", "alt": "of alt"},
            "other.jpg": image, "other.json": {"alt": "of alt"},
            "number.jpg": image, "number.json": {"caption": 5, "alt": ["x"]},
            "null.jpg": image, "null.json": {"caption": None, "alt": None},
            "empty.jpg": image, "empty.txt": "", "empty.json": {"caption": "of json", "alt": "of alt"},
        },
    )  # fmt: skip
    found = measured(path)
    assert {key: row["caption"] for key, row in found.items()} == {
        "both": "of txt", "json": "of json", "other": None, "number": None, "null": None, "empty": None,
    }  # fmt: skip
    assert {key: row["status"] for key, row in found.items()} == {
        "both": "ok", "json": "ok", "other": "no_caption", "number": "no_caption", "null": "no_caption",
        "empty": "empty_caption",
    }  # fmt: skip
    found = measured(path, caption_key="alt")
    assert [found[key]["caption"] for key in ("both", "json", "other", "number")] == [
        "of txt", "of alt", "of alt", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "caption"),
    [
        (b"caf\xe9", "caption_not_utf8", None),
        (b" \n\t", "empty_caption", None),
        (b"a\0b", "caption_nul", None),
        (b"\xef\xbb\xbfa mark", "ok", "a mark"),
        (b"x" * 10_000, "ok", "x" * 10_000),
        (b"x" * 10_001, "caption_too_long", None),
        (("é" * 40_000).encode(), "caption_too_long", None),
        (b"x" + ("é" * 40_000).encode(), "caption_too_long", None),
        (("x" * 65_535 + "é").encode(), "caption_too_long", None),
    ],
)
def test_naughty_captions(tmp_path, text, status, caption):
    [row] = measured(write_tar(tmp_path / "a.tar", {"s.txt": text, "s.jpg": jpeg()})).values()
    assert (row["status"], row["caption"]) == (status, caption)
    assert row["sha256"] is None if status != "ok" else row["sha256"]  # its image was not read


def test_lone_surrogates_in_json(tmp_path):
    raw = b'{"caption": "a \\ud800 b", "url": "http://\\ud800"}'
    path = write_tar(
        tmp_path / "a.tar", {"s.json": raw, "s.jpg": jpeg(), "t.json": raw, "t.txt": "fine", "t.jpg": jpeg()}
    )
    found = measured(path)
    assert found["s"]["status"] == "caption_not_utf8"
    assert found["t"]["status"] == "ok" and found["t"]["url"] == "http://?"


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"5", b"null", b'"text"', b"\xff", b"[" * 100_000, b'{"a": 1}x'])
def test_wrong_json(tmp_path, raw):
    fields, fault = read_json(raw)
    assert fields == {} and fault and len(fault) <= 200
    [row] = measured(write_tar(tmp_path / "a.tar", {"s.jpg": jpeg(), "s.txt": "fine", "s.json": raw})).values()
    assert row["status"] == "invalid_json" and row["error"] == fault


def test_uids(tmp_path):
    image = jpeg()
    digest = hashlib.sha256(image).hexdigest()
    url = "http://x/é"
    path = write_tar(
        tmp_path / "a.tar",
        {
            "own.jpg": image, "own.txt": "c", "own.json": {"uid": UID, "url": url},
            "upper.jpg": image, "upper.txt": "c", "upper.json": {"uid": UID.upper(), "url": url},
            "short.jpg": image, "short.txt": "c", "short.json": {"uid": UID[:-1], "url": url},
            "odd.jpg": image, "odd.txt": "c", "odd.json": {"uid": int("1" * 32), "url": url},
            "url.jpg": image, "url.txt": "c", "url.json": {"url": url},
            "empty.jpg": image, "empty.txt": "c", "empty.json": {"url": ""},
            "null.jpg": image, "null.txt": "c", "null.json": {"url": None, "uid": None},
            "list.jpg": image, "list.txt": "c", "list.json": {"url": [url]},
            "none.jpg": image, "none.txt": "c",
        },
    )  # fmt: skip
    by_url = xxhash.xxh3_128_hexdigest(f"{url}\0c".encode())
    by_image = xxhash.xxh3_128_hexdigest(f"{digest}\0c".encode())
    assert {key: row["uid"] for key, row in measured(path).items()} == {
        "own": UID, "upper": UID, "short": by_url, "odd": by_url, "url": by_url, "empty": by_image, "null": by_image,
        "list": by_image, "none": by_image,
    }  # fmt: skip


def test_uids_do_not_depend_on_decoding(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"s.jpg": jpeg(), "s.txt": "c"})
    decoded = measured(path)["s"]["uid"]
    assert measured(path, measure={"image": {"decode": False}})["s"]["uid"] == decoded


def test_images(tmp_path):
    whole = jpeg(5)
    path = write_tar(
        tmp_path / "a.tar",
        {
            "png.png": jpeg(1, format="PNG"), "png.txt": "c", "webp.webp": jpeg(1, format="WEBP"), "webp.txt": "c",
            "lies.png": whole, "lies.txt": "c", "none.txt": "c", "empty.jpg": b"", "empty.txt": "c",
            "text.jpg": b"no image", "text.txt": "c", "cut.jpg": jpeg(size=(300, 300))[:-100], "cut.txt": "c",
            "big.jpg": jpeg(size=(500, 400)), "big.txt": "c",
        },
    )  # fmt: skip
    found = measured(path, measure={"image": {"max_pixels": 100_000}})
    assert {key: (row["status"], row["format"]) for key, row in found.items() if row["status"] == "ok"} == {
        "png": ("ok", "png"), "webp": ("ok", "webp"), "lies": ("ok", "jpeg"),
    }  # fmt: skip
    assert {key: row["status"] for key, row in found.items() if row["status"] != "ok"} == {
        "none": "no_image", "empty": "empty_image", "text": "not_an_image", "cut": "truncated_image",
        "big": "too_many_pixels",
    }  # fmt: skip
    assert found["none"]["offset"] is None and found["none"]["bytes"] is None
    assert found["text"]["bytes"] == 8
    headers = measured(path, measure={"image": {"decode": False}})
    assert headers["cut"]["status"] == "ok" and headers["big"]["status"] == "ok"


def resized(path, members):
    """The message about resized images, for a source with this tar."""
    with tempfile.NamedTemporaryFile() as file, fsspec.open(str(path), "wb") as out:
        out.write(write_tar(Path(file.name), members).read_bytes())
    source = WebdatasetSource(name="pool", format="webdataset", path=str(path))
    return WebdatasetInput().resized(source, str(path))


def sizes(width, height, original_width, original_height):
    return {
        "width": width, "height": height, "original_width": original_width, "original_height": original_height,
    }  # fmt: skip


@pytest.mark.parametrize("place", ["{tmp}/a.tar", "memory://{tmp}/a.tar"])
def test_images_that_were_resized_are_noticed(tmp_path, place):
    """From the first hundred samples, if they are in the first megabytes: the rest of the tar is not read."""
    path = place.format(tmp=tmp_path)
    members = {"0.jpg": b"x" * 1000, "0.json": sizes(256, 256, 256, 256)}
    for i in range(1, 300):
        members |= {f"{i}.jpg": b"x" * (5_000 if i < 150 else 100_000), f"{i}.json": sizes(256, 256, 640, 48 * i)}
    how = "one from 640 x 48 to 256 x 256"
    columns = "declare columns: {original_width: int, original_height: int}"
    assert resized(path, members) == f"99 of its first 100 images were resized, {how} ({columns})"
    members = {f"{i}.{suffix}": value for i in range(9) for suffix, value in (
        ("jpg", b"x" * 1_500_000), ("json", sizes(9, 9, 8, 8)),
    )}  # fmt: skip
    assert resized(path, members).startswith("5 of its first 5 images were resized, one from 8 x 8 to 9 x 9")


@pytest.mark.parametrize(
    "stated",
    [
        sizes(640, 480, 640, 480), sizes(480, 640, 640, 480), sizes(None, None, None, None),  # turned by EXIF; unknown
        {"width": 256, "height": 256}, {"original_width": 640, "original_height": 480}, {}, "[1]",
        sizes(True, False, 2, 3), sizes("256", "256", "640", "480"),
    ],
)  # fmt: skip
def test_images_that_were_not_resized(tmp_path, stated):
    assert resized(tmp_path / "a.tar", {"0.jpg": b"x", "0.json": stated, "1.jpg": b"x", "1.txt": "no json"}) == ""


def test_tars_that_cannot_be_read_say_nothing_of_sizes(tmp_path):
    source = WebdatasetSource(name="pool", format="webdataset", path=f"{tmp_path}/a.tar")
    assert WebdatasetInput().resized(source, f"{tmp_path}/a.tar") == ""
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    assert WebdatasetInput().resized(source, f"{tmp_path}/a.tar") == ""


def test_many_images_stay_in_order(tmp_path):
    members = {}
    for i in range(40 * (os.cpu_count() or 1) // 2 + 40):
        members |= {f"{i:04d}.jpg": jpeg(size=(8 + i, 8)), f"{i:04d}.txt": "c"}
    found = measured(write_tar(tmp_path / "a.tar", members))
    assert [row["width"] for row in found.values()] == [8 + i for i in range(len(found))]


def test_a_cut_tar_keeps_what_is_whole(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", {f"{i}.{s}": jpeg(i) if s == "jpg" else "c" for i in range(3) for s in ("txt", "jpg")}
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(jpeg(2)) + 100])
    context, plan = measure(path)
    assert samples(context, plan)["status"].to_pylist() == ["ok", "ok", "truncated_member"]
    assert context.unit_tables(plan.units[0]).note("samples")["failures"][0][1] == "truncated_tar"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty_file"), (b"no tar" * 500, "not_a_tar"), (b"\x1f\x8b" + bytes(2000), "compressed_tar")],
)
def test_what_is_no_tar(tmp_path, data, reason):
    write_tar(tmp_path / "a.tar", {"s.jpg": jpeg(), "s.txt": "c"})
    (tmp_path / "b.tar").write_bytes(data)
    context, plan = measure(tmp_path)
    assert samples(context, plan)["key"].to_pylist() == ["s"]
    failures = [failure[:2] for unit in plan.units for failure in context.unit_tables(unit).note("samples")["failures"]]
    assert failures == [[f"{tmp_path}/b.tar", reason]]
    assert reason in schema.FILE_REASONS


def test_remote_tars(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        {f"{i}.{s}": jpeg(i) if s == "jpg" else f"caption {i}" for i in range(5) for s in ("txt", "jpg")},
    )
    local = samples(*measure(path)).drop_columns(["shard"])
    fsspec.filesystem("memory").pipe("/measure/a.tar", path.read_bytes())
    recipe = parse_recipe({"input": {"name": "pool", "format": "webdataset", "path": "memory://measure/*.tar"}})
    plan = make_plan(recipe)
    context = RunContext(recipe, plan.pool, RunStore("memory://measure/run"))
    kit.measure(context, plan.units[0])
    remote = samples(context, plan)
    assert remote.drop_columns(["shard"]).to_pylist() == local.to_pylist()
    assert remote["shard"].to_pylist() == ["memory:///measure/a.tar"] * 5


def test_measured_units_come_from_the_run_to_reuse(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"s.jpg": jpeg(), "s.txt": "c"})
    context, plan = measure(path)
    again = RunContext(context.recipe, context.pool, RunStore(str(tmp_path / "new")), reuse=context.store)
    path.unlink()
    kit.measure(again, replace(plan.units[0], reuse_index=0))
    assert again.unit_tables(plan.units[0]).read("samples").equals(context.unit_tables(plan.units[0]).read("samples"))
    other = parse_recipe({**context.recipe.model_dump(), "measure": {"image": {"phash": True}}})
    fresh = RunContext(other, context.pool, RunStore(str(tmp_path / "third")), reuse=context.store)
    kit.measure(fresh, plan.units[0])
    assert fresh.unit_tables(plan.units[0]).note("samples")["failures"][0][1] == "unreadable"


def test_photos(shared, tmp_path):
    """Each sample of a real shard, compared with tarfile."""
    recipe = parse_recipe({"input": {"name": "p", "format": "webdataset", "path": str(shared / "photos.tar")}})
    plan = make_plan(recipe)
    context = RunContext(recipe, plan.pool, RunStore(str(tmp_path)))
    kit.measure(context, plan.units[0])
    with tarfile.open(shared / "photos.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    keys = {
        name.rpartition("/")[0] + "/" * ("/" in name) + name.rpartition("/")[2].partition(".")[0] for name in content
    }
    rows = samples(context, plan).to_pylist()
    assert {row["key"] for row in rows} == keys
    for row in rows:
        if row["status"] != "ok":
            continue
        if f"{row['key']}.txt" in content:
            assert row["caption"] == content[f"{row['key']}.txt"].decode()
        digests = {
            hashlib.sha256(data).hexdigest() for name, data in content.items() if name.startswith(f"{row['key']}.")
        }
        assert row["sha256"] in digests


VALUES = [  # of the json: what each declared type makes of it, null where it is not named
    (0.25, {"float": 0.25}),
    (3, {"float": 3.0, "int": 3}),
    (3.0, {"float": 3.0, "int": 3}),
    (2**63 - 1, {"float": float(2**63 - 1), "int": 2**63 - 1}),
    (2**63, {"float": 2.0**63}),
    (10**400, {}),
    (True, {"bool": True}),
    ("0.3", {"text": "0.3"}),
    ("", {"text": ""}),
    ("é写", {"text": "é写"}),
    (None, {}),
    ([1], {}),
    ({"a": 1}, {}),
    (float("nan"), {}),
]


def test_fields_are_columns_by_their_declared_types(tmp_path):
    members = {}
    for i, (value, _) in enumerate(VALUES):
        fields = dict.fromkeys(("float", "int", "text", "bool"), value)
        members |= {f"{i:02d}.jpg": jpeg(i), f"{i:02d}.txt": f"caption {i}", f"{i:02d}.json": json.dumps(fields)}
    members |= {
        "lone.jpg": jpeg(99),
        "lone.txt": "lone",
        "lone.json": '{"text": "\\ud800"}',
        "none.jpg": jpeg(98),
        "none.txt": "a",
    }
    path = write_tar(tmp_path / "a.tar", members)
    declared = {name: name for name in ("float", "int", "text", "bool")}
    source = {"name": "pool", "format": "webdataset", "path": str(path), "columns": declared}
    recipe = parse_recipe({"input": source})
    plan = make_plan(recipe)
    context = RunContext(recipe, plan.pool, RunStore(str(tmp_path / "run")))
    assert kit.measure(context, plan.units[0]) == []
    scores = context.unit_tables(plan.units[0]).read("scores").select(list(declared))
    assert scores.schema.types == [pa.float64(), pa.int64(), pa.string(), pa.bool_()]
    nothing = dict.fromkeys(declared)
    assert scores.to_pylist() == [*(nothing | expected for _, expected in VALUES), nothing | {"text": "?"}, nothing]
    with pytest.raises(RecipeError, match=r"input\.0\.columns\.a"):
        parse_recipe({"input": source | {"columns": {"a": "double"}}})


def test_captions_and_fields_of_too_many_bytes(tmp_path, monkeypatch):
    """A tar's captions are in memory together, so too long ones are cut, also in json."""
    long = {"caption": "é" * 100_000, "note": "n" * 50_000}
    write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(), "a.json": long, "b.jpg": jpeg(1), "b.json": {"caption": "b c d"}})
    table = samples(*measure(tmp_path / "a.tar"))
    assert table["status"].to_pylist() == ["caption_too_long", "ok"]
    monkeypatch.setattr("curate.pool.formats.webdataset._TEXT_BYTES", 100_000)
    (tmp_path / "b").mkdir()
    (tmp_path / "a.tar").rename(tmp_path / "b" / "a.tar")
    context, plan = measure(tmp_path / "b" / "a.tar")
    [failure] = context.unit_tables(plan.units[0]).note("samples")["failures"]
    assert failure[1:3] == [
        "unreadable",
        "its captions and fields have more than 100,000 bytes; accepted: at most that",
    ]
