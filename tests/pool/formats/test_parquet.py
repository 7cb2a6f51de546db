"""Parquet sources: tables match the schemas, and each row matches the file, whatever the types."""

import gzip
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.base import schema
from curate.base.errors import RecipeError
from curate.decide.settings import DecideSettings
from curate.measure.settings import MeasureSettings
from curate.pool.formats import parquet
from curate.pool.plan import make_plan
from curate.read.text import caption_status
from curate.recipe.recipe import parse_recipe
from curate.run.columns import check_columns
from curate.run.context import RunContext
from curate.signals.registry import find_signals, identify_models
from curate.store.store import RunStore
from tests import kit

UID = "0123456789abcdef" * 2


def measure(folder, *tables, group=None, columns=None, **recipe):
    """Write each table as a file, and measure all units."""
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i:02d}.parquet", row_group_size=group)
    source = {"name": "pool", "format": "parquet", "path": f"{folder}/*.parquet", "columns": columns or {}}
    checked = parse_recipe({"input": source, **recipe})
    plan = make_plan(checked)
    models = identify_models(checked.measure, plan.pool.embeddings)
    context = RunContext(checked, plan.pool, RunStore(str(folder / "run")), models=models)
    for unit in plan.units:
        assert kit.measure(context, unit) == []
    return context, plan


def samples(context, plan):
    """All samples, after checking that each unit's tables match the schemas and each other."""
    tables = []
    for unit in plan.units:
        table = context.unit_tables(unit).read("samples")
        assert table.schema.remove_metadata() == schema.SAMPLES
        assert table["unit"].to_pylist() == [unit.index] * len(table)
        assert table["row"].to_pylist() == list(range(len(table)))
        readable = [status == "ok" for status in table["status"].to_pylist()]
        uids = table["uid"].to_pylist()
        assert all(uid is not None or not ok for uid, ok in zip(uids, readable, strict=True))
        assert [error is None for error in table["error"].to_pylist()] == readable or not all(readable)
        assert sum(context.unit_tables(unit).note("samples")["rows"]) == len(table)
        settings = MeasureSettings.of(context)
        if "scores" in settings.tables:
            scores = context.unit_tables(unit).read("scores")
            assert scores.schema.remove_metadata() == settings.score_schema
            assert scores.select(["unit", "row", "uid"]).equals(
                table.select(["unit", "row", "uid"]).replace_schema_metadata(scores.schema.metadata)
            )
        tables.append(table)
    return pa.concat_tables(tables)


def column(context, plan, name):
    return samples(context, plan)[name].to_pylist()


def score(context, plan, name):
    return [value for unit in plan.units for value in context.unit_tables(unit).read("scores")[name].to_pylist()]


def jpeg(colour=0, size=(40, 30), format="JPEG"):
    return kit.encode(Image.new("RGB", size, (colour, 100, 200)), format)


# ---- rows


def test_row_i_is_the_ith_row(tmp_path):
    first = pa.table({"caption": [f"a {i}" for i in range(10)], "url": [f"http://x/{i}" for i in range(10)]})
    second = pa.table({"text": [f"b {i}" for i in range(7)], "URL": [f"http://y/{i}" for i in range(7)]})
    context, plan = measure(tmp_path, first, second, group=3)
    found = samples(context, plan)
    assert found["caption"].to_pylist() == [f"a {i}" for i in range(10)] + [f"b {i}" for i in range(7)]
    assert found["url"].to_pylist() == [f"http://x/{i}" for i in range(10)] + [f"http://y/{i}" for i in range(7)]
    assert found["shard"].to_pylist() == [f"{tmp_path}/00.parquet"] * 10 + [f"{tmp_path}/01.parquet"] * 7
    assert set(found["source"].to_pylist()) == {"pool"} and set(found["status"].to_pylist()) == {"ok"}
    assert found["words"].to_pylist() == [2] * 17 and found["characters"].to_pylist() == [3] * 17
    for name in ("key", "language", "width", "height", "bytes", "format", "sha256", "phash", "offset"):
        assert found[name].null_count == 17, name


