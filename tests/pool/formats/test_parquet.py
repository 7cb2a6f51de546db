"""Parquet sources: tables match the schemas, and each row matches the file, whatever the types."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.base import schema
from curate.base.errors import RecipeError
from curate.pool.formats import parquet
from curate.pool.plan import make_plan
from curate.read.text import caption_status
from tests import kit

UID = "0123456789abcdef" * 2


def run_over(folder, *tables, group=None, **sections):
    """A run over a folder of files, one for each table; its tables match the schemas and each other."""
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i:02d}.parquet", row_group_size=group)
    out = folder / f"run{len(list(folder.iterdir()))}"
    ran = kit.run_local(kit.recipe_of(f"{folder}/*.parquet", "parquet", **sections), out)
    kit.conserved(ran)
    table = ran.table("samples")
    assert table.schema.remove_metadata() == schema.SAMPLES
    if (out / "tables/scores").exists():
        scores = ran.table("scores", ["unit", "row", "uid"])
        assert scores.to_pydict() == table.select(scores.column_names).to_pydict()
    return ran


def measured(folder, *tables, **options):
    """A run's samples: a list for each column."""
    return run_over(folder, *tables, **options).table("samples").to_pydict()


def jpeg(color=0, size=(40, 30), format="JPEG"):
    return kit.encode(Image.new("RGB", size, (color, 100, 200)), format)


# ---- rows


def test_row_i_is_the_ith_row(tmp_path):
    first = pa.table({"caption": [f"a {i}" for i in range(10)], "url": [f"http://x/{i}" for i in range(10)]})
    second = pa.table({"text": [f"b {i}" for i in range(7)], "URL": [f"http://y/{i}" for i in range(7)]})
    found = measured(tmp_path, first, second, group=3)
    assert found["caption"] == [f"a {i}" for i in range(10)] + [f"b {i}" for i in range(7)]
    assert found["url"] == [f"http://x/{i}" for i in range(10)] + [f"http://y/{i}" for i in range(7)]
    assert found["shard"] == [f"{tmp_path}/00.parquet"] * 10 + [f"{tmp_path}/01.parquet"] * 7
    assert set(found["source"]) == {"pool"} and set(found["status"]) == {"ok"}
    assert found["words"] == [2] * 17 and found["characters"] == [3] * 17
    for name in ("key", "language", "width", "height", "bytes", "format", "sha256", "phash", "offset"):
        assert found[name] == [None] * 17, name


def test_a_row_group_has_a_limit_of_rows(tmp_path, monkeypatch):
    """The limit itself passes; the group after it fails, and costs no other group."""
    monkeypatch.setattr(parquet, "_MAX_ROWS", 4)
    ran = run_over(tmp_path, pa.table({"caption": list("abcd")}), pa.table({"caption": list("efghijkl")}), group=5)
    [failure] = ran.table("failures").to_pylist()
    assert failure["shard"] == f"{tmp_path}/01.parquet" and failure["reason"] == "damaged_row_group"
    assert "5 rows; accepted: row groups of at most 4" in failure["detail"]
    assert ran.counts == {"kept": 7}


@pytest.mark.thorough
def test_many_row_groups_of_few_rows_are_parts_together(tmp_path):
    """Each part takes a millisecond or more."""
    table = pa.table({"url": [f"http://a/{i}" for i in range(1200)], "caption": [f"caption {i}" for i in range(1200)]})
    uids = []
    for name, rows in (("one", 1), ("all", 1200)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=rows)
        recipe = kit.recipe_of(str(tmp_path / f"{name}.parquet"), "parquet")
        parts = [part for unit in make_plan(recipe).units for part in unit.parts]
        assert [part.rows for part in parts] == ([1000, 200] if rows == 1 else [1200])
        uids.append(kit.run_local(recipe, tmp_path / name).table("samples", ["uid"])["uid"].to_pylist())
    assert uids[0] == uids[1]


# ---- captions

NAUGHTY = [None, "", " \t\u3000", "a\0b", "x" * 10_001, "\ufeffa word", "fine caption", "é" * 10_000, "a\nb\r\n"]


