"""Runs that download lists of URLs: formats, rows, columns, and reuse of the shards."""

import re
import struct
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.publish.forget.forget import forget
from curate.publish.forget.lists import read_list
from tests.kit import encode, picture, run_local
from tests.kit.url_lists import HOSTS, NETWORK, recipe, write_list
from tests.kit.web import Web, bomb, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")


@pytest.fixture(scope="module")
def web():
    images = {str(i): encode(picture(i, 120)) for i in range(60)}
    servers = Web(images | {"a": images["0"]}, HOSTS)
    servers.robots = dict.fromkeys(servers.hosts, (200, "User-agent: *\nDisallow: /forbidden\n"))
    with running(servers):
        yield servers


def test_nothing_is_downloaded_twice(web, tmp_path):
    """Neither by a run that reuses another one, nor, from a store, by another recipe over the same list.

    A list that was moved is downloaded again, unless it is identified by content: keys of samples contain numbers of
    shards, which depend on the list's identity.
    """
    path = write_list(tmp_path / "list.csv", [web.url(f"image/{i}") for i in range(30)])
    shared = {"store": str(tmp_path / "store")}
    first = run_local(recipe(path, shared), tmp_path / "first")
    plain = [run_local(recipe(path), tmp_path / f"plain {content}", content=content) for content in (False, True)]
    asked = len(web.log)
    second = run_local(recipe(path, shared, rules={"words": "words > 3"}), tmp_path / "second")
    third = run_local(recipe(path, rules={"small": "width < 1000"}), tmp_path / "third", reuse=plain[0].folder)
    fourth = run_local(recipe(path, rules={"small": "width < 2000"}), tmp_path / "fourth", reuse=third.folder)
    moved = recipe(path.rename(tmp_path / "moved.csv"), rules={"small": "width < 1000"})
    run_local(moved, tmp_path / "fifth", reuse=plain[1].folder, content=True)
    assert len(web.log) == asked and first.kept == second.kept == third.kept == fourth.kept
    assert not (first.folder / "pool").exists() and len(list((tmp_path / "store").glob("*.tar"))) == 1
    shard = "shards/00000.tar"
    assert (fourth.folder / shard).read_bytes() == (plain[0].folder / shard).read_bytes()
    again = run_local(moved, tmp_path / "sixth", reuse=plain[0].folder)
    assert len(web.log) > asked and len(again.kept) == len(first.kept)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.tsv", "a.jsonl"])
def test_lists(web, tmp_path, name):
    urls = [web.url(f"image/{i}", i % HOSTS) for i in range(30)]
    path = write_list(tmp_path / name, urls, similarity=[i / 30 for i in range(30)])
    ran = run_local(recipe(path, {"number_sample_per_shard": 9}, rules={"near": "similarity >= 0.5"}), tmp_path / "run")
    kept = ran.table("samples").filter(ran.table("decisions")["kept"])
    assert sorted(kept["url"].to_pylist()) == sorted(urls[15:])
    assert len(list((tmp_path / "run/pool").glob("*.tar"))) == 4


def test_images_are_resized_by_img2dataset(web, tmp_path):
    """Rules use the original sizes."""
    web.images["large"] = encode(picture(70, 200))
    images = [*(f"image/{i}" for i in range(10)), "image/large"]
    path = write_list(tmp_path / "list.parquet", [web.url(name) for name in (*images, "status/404")])
    resized = recipe(path, {"image_size": 64, "resize_mode": "center_crop"}, rules={"large": "original_width >= 150"})
    ran = run_local(resized, tmp_path / "run")
    samples = ran.table("samples").to_pylist()
    assert {(row["width"], row["height"]) for row in samples} == {(64, 64), (None, None)}
    assert ran.counts == {"failed": 1, "large": 10, "kept": 1}
    widths = ran.table("scores")["original_width"]
    assert widths.null_count == 1 and sum(width < 150 for width in widths.drop_null().to_pylist()) == 10
    with pytest.raises(RecipeError, match="without image_size"):
        recipe(path, {"resize_mode": "center_crop"})