def test_a_row_group_has_a_limit_of_rows(tmp_path, monkeypatch):
    """The limit itself passes; the group after it fails, and costs no other group."""
    monkeypatch.setattr(parquet, "_MAX_ROWS", 4)
    pq.write_table(pa.table({"caption": list("abcd")}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"caption": list("abcdefgh")}), tmp_path / "b.parquet", row_group_size=5)
    ran = kit.run_local(kit.recipe_of(f"{tmp_path}/*.parquet", "parquet"), tmp_path / "run")
    [failure] = ran.table("failures").to_pylist()
    assert failure["shard"] == f"{tmp_path}/b.parquet" and failure["reason"] == "damaged_row_group"
    assert "5 rows; accepted: row groups of at most 4" in failure["detail"]
    assert ran.counts == {"kept": 7}


def test_row_groups_in_several_units(tmp_path, monkeypatch):
    monkeypatch.setattr("curate.pool.plan.UNIT_ROWS", (4, 4))
    captions = [f"caption {i}" for i in range(23)]
    context, plan = measure(tmp_path, pa.table({"caption": captions, "s": np.arange(23.0)}), group=2)
    assert len(plan.units) == 6
    assert column(context, plan, "caption") == captions
    assert score(context, plan, "s") == list(range(23))


@pytest.mark.thorough
def test_many_row_groups_of_few_rows_are_parts_together(tmp_path):
    """Each part takes a millisecond or more."""
    table = pa.table({"url": [f"http://a/{i}" for i in range(2500)], "caption": [f"caption {i}" for i in range(2500)]})
    uids = []
    for name, rows in (("one", 1), ("all", 2500)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=rows)
        recipe = kit.recipe_of(str(tmp_path / f"{name}.parquet"), "parquet")
        parts = [part for unit in make_plan(recipe).units for part in unit.parts]
        assert [part.rows for part in parts] == ([1000, 1000, 500] if rows == 1 else [2500])
        uids.append(kit.run_local(recipe, tmp_path / name).table("samples", ["uid"])["uid"].to_pylist())
    assert uids[0] == uids[1]


def test_the_columns_of_datacomp(tmp_path):
    table = pa.table(
        {
            "uid": [UID, "F" * 32], "url": ["http://a", "http://b"], "text": ["one cat", "two cats"],
            "original_width": [640, 100], "original_height": [480, 100],
            "clip_b32_similarity_score": pa.array([0.25, None], pa.float32()),
        }
    )  # fmt: skip
    context, plan = measure(tmp_path, table)
    found = samples(context, plan).select(["uid", "url", "caption", "width", "height"]).to_pylist()
    assert found == [
        {"uid": UID, "url": "http://a", "caption": "one cat", "width": 640, "height": 480},
        {"uid": "f" * 32, "url": "http://b", "caption": "two cats", "width": 100, "height": 100},
    ]
    assert score(context, plan, "clip_b32_similarity_score") == [0.25, None]


# ---- captions

NAUGHTY = [None, "", " \t\u3000", "a\0b", "x" * 10_001, "\ufeffa word", "fine caption", "é" * 10_000, "a\nb\r\n"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view(), "dictionary"]
)
def test_captions_of_every_type(tmp_path, kind):
    texts = pa.array(NAUGHTY, pa.string())
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)
    context, plan = measure(tmp_path, pa.table({"caption": texts}))
    found = samples(context, plan)
    expected = [(None, "no_caption") if text is None else caption_status(text.encode())[:2] for text in NAUGHTY]
    assert list(zip(found["caption"].to_pylist(), found["status"].to_pylist(), strict=True)) == expected
    assert found["words"].to_pylist() == [text and len(text.split()) for text, _ in expected]


def test_bytes_that_are_no_utf8(tmp_path):
    raw = pa.array([b"caf\xe9 au lait", b"good", b"\xed\xa0\x80"], pa.binary())
    as_text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    for kind, texts in (("b", raw), ("s", as_text)):
        (tmp_path / kind).mkdir()
        context, plan = measure(tmp_path / kind, pa.table({"caption": texts, "url": texts}))
        assert column(context, plan, "status") == ["caption_not_utf8", "ok", "caption_not_utf8"]