def test_captions_of_every_type(tmp_path):
    """One file for each type; texts that are no UTF-8 fail, and so do files without captions, row groups or rows."""
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()]
    texts = pa.array(NAUGHTY, pa.string())
    raw = pa.array([b"caf\xe9 au lait", b"good", b"\xed\xa0\x80"], pa.binary())
    arrays = [*(texts.cast(kind) for kind in kinds), texts.dictionary_encode(), pa.nulls(3), raw]
    arrays += [pa.Array.from_buffers(pa.string(), 3, raw.buffers()), pa.array([], pa.string())]
    pq.ParquetWriter(tmp_path / "without_groups.parquet", pa.schema([("caption", pa.string())])).close()
    found = measured(tmp_path, *(pa.table({"caption": array}) for array in arrays))
    expected = [(None, "no_caption") if text is None else caption_status(text.encode())[:2] for text in NAUGHTY] * 6
    size = len(expected)
    assert list(zip(found["caption"][:size], found["status"][:size], strict=True)) == expected
    assert found["words"][:size] == [text and len(text.split()) for text, _ in expected]
    assert found["status"][size:] == ["no_caption"] * 3 + ["caption_not_utf8", "ok", "caption_not_utf8"] * 2


# ---- uids and urls

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6).filter(str.strip)
owns = st.sampled_from([None, UID, UID.upper(), UID[:-1], "", "z" * 32])


@settings(max_examples=6)
@given(st.lists(st.tuples(owns, st.none() | texts, texts), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_uids_by_a_naive_recomputation(tmp_path_factory, rows, with_own, with_url):
    columns = {"caption": pa.array([row[2] for row in rows])}
    if with_own:
        columns["uid"] = pa.array([row[0] for row in rows], pa.string())
    if with_url:
        columns["url"] = pa.array([row[1] for row in rows], pa.string())
    expected = []
    for own, url, text in rows:
        caption = text.removeprefix("\ufeff")
        if with_own and own in (UID, UID.upper()):
            expected.append(UID)  # by which a row that has no URL is found too
        elif with_url and not url:
            expected.append(None)  # no_url: nothing to download
        else:
            expected.append(xxhash.xxh3_128_hexdigest(f"{url if with_url else ''}\0{caption}".encode()))
    assert measured(tmp_path_factory.mktemp("pool"), pa.table(columns))["uid"] == expected


def test_missing_urls(tmp_path):
    """A URL that is null, empty, or no UTF-8 is a failure, unless the file has images: then their digests make the uids."""
    raw = pa.array([b"http://a", None, b"", b"http://\xff"], pa.binary())
    table = pa.table({"caption": ["a", "b", "c", "d"], "url": pa.Array.from_buffers(pa.string(), 4, raw.buffers())})
    found = measured(tmp_path, table)
    assert found["url"][::3] == ["http://a", None] and found["status"] == ["ok", "no_url", "no_url", "no_url"]
    found = measured(tmp_path, table.append_column("image", pa.array([jpeg(), jpeg(), jpeg(1), jpeg()])))
    assert found["status"] == ["ok"] * 4
    names = zip(["http://a", *found["sha256"][1:]], "abcd", strict=True)
    assert found["uid"] == [xxhash.xxh3_128_hexdigest(f"{part}\0{text}".encode()) for part, text in names]


# ---- sizes, language, scores


def test_sizes(tmp_path):
    widths = pa.array([640, None, -1, 2**31 - 1, 2**31, 0], pa.int64())
    heights = pa.array([1.9, float("nan"), float("inf"), -0.5, 3e9, None], pa.float64())
    table = pa.table({"caption": list("abcdef"), "WIDTH": widths, "HEIGHT": heights})
    ran = run_over(tmp_path, table, rules={"wide": "width > 600"})
    assert ran.table("samples")["width"].to_pylist() == [640, None, None, 2**31 - 1, None, 0]
    assert ran.table("samples")["height"].to_pylist() == [1, None, None, None, None, None]
    assert ran.counts == {"kept": 2, "wide": 4}
    found = measured(tmp_path, pa.table({"caption": ["a"], "width": [7], "height": [7], "image": [jpeg()]}))
    assert (found["width"], found["height"]) == ([40], [30])  # measured


def test_language_comes_from_a_column_or_is_measured(tmp_path):
    table = pa.table({"caption": ["ein kleiner Hund auf der Wiese", None], "LANGUAGE": ["xx", "yy"]})
    assert measured(tmp_path, table)["language"] == ["xx", "yy"]
    ran = run_over(tmp_path, table, measure={"language": {}})
    assert ran.table("samples")["language"].to_pylist() == ["de", None]
    [best, none] = ran.table("scores")["language_score"].to_pylist()
    assert 0.5 < best <= 1.001 and none is None


def test_a_score_named_like_a_signal_is_refused(tmp_path):
    table = pa.table({"caption": ["a"], "language_score": [0.5]})
    run_over(tmp_path, table)
    with pytest.raises(RecipeError, match=r"language_score.*columns\.scores"):
        run_over(tmp_path, table, measure={"language": {}})


# ---- images


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face's datasets write images


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT])
def test_images_in_a_column(tmp_path, kind):
    images = [jpeg(1), None, b"", b"no image", jpeg(2, format="PNG"), jpeg(3)[:-400], jpeg(4)]
    values = [{"bytes": image, "path": "x.jpg"} for image in images] if kind == STRUCT else images
    table = pa.table({"caption": ["a", "b", "c", "d", "e", "f", None], "image": pa.array(values, kind)})
    found = measured(tmp_path, table, group=3)
    assert found["status"] == [
        "ok", "no_image", "empty_image", "not_an_image", "ok", "truncated_image", "no_caption",
    ]  # fmt: skip
    assert found["bytes"] == [image if image is None else len(image) for image in images]
    sizes = [found[name][row] for row in (0, 4) for name in ("format", "width", "height")]
    assert sizes == ["jpeg", 40, 30, "png", 40, 30]
    assert found["offset"] == found["phash"] == [None] * len(images)