def test_no_image_takes_memory_or_time(web, tmp_path):
    """An image with 900 million pixels to resize, and EXIF whose directories refer to each other endlessly."""
    entries = b"".join(struct.pack("<HHII", (0x8769, 0x8825, 0xA005)[i % 3], 4, 1, 8) for i in range(5000))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 5000) + entries + bytes(4)
    plain = encode(picture(1, 120))
    web.images |= {
        "bomb": bomb(),
        "exif": plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:],
    }
    path = write_list(tmp_path / "list.parquet", [web.url(f"image/{name}") for name in ("bomb", "exif", "1")])
    for number, own in enumerate([{"image_size": 64}, {"image_size": 64, "max_image_area": 9000}, {}]):
        began = time.process_time()
        ran = run_local(recipe(path, own), tmp_path / f"run{number}")
        assert time.process_time() - began < 20
        sidecar = pq.read_table(next((ran.folder / "pool").glob("*.parquet"))).to_pylist()
        expected = [["too_large_area", None, None], ["too_large_area"] * 3, [None] * 3][number]
        assert [row["reason"] for row in sidecar] == expected and sidecar[1]["exif"] is None


def test_a_blocklist_and_forgetting_reach_the_shards(web, tmp_path):
    urls = [web.url(f"image/{i}") for i in range(12)] + [web.url("status/404")]
    path = write_list(tmp_path / "list.parquet", urls)
    (tmp_path / "blocked.txt").write_text(f"{urls[5]}\n")
    ran = run_local(recipe(path, blocklist=str(tmp_path / "blocked.txt")), tmp_path / "run")
    (tmp_path / "gone.txt").write_text(f"{urls[3]}\n{urls[12]}\n")
    forget(str(ran.folder), read_list(str(tmp_path / "gone.txt")))
    held = b"".join(file.read_bytes() for file in (ran.folder / "pool").iterdir())
    assert [web.images[str(i)] in held for i in (3, 4, 5)] == [False, True, False]
    assert b"number 3" not in held and str(urls[3]).encode() + b'"' not in held
    sidecar = pq.read_table(next((ran.folder / "pool").glob("*.parquet")))
    assert sidecar["url"].to_pylist() == [*urls[:3], None, urls[4], None, *urls[6:12], None]
    assert verify_run(str(ran.folder))[1] == []


def test_a_url_twice_has_two_verdicts(web, tmp_path):
    """The server refuses the first of its three requests."""
    path = write_list(tmp_path / "list.parquet", [web.url("busy/1?twice")] * 3)
    ran = run_local(recipe(path, {"network": NETWORK | {"attempts": 1}}), tmp_path / "run")
    sidecar = pq.read_table(next((tmp_path / "run/pool").glob("*.parquet"))).to_pylist()
    assert Counter((row["reason"], row["attempts"], row["may_pass"]) for row in sidecar) == {
        ("http_429", 1, True): 1,
        (None, 1, False): 2,
    }
    assert Counter(ran.table("samples")["status"].to_pylist()) == {"http_429": 1, "ok": 2}


def test_odd_rows(web, tmp_path):
    """URLs as people write them, captions as they occur, and columns with values that JSON lacks."""
    image, other = web.url("image/1"), web.url("status/404")
    odd = {  # URL → (caption, outcome)
        f" {image} ": ("spaces", "ok"), f"<{image}>": ("brackets", "ok"), f"{image}#part": ("a part", "ok"),
        f"\t{other}\n": ("nothing there", "http_404"), f"<URL:{other}>": ("nothing there", "http_404"),
        f"{image}?a#": ("no part", "ok"), f"{image}?nul": ("a \0 in it", "caption_nul"),
        f"{image}?lines": ("two\nlines\r\n", "ok"), f"{image}?long": ("long " * 4000, "caption_too_long"),
        f"{image}?empty": (" \t", "empty_caption"), f"{image}?none": (None, "no_caption"),
        f"{image}?json": ('{"a": "\\"}', "ok"), "../../etc/passwd": ("a path", "bad_url"),
        f"{image}/../../x.tar.gz": ("../../a path", "http_404"), "": ("no url", "bad_url"), None: ("no url", "bad_url"),
    }  # fmt: skip
    urls, numbers = list(odd), [float("nan"), float("inf"), *range(len(odd) - 2)]
    path = tmp_path / "list.parquet"
    texts = [caption for caption, _ in odd.values()]
    pq.write_table(pa.table({"url": urls, "caption": texts, "number": pa.array(numbers, pa.float64())}), path)
    ran = run_local(recipe(path), tmp_path / "run")
    sidecar = pq.read_table(next((tmp_path / "run/pool").glob("*.parquet")))
    assert sidecar["url"].to_pylist() == urls and sidecar["attempts"].to_pylist()[:12] == [1] * 12
    samples = ran.table("samples")
    found = Counter(zip(samples["url"].to_pylist(), samples["status"].to_pylist(), strict=True))
    assert found == Counter((url, status) for url, (_, status) in odd.items())