def test_a_column_of_nulls(tmp_path):
    context, plan = measure(tmp_path, pa.table({"caption": pa.nulls(3)}))
    assert column(context, plan, "status") == ["no_caption"] * 3


def test_no_rows(tmp_path):
    context, plan = measure(tmp_path, pa.table({"caption": pa.array([], pa.string()), "s": pa.array([], pa.float32())}))
    assert len(samples(context, plan)) == 0
    writer = pq.ParquetWriter(tmp_path / "00.parquet", pa.schema([("caption", pa.string())]))
    writer.close()
    assert pq.read_metadata(tmp_path / "00.parquet").num_row_groups == 0
    context, plan = measure(tmp_path)
    assert len(samples(context, plan)) == 0 and len(plan.units) == 1


# ---- uids and urls

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6).filter(str.strip)
owns = st.sampled_from([None, UID, UID.upper(), UID[:-1], "", "z" * 32])


@settings(max_examples=25)
@given(st.lists(st.tuples(owns, st.none() | texts, texts), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_uids_by_a_naive_recomputation(tmp_path_factory, rows, with_own, with_url):
    columns = {"caption": pa.array([row[2] for row in rows])}
    if with_own:
        columns["uid"] = pa.array([row[0] for row in rows], pa.string())
    if with_url:
        columns["url"] = pa.array([row[1] for row in rows], pa.string())
    context, plan = measure(tmp_path_factory.mktemp("pool"), pa.table(columns))
    expected = []
    for own, url, text in rows:
        caption = text.removeprefix("\ufeff")
        if with_own and own in (UID, UID.upper()):
            expected.append(UID)  # by which a row that has no URL is found too
        elif with_url and not url:
            expected.append(None)  # no_url: nothing to download
        else:
            expected.append(xxhash.xxh3_128_hexdigest(f"{url if with_url else ''}\0{caption}".encode()))
    assert column(context, plan, "uid") == expected


def test_null_and_empty_urls(tmp_path):
    context, plan = measure(tmp_path, pa.table({"caption": ["a", "b", "c", None], "url": ["http://a", None, "", None]}))
    assert column(context, plan, "status") == ["ok", "no_url", "no_url", "no_caption"]


def test_a_url_that_is_no_utf8_is_none(tmp_path):
    raw = pa.array([b"http://\xff", b"http://x"], pa.binary())
    url = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    context, plan = measure(tmp_path, pa.table({"caption": ["a", "b"], "url": url}))
    assert column(context, plan, "url") == [None, "http://x"]
    assert column(context, plan, "status") == ["no_url", "ok"]


def test_with_images_a_url_may_be_missing(tmp_path):
    images = [jpeg(), jpeg(), jpeg(1)]
    table = pa.table({"caption": ["a", "a", "a"], "url": ["http://a", None, ""], "image": images})
    context, plan = measure(tmp_path, table)
    found = samples(context, plan)
    assert found["status"].to_pylist() == ["ok"] * 3
    digests = found["sha256"].to_pylist()
    assert found["uid"].to_pylist() == [
        xxhash.xxh3_128_hexdigest(b"http://a\0a"),
        xxhash.xxh3_128_hexdigest(f"{digests[1]}\0a".encode()),
        xxhash.xxh3_128_hexdigest(f"{digests[2]}\0a".encode()),
    ]


# ---- sizes, language, scores


def test_sizes(tmp_path):
    widths = pa.array([640, None, -1, 2**31 - 1, 2**31, 0], pa.int64())
    heights = pa.array([1.9, float("nan"), float("inf"), -0.5, 3e9, None], pa.float64())
    context, plan = measure(tmp_path, pa.table({"caption": list("abcdef"), "WIDTH": widths, "HEIGHT": heights}))
    assert column(context, plan, "width") == [640, None, None, 2**31 - 1, None, 0]
    assert column(context, plan, "height") == [1, None, None, None, None, None]
    assert "width" in DecideSettings.of(context).columns.names


def test_sizes_of_a_pool_with_images_are_measured(tmp_path):
    context, plan = measure(tmp_path, pa.table({"caption": ["a"], "width": [7], "height": [7], "image": [jpeg()]}))
    assert (column(context, plan, "width"), column(context, plan, "height")) == ([40], [30])


def test_language_comes_from_a_column_or_is_measured(tmp_path):
    table = pa.table({"caption": ["ein kleiner Hund auf der Wiese", None], "LANGUAGE": ["xx", "yy"]})
    context, plan = measure(tmp_path, table)
    assert column(context, plan, "language") == ["xx", "yy"]
    context, plan = measure(tmp_path, table, measure={"language": {}})
    assert column(context, plan, "language") == ["de", None]
    [best, none] = score(context, plan, "language_score")
    assert 0.5 < best <= 1.001 and none is None


def test_scores(tmp_path):
    nan = float("nan")
    table = pa.table(
        {
            "caption": ["a", "b", "c", None],
            "double": [0.1, nan, None, 0.4],
            "single": pa.array([0.1, nan, None, float("inf")], pa.float32()),
            "half": pa.array([0.5, nan, None, 1], pa.float16()),
            "count": [1, 2, None, 2**53 + 1],
            "safe": [True, None, False, True],
            "NSFW": ["UNLIKELY", None, "NSFW", ""],
        }
    )
    context, plan = measure(
        tmp_path, table, columns={"scores": ["double", "single", "half", "count", "safe", "NSFW"]},
        rules={"all": "double > 0 or single > 0 or half > 0 or count > 0 or safe or nsfw = 'NSFW'"},
    )  # fmt: skip
    assert DecideSettings.of(context).segments[0].rules[0].columns == (
        "double", "single", "half", "count", "safe", "NSFW",
    )  # fmt: skip
    assert score(context, plan, "double") == [0.1, None, None, 0.4]
    assert score(context, plan, "single") == [np.float32(0.1), None, None, float("inf")]
    assert score(context, plan, "half") == [0.5, None, None, 1]
    assert score(context, plan, "count") == [1, 2, None, 2**53 + 1]
    assert score(context, plan, "safe") == [True, None, False, True]
    assert score(context, plan, "NSFW") == ["UNLIKELY", None, "NSFW", ""]


def test_scores_of_two_types_and_of_some_files(tmp_path):
    context, plan = measure(
        tmp_path,
        pa.table({"caption": ["a", "b"], "s": pa.array([0.1, 0.2], pa.float32())}),
        pa.table({"caption": ["c"], "s": pa.array([0.3], pa.float64()), "more": [1.5]}),
        pa.table({"caption": ["d"]}),
    )
    assert score(context, plan, "s") == [float(np.float32(0.1)), float(np.float32(0.2)), 0.3, None]
    assert score(context, plan, "more") == [None, None, 1.5, None]


def test_a_score_named_like_a_signal_is_refused(tmp_path):
    table = pa.table({"caption": ["a"], "language_score": [0.5]})
    context, _ = measure(tmp_path, table)
    check_columns(context.recipe, context.pool, ())
    asked = parse_recipe({**context.recipe.model_dump(), "measure": {"language": {}}})
    signals = find_signals(asked.measure, identify_models(asked.measure, {}))
    with pytest.raises(RecipeError, match=r"language_score.*columns\.scores"):
        check_columns(asked, context.pool, signals)


# ---- images


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_images_in_a_column(tmp_path, kind):
    images = [jpeg(1), None, b"", b"no image", jpeg(2, format="PNG"), jpeg(3)[:-400], jpeg(4)]
    captions = ["a", "b", "c", "d", "e", "f", None]
    if kind == "struct":  # as Hugging Face's datasets write images
        column_ = pa.array(
            [image if image is None else {"bytes": image, "path": "x.jpg"} for image in images],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    else:
        column_ = pa.array(images, pa.binary() if kind == "binary" else pa.large_binary())
    context, plan = measure(tmp_path, pa.table({"caption": captions, "image": column_}), group=3)
    found = samples(context, plan)
    assert found["status"].to_pylist() == [
        "ok", "no_image", "empty_image", "not_an_image", "ok", "truncated_image", "no_caption",
    ]  # fmt: skip
    assert found["bytes"].to_pylist() == [image if image is None else len(image) for image in images]
    assert found["format"].to_pylist()[0] == "jpeg" and found["format"].to_pylist()[4] == "png"
    assert found["width"].to_pylist()[0] == 40 and found["height"].to_pylist()[4] == 30
    assert found["offset"].null_count == len(images) and found["phash"].null_count == len(images)


def test_a_struct_with_null_bytes_is_no_image(tmp_path):
    images = pa.array([{"bytes": None, "path": "x"}, {"bytes": jpeg(), "path": None}])
    context, plan = measure(
        tmp_path, pa.table({"caption": ["a", "b"], "image": images}), measure={"image": {"phash": True}}
    )
    found = samples(context, plan)
    assert found["status"].to_pylist() == ["no_image", "ok"]
    assert found["phash"].null_count == 1


def test_img2datasets_parquet_output_says_what_was_not_fetched(tmp_path):
    """From `status` and `error_message` for rows without an image; unknown statuses remain no_image."""
    rows = [
        (jpeg(1), "success", None),
        (None, "failed_to_download", "HTTP Error 404: Not Found"),
        (None, "failed_to_resize", None),
        (None, "success", None),
        (None, None, None),
        (jpeg(2), "failed_to_download", "and yet it is here"),
    ]
    images, statuses, messages = zip(*rows, strict=True)
    table = pa.table(
        {
            "caption": ["a caption"] * len(rows),
            "jpg": pa.array(images, pa.binary()),
            "status": pa.array(statuses, pa.string()),
            "error_message": pa.array(messages, pa.string()),
        }
    )
    for name in "ab":
        (tmp_path / name).mkdir()
    found = samples(*measure(tmp_path / "a", table))
    assert found["status"].to_pylist() == ["ok", "missing_sample", "missing_sample", "no_image", "no_image", "ok"]
    assert found["error"].to_pylist()[:3] == [None, "failed_to_download: HTTP Error 404: Not Found", "failed_to_resize"]
    found = samples(*measure(tmp_path / "b", table.drop(["error_message"])))
    assert found["status"].to_pylist() == ["ok", "no_image", "no_image", "no_image", "no_image", "ok"]


# ---- files


def test_a_damaged_file_is_a_failure_and_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pq.write_table(
        pa.table({"caption": [f"{i} word" for i in range(1000)]}),
        tmp_path / "05.parquet",
        compression="none",
        use_dictionary=False,
    )
    data = bytearray((tmp_path / "05.parquet").read_bytes())
    data[4:60] = b"\xff" * 56  # the header of the first page
    (tmp_path / "05.parquet").write_bytes(data)
    (tmp_path / "06.parquet").write_bytes(b"")
    (tmp_path / "07.parquet").write_bytes(b"nothing")
    context, plan = measure(tmp_path, pa.table({"caption": ["a", "b"]}))
    assert column(context, plan, "caption") == ["a", "b"]
    notes = [context.unit_tables(unit).note("samples") for unit in plan.units]
    failures = {Path(path).name: reason for note in notes for path, reason, _ in note["failures"]}
    assert list(failures) == ["05.parquet", "06.parquet", "07.parquet"]
    assert failures["05.parquet"] == "not_parquet"  # though Arrow has an OSError for it
    assert (failures["06.parquet"], failures["07.parquet"]) == ("empty_file", "not_parquet")
    assert [rows for note in notes for rows in note["rows"]] == [2, 0, 0, 0]


def test_a_damaged_row_group_costs_no_other(tmp_path):
    table = pa.table({"caption": [f"{i} word" for i in range(3000)]})
    path = tmp_path / "05.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=1000)
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 56] = b"\xff" * 56
    path.write_bytes(data)
    context, plan = measure(tmp_path, pa.table({"caption": ["a", "b"]}))
    assert [caption for caption in column(context, plan, "caption") if caption[0] in "ab"] == ["a", "b"]
    notes = [context.unit_tables(unit).note("samples") for unit in plan.units]
    assert [reason for note in notes for _, reason, _ in note["failures"]] == ["damaged_row_group"]
    assert sum(rows for note in notes for rows in note["rows"]) == 2002


def test_a_file_that_is_gone_is_measured_again_next_time(tmp_path):
    path = tmp_path / "00.parquet"
    pq.write_table(pa.table({"caption": ["a"]}), path)
    recipe = parse_recipe({"input": {"name": "pool", "format": "parquet", "path": str(path)}})
    plan = make_plan(recipe)
    context = RunContext(recipe, plan.pool, RunStore(str(tmp_path / "run")))
    path.rename(tmp_path / "elsewhere")
    kit.measure(context, plan.units[0])
    assert context.unit_tables(plan.units[0]).note("samples")["failures"][0][1] == "unreadable"
    assert len(context.unit_tables(plan.units[0]).read("samples")) == 0
    (tmp_path / "elsewhere").rename(path)
    kit.measure(context, plan.units[0])
    assert not column(context, plan, "caption")  # an engine tries a unit again that it has done
    context.store.delete("tmp")  # as the next start of the run does
    kit.measure(context, plan.units[0])
    assert column(context, plan, "caption") == ["a"]


def test_measured_units_are_not_measured_again(tmp_path):
    context, plan = measure(tmp_path, pa.table({"caption": ["a"], "s": [0.5]}))
    before = {name: context.store.read_bytes(name) for name in context.store.files("tables")}
    assert sorted(before) == ["tables/samples/00000.parquet", "tables/scores/00000.parquet"]
    (tmp_path / "00.parquet").unlink()
    kit.measure(context, plan.units[0])
    assert {name: context.store.read_bytes(name) for name in context.store.files("tables")} == before


def test_laions_columns(shared, tmp_path):
    source = {"name": "laion", "format": "parquet", "path": str(shared / "laion_urls_10k.parquet")}
    recipe = parse_recipe({"input": source})
    plan = make_plan(recipe)
    context = RunContext(recipe, plan.pool, RunStore(str(tmp_path)))
    for unit in plan.units:
        kit.measure(context, unit)
    found, raw = samples(context, plan), pq.read_table(shared / "laion_urls_10k.parquet")
    assert len(found) == len(raw)
    names = {name.lower(): name for name in raw.column_names}
    caption = next(names[name] for name in ("caption", "text", "alt_text") if name in names)
    ok = found["status"].to_pylist()
    assert ok.count("ok") > 0.99 * len(raw)
    for mine, theirs, status in zip(found["caption"].to_pylist(), raw[caption].to_pylist(), ok, strict=True):
        assert status != "ok" or mine == theirs


def test_a_list_that_is_no_parquet_is_refused_with_what_reads_it(tmp_path):
    path = tmp_path / "list.tsv.gz"
    path.write_bytes(gzip.compress(b"url\tcaption\nhttps://example.com/1.jpg\ta dog\n"))
    recipe = parse_recipe({"input": [{"name": "list", "format": "parquet", "path": str(path)}]})
    with pytest.raises(RecipeError, match=r"list\.tsv\.gz.*is read by format: urls; curate init"):
        make_plan(recipe)


def test_footer_is_not_kept_for_a_file_that_came_between(tmp_path, monkeypatch):
    path, other = str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")
    pq.write_table(pa.table({"n": [1]}), path)
    pq.write_table(pa.table({"n": [1, 2, 3]}), other)
    os_file = pa.OSFile

    def replaced_once_open(name, mode):
        opened = os_file(name, mode)
        if os.path.exists(other):
            os.replace(other, name)
        return opened

    monkeypatch.setattr(parquet.pa, "OSFile", replaced_once_open)
    source, part = SimpleNamespace(storage={}), SimpleNamespace(path=path)
    rows = []
    for _ in range(2):
        with parquet._opened(source, part) as (_, footer):
            rows.append(footer.num_rows)
    assert rows == [1, 3]