def test_img2datasets_parquet_output_says_what_was_not_fetched(tmp_path):
    """From `status` and `error_message` for rows without an image; unknown statuses remain no_image."""
    rows = [
        (jpeg(1), "success", None), (None, "failed_to_download", "HTTP Error 404: Not Found"),
        (None, "failed_to_resize", None), (None, "success", None), (None, None, None),
        (jpeg(2), "failed_to_download", "and yet it is here"),
    ]  # fmt: skip
    kinds = (pa.binary(), pa.string(), pa.string())
    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    table = pa.table([pa.array(["a caption"] * len(rows)), *arrays], ["caption", "jpg", "status", "error_message"])
    found = measured(tmp_path, table)
    assert found["status"] == ["ok", "missing_sample", "missing_sample", "no_image", "no_image", "ok"]
    assert found["error"][:3] == [None, "failed_to_download: HTTP Error 404: Not Found", "failed_to_resize"]
    found = measured(tmp_path, table.drop(["error_message"]))
    assert found["status"] == ["ok", "no_image", "no_image", "no_image", "no_image", "ok"]


# ---- files


def test_damage_costs_a_file_or_a_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    for name, group in (("05", 1000), ("06", 3000)):
        path = tmp_path / f"{name}.parquet"
        table = pa.table({"caption": [f"{i} word" for i in range(3000)]})
        pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=group)
        footer, data = pq.read_metadata(path), bytearray(path.read_bytes())
        start = footer.row_group(footer.num_row_groups // 2).column(0).data_page_offset
        data[start : start + 56] = b"\xff" * 56  # the header of a page
        path.write_bytes(data)
    (tmp_path / "07.parquet").write_bytes(b"")
    (tmp_path / "08.parquet").write_bytes(b"nothing")
    ran = run_over(tmp_path, pa.table({"caption": ["a", "b"]}))
    assert {name: reason for (name, _), reason in ran.reasons.items()} == {
        "05.parquet": "damaged_row_group", "06.parquet": "not_parquet",  # though Arrow has an OSError for it
        "07.parquet": "empty_file", "08.parquet": "not_parquet",
    }  # fmt: skip
    assert ran.counts == {"kept": 2002} and ran.table("samples")["caption"].to_pylist()[:2] == ["a", "b"]