def test_images_that_cannot_be_decoded_are_missing(web, tmp_path):
    """The servers sent them in full; resizing is left to img2dataset."""
    png = encode(picture(4, 120), "PNG")
    web.images |= {"half": web.images["1"][:1500], "png": png[:-20] + b"\0" * 20, "cut": png[:20]}
    names = ("half", "png", "cut", "2")
    path = write_list(tmp_path / "list.parquet", [web.url(f"image/{name}") for name in names])
    ran = run_local(recipe(path, max_failed=0.0), tmp_path / "run")
    assert ran.counts == {"failed": 3, "kept": 1}
    assert Counter(ran.table("samples")["status"].to_pylist()) == {"served_no_image": 3, "ok": 1}
    failures = ran.table("failures").to_pylist()
    assert {row["reason"] for row in failures} == {"served_no_image"}
    assert all(row["attempts"] == 1 and row["may_pass"] is False and row["detail"] for row in failures)


HEADLESS = "http://a/1\ta dog\n"
REFUSED = {  # name: (file, its content, keys of the source, part of the message)
    "verified": ("a.csv", "url,caption\nx,y\n", {"verify_hash": ["md5", "md5"]}, "the recipe verifies md5, but compute_hash is sha256"),
    "not verified": ("a.csv", "url,caption\nx,y\n", {"verify_hash": ["md5", "md5"], "compute_hash": None}, "but compute_hash is None"),
    "quality": ("a.csv", "url,caption\nx,y\n", {"image_size": 9, "encode_format": "png"}, "encode_quality: 95; for png"),
    "no contact": ("a.csv", "url,caption\nx,y\n", {"network": {}}, "network.contact"),
    "no URL": ("a.csv", "caption,x\na,b\n", {}, "no column with URLs; columns: caption, x"),
    "no caption": ("a.csv", "url,x\na,b\n", {}, "no caption column; columns: url, x; name it with columns: {caption: NAME}"),
    "no list": ("a.xlsx", "x", {}, "accepted: .parquet, .csv, .tsv, .jsonl"),
    "no header": ("a.tsv", HEADLESS, {}, "its first line is a row, not a header ('http://a/1')"),
    "names for no header": ("a.tsv", HEADLESS, {}, "such as column_names: [url, caption]"),
    "captions first": ("a.tsv", "a dog\thttp://a/1\n", {}, "such as column_names: [caption, url]"),
    "another order": (
        "a.tsv", "a dog\thttp://a/1\n", {"column_names": ["url", "caption"]},
        "column 'url' has 'a dog', but no URL in the first 1 row; accepted: the names in the order of the columns, such as "
        "column_names: [caption, url]",
    ),
    "an array": ("a.json", '[{"url": "http://a/1", "caption": "a dog"}]', {}, "the file is a JSON array; accepted: JSON lines"),
    "fewer columns": ("a.tsv", HEADLESS, {"column_names": ["url", "caption", "score"]}, "Expected 3 columns, got 2"),
    "named twice": ("a.tsv", HEADLESS, {"column_names": ["url", "url"]}, "two columns are named 'url'"),
    "names in JSON": ("a.jsonl", '{"url": "x", "caption": "y"}', {"column_names": ["url", "caption"]}, "JSON lines already has column names"),
    "URLs alone": ("a.txt", "http://a/1\n", {}, "a text file of URLs has no captions"),
    "empty": ("a.jsonl", "", {}, "it has 0 bytes"),
    "damaged": ("a.parquet", "x" * 100, {}, "none of 1 lists can be read"),
    "no network": ("a.csv", "url,caption\nx,y\n", {"network": {"contact": "a@b.c", "allow_networks": ["127.0.0.1/8"]}}, "accepted: a network such as"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    file, content, source, message = REFUSED[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(RecipeError, match=re.escape(message)):
        run_local(recipe(tmp_path / file, source), tmp_path / "run")
