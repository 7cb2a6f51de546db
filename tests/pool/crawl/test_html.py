"""Pages in WARC files: an image's URL, the page's charset, and facts about the page."""

import gzip
import zlib

import brotli
import numpy as np
import pyarrow as pa
import pytest

from curate.pool.crawl.format import COLUMNS, CommonCrawlInput, CrawlSource
from curate.pool.crawl.html import largest_first
from curate.pool.formats.input_format import PartRows
from tests.kit.crawls import Site, info, pack, warc_records

KIND = CommonCrawlInput()


def _table(path):
    source = CrawlSource.model_validate({"name": "cc", "format": "commoncrawl", "path": str(path)})
    (part,) = KIND.plan(source, (), False).parts
    (batch,) = KIND.read(source, part, pa.schema([]), None)
    samples = pa.table({name: batch.columns[name] for name in ("key", "offset")})
    return KIND.reread_table(source, part, PartRows(np.arange(len(samples)), samples), COLUMNS)


def _page(tmp_path, html, headers=None):
    body = html.encode() if isinstance(html, str) else html
    site = Site("https://h.example/dir/p", headers=headers or {"Content-Type": "text/html"}, html=body)
    pack(tmp_path / "a.warc.gz", [info("x"), *warc_records(site, 1)])
    return _table(tmp_path / "a.warc.gz")


def test_the_url_of_an_image(tmp_path):
    html = """<base href="/b/"><img src="a.jpg" alt="plain">
    <img src="data:image/gif;base64,R0" data-src="lazy.jpg" alt="lazy"><img src="p.gif" data-lazy-src="q.jpg" alt="lazy 2">
    <img srcset="s1.jpg 300w, s2.jpg 900w, s3.jpg" alt="srcset"><img src="d.jpg" srcset="d1.jpg 1x, d2,x.jpg 2x" alt="dense">
    <picture><source srcset="w.webp 1200w"><source srcset="x.webp 400w"><img src="y.jpg" alt="picture"></picture>
    <picture><source srcset="only.webp"><img alt="no src"></picture>
    <noscript><img src="n.jpg" alt="caf&eacute; &amp; bar"></noscript><img src="z.jpg"><img alt="nothing">
    <img src="t.jpg" title="title only"><IMG SRC=u.jpg ALT='two
    lines'>"""
    table = _page(tmp_path, html)
    rows = dict(zip(table["caption"].to_pylist(), table["url"].to_pylist(), strict=True))
    names = {caption: url.removeprefix("https://h.example/b/") for caption, url in rows.items()}
    assert names == {
        "plain": "a.jpg", "lazy": "lazy.jpg", "lazy 2": "q.jpg", "srcset": "s2.jpg", "dense": "d.jpg",
        "picture": "y.jpg", "no src": "only.webp", "café & bar": "n.jpg", "two     lines": "u.jpg",
    }  # fmt: skip
    largest = dict(zip(table["caption"].to_pylist(), table["largest_url"].to_pylist(), strict=True))
    assert largest["dense"] == "https://h.example/b/d2,x.jpg"
    assert largest["picture"] == "https://h.example/b/w.webp"
    assert largest["plain"] is None
    assert table["attribute"].to_pylist()[:4] == ["src", "data-src", "data-lazy-src", "srcset"]


CHARSETS = [  # (charset, text, header, element)
    ("utf-8", "été", "text/html", ""), ("shift_jis", "日本の写真", "text/html; charset=Shift_JIS", ""),
    ("euc-kr", "한국 사진", "text/html", '<meta charset="euc-kr">'),
    (
        "windows-1251", "дом у моря", "text/html",
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
    ),
    ("gb18030", "红色的房子", "text/html; charset=gb18030", '<meta charset="utf-8">'),
]  # fmt: skip


@pytest.mark.parametrize(("charset", "text", "header", "meta"), CHARSETS)
def test_charsets(tmp_path, charset, text, header, meta):
    html = f"<html lang=xx><head>{meta}</head><img src=a.jpg alt='{text}'>".encode(charset)
    assert _page(tmp_path, html, {"Content-Type": header})["caption"].to_pylist() == [text]


@pytest.mark.parametrize("packed", ["gzip", "deflate", "br", "damaged", "unknown"])
def test_content_encodings(tmp_path, packed):
    html = b"<img src=a.jpg alt='a house by the sea'>"
    bodies = {"gzip": gzip.compress(html), "deflate": zlib.compress(html), "br": brotli.compress(html)}
    name = {"damaged": "gzip", "unknown": "x-new"}.get(packed, packed)
    site = Site("https://h.example/", headers={"Content-Type": "text/html", "Content-Encoding": name})
    site.html = bodies.get(packed, b"not packed")
    other = Site("https://i.example/", html=html)
    pack(tmp_path / "a.warc.gz", [info("x"), *warc_records(site, 1), *warc_records(other, 2)])
    source = CrawlSource.model_validate({"name": "cc", "format": "commoncrawl", "path": str(tmp_path / "a.warc.gz")})
    (part,) = KIND.plan(source, (), False).parts
    (batch,) = KIND.read(source, part, pa.schema([]), None)
    statuses = batch.faults[0].to_pylist() if batch.faults else ["ok", "ok"]
    assert sorted(statuses) == (["ok", "ok"] if packed in bodies else ["damaged_record", "ok"])


def test_columns_of_a_page(tmp_path):
    html = """<html lang="de-AT"><p>über</p><title> Ein
    Titel</title><meta name=Robots content="noimageai"><a rel="license nofollow" href="/by/4.0">CC</a><img src=a.jpg alt=x>"""
    (row,) = _page(tmp_path, html, {"Content-Type": "text/html", "TDM-Reservation": "1"}).to_pylist()
    assert (row["page_title"], row["html_lang"], row["robots_meta"]) == ("Ein     Titel", "de-AT", "noimageai")
    assert (row["noai"], row["noimageai"], row["tdm_reservation"]) == (False, True, "1")
    assert (row["warc_file"], row["warc_offset"]) == ("a.warc.gz", int(row["key"].split("-")[0]))
    assert row["licence_url"] == "https://h.example/by/4.0"
    assert (row["page_languages"], row["page_languages_reliable"], row["charset"]) == ("eng", True, "utf-8")


def test_what_is_no_html_is_no_page(tmp_path):
    page = _page(tmp_path, b"%PDF <img src=a alt=b>", {"Content-Type": "application/pdf"})
    assert len(page) == 0


def test_candidates_of_srcset():
    assert largest_first(["a.jpg 1x, b.jpg 2.5x ,c.jpg"]) == ["b.jpg", "a.jpg", "c.jpg"]
    assert largest_first([None, "", " , ", "x,y.jpg 300w,z.jpg 200w"]) == ["x,y.jpg", "z.jpg"]
