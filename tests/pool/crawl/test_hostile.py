"""Hostile pages: values of any type in a WAT, damaged records, and pages that cost more than their size suggests."""

import itertools
import json
import os
import random
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from curate.pool.crawl import format as crawl
from curate.pool.crawl import html
from curate.pool.crawl.format import CommonCrawlInput, CrawlSource, read_pages
from curate.pool.crawl.html import largest_first
from curate.pool.crawl.links import MAX_OF_PAGE, BaseUrl, read_url
from curate.pool.crawl.records import Lost, Stream
from curate.pool.formats.input_format import PartRows
from tests.kit.crawls import Site, draw_sites, image, info, pack, warc_records, wat_records

KIND = CommonCrawlInput()
ANY = [
    None, True, 0, -1, 1.5, 10**400, "", "x", "7" * 400, "٣", "²", "\ud800", "\0", "http://[", "data:", "noai", [], {},
    [None], ["\0", 3, None, {}, "noai"], [[["path"]]], {"": None}, {"url": "u", "path": "IMG@/src", "alt": "q"},
    [{"path": "IMG@/src", "url": "u", "alt": "q"}], {"path": []}, "99999-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59",
]  # fmt: skip
HEAD = {
    "Base": "/b/",
    "Title": "T",
    "Metas": [{"name": "HTML@/lang", "content": "de"}, {"name": "robots", "content": "noai"}],
    "Link": [{"path": "LINK@/href", "rel": "license", "url": "by"}],
}
SITE = Site(
    "http://h.example/p", [image("a.jpg", "x", "y"), image("b.jpg", "z")], HEAD, {"X-Robots-Tag": ["noai", "b"]}
)


def _read(path):
    """Return the captions in a file, after reading each row again, and the reports of lost spans."""
    source = CrawlSource.model_validate(
        {"name": "cc", "format": "commoncrawl", "path": str(path), "texts": "alt+title"}
    )
    captions, lost = [], []
    for part in KIND.plan(source, (), False).parts:
        for batch in KIND.read(source, part, pa.schema([f for f in crawl.COLUMNS if f.name == "page_title"]), None):
            errors = batch.faults[1].to_pylist() if batch.faults else [None] * len(batch.columns["key"])
            rows = np.array([row for row, error in enumerate(errors) if error is None], np.int64)
            samples = pa.table({key: batch.columns[key].take(pa.array(rows)) for key in ("key", "offset", "caption")})
            table = KIND.reread_table(source, part, PartRows(rows, samples), crawl.COLUMNS)
            assert table["caption"].to_pylist() == samples["caption"].to_pylist()
            captions += table["caption"].to_pylist()
            lost += [error for error in errors if error]
    return captions, lost


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


def _put(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(value[path[0]], path[1:], new)
    return copy


def _about(document):
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = "WARC/1.0\r\nWARC-Type: metadata\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(content)}\r\n\r\n".encode() + content + b"\r\n\r\n"


@pytest.mark.thorough
def test_any_value_may_be_of_any_type(tmp_path):
    """Replace each value of a page and its metadata by a value of each type: all other pages keep their rows."""
    _, response, metadata = (json.loads(record.partition(b"\r\n\r\n")[2]) for record in wat_records(SITE, 2))
    records = [info("x")]
    for path in _paths(response):
        records += [_about(new) for value in ANY for new in (_put(response, path, value), metadata)]
    for path in _paths(metadata):
        records += [_about(new) for value in ANY for new in (response, _put(metadata, path, value))]
    chance = random.Random(0)
    for _ in range(300):
        for _ in range(chance.randrange(1, 4)):
            document = _put(response, chance.choice(list(_paths(response))), chance.choice(ANY))
        records += [_about(document), _about(_put(metadata, chance.choice(list(_paths(metadata))), chance.choice(ANY)))]
    records += wat_records(Site("http://last.example/", [image("c.jpg", "last")]), 3)
    pack(tmp_path / "a.wat", records, "plain")
    captions, lost = _read(tmp_path / "a.wat")
    assert captions[-1] == "last"
    assert captions.count("z") > 1500
    assert all("which is not a type in WARC" in why for why in lost), "of all values, one type is no type"


@pytest.mark.parametrize("first", ["members", "whole"])
def test_a_member_of_several_records_is_told(tmp_path, first):
    """A file compressed as a whole is refused; after members with one record each, it is lost."""
    records = [info("x"), *wat_records(Site("http://h.example/", [image("a.jpg", "x")]), 1)]
    for how in dict.fromkeys((first, "whole")):
        pack(tmp_path / how, records, how)
        with (tmp_path / "a.wat.gz").open("ab") as file:
            file.write((tmp_path / how).read_bytes())
    if first == "whole":
        with pytest.raises(crawl.InputError, match="a gzip member contains several records; accepted: one record"):
            _read(tmp_path / "a.wat.gz")
    else:
        captions, lost = _read(tmp_path / "a.wat.gz")
        assert (captions, len(lost)) == (["x"], 1)


KINDS = [["conversion"], ["response", "resource"], ["revisit", "response", "request", "request"]]


@pytest.mark.parametrize(("kinds", "how"), list(itertools.product(KINDS, ["members", "plain"])))
def test_records_of_other_types_are_no_loss(tmp_path, how, kinds):
    """A file may begin and end with records of any type, such as wget's, and Common Crawl's texts (WET)."""
    (_, response, _), page = warc_records(Site("http://h.example/", html=b"<img src=a alt=x>"), 1), b"x: y\r\n"
    other = b"WARC/1.0\r\nWARC-Type: %b\r\nContent-Length: 6\r\n\r\n%b\r\n\r\n"
    records = [response if kind == "response" else other % (kind.encode(), page) for kind in kinds]
    pack(tmp_path / "a.warc.gz", [info("x"), *records], how)
    assert _read(tmp_path / "a.warc.gz") == (["x"] * kinds.count("response"), [])


DAMAGES = {
    "cut": lambda content: content[:40],
    "byte": lambda content: content.replace(b'"response"', b'"resp\x00nse"'),
    "type": lambda content: content.replace(b'"response"', b'"resp0nse"'),  # whole JSON
    "begin": lambda content: content[content.index(b'"response"') + 5 :],
    "noise": lambda content: b"\xff" * len(content),
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told_whatever_text_is_left(tmp_path, damage):
    """The damage may be in the record's stated type."""
    request, response, metadata = wat_records(SITE, 2)
    damaged = _about(DAMAGES[damage](response.partition(b"\r\n\r\n")[2][:-4]))
    last = wat_records(Site("http://last.example/", [image("c.jpg", "last")]), 3)
    pack(tmp_path / "a.wat.gz", [info("x"), request, damaged, metadata, *last])
    captions, lost = _read(tmp_path / "a.wat.gz")
    assert captions == ["last"]
    assert len(lost) == 1
    assert lost[0].startswith("the record at byte ")


def test_candidates_take_time_by_their_length():
    began = time.process_time()
    for text in (" ", ",", "a ", "a,", ", ", "a 1", "1.", "a\t1x,", "data:,,, "):
        largest_first([text * (300_000 // len(text))])
    assert time.process_time() - began < 10


def test_pages_of_many_images_and_long_values(tmp_path, monkeypatch):
    """Long texts about a page are cut for each of its links; its links fill several batches."""
    monkeypatch.setattr(crawl, "_BATCH_ROWS", 300)
    html = b"<title>" + b"t" * 1_000_000 + b"</title><base href='" + b"a/" * 500_000 + b"'>"
    html += b"".join(b"<img src=/%d alt=x><img src=%d alt=x>" % (n, n) for n in range(2000))
    html += b"<picture>" + b"<source srcset=a>" * 5000 + b"<img src=/p alt=p>" * 1000 + b"</picture>"
    head = {"Title": "t" * 1_000_000, "Base": "a/" * 500_000, "Metas": [{"name": "robots", "content": "x"}] * 100_000}
    links = [image(url.format(n), "x") for n in range(2000) for url in ("/{}", "{}")]
    site = Site("http://h.example/p", links, head, html=html)
    began = time.process_time()
    for name, make, rows in (("a.wat.gz", wat_records, 2000), ("a.warc.gz", warc_records, 3000)):
        pack(tmp_path / name, [info("x"), *make(site, 1)])
        source = CrawlSource.model_validate({"name": "cc", "format": "commoncrawl", "path": str(tmp_path / name)})
        (part,) = KIND.plan(source, (), False).parts
        batches = list(KIND.read(source, part, pa.schema([("page_title", pa.string())]), None))
        lengths = [len(batch.columns["url"]) for batch in batches]
        assert sum(lengths) == rows
        assert max(lengths) <= 300
        assert {title.as_py() for batch in batches for title in batch.scores["page_title"]} == {"t" * MAX_OF_PAGE}
        counts = sum((batch.links for batch in batches), start=crawl.Counter())
        assert (counts["pages"], counts["long_url"], counts["rows"]) == (1, 2000, rows)
    assert time.process_time() - began < 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attributes", "forms"])
def test_a_page_does_not_take_the_square_of_its_size(tmp_path, monkeypatch, kind):
    """A page twice as large takes at most about twice the CPU time; it is lost, but the next page is not."""
    monkeypatch.setattr(html, "MAX_SECONDS", 1)

    def seconds(size):
        attributes, forms = " ".join(f"a{n}=1" for n in range(size)), "<div>" * size + "<form></form>" * size
        page = f"<img {attributes}>" if kind == "attributes" else forms
        sites = [Site("http://h.example/", html=content) for content in (page.encode(), b"<img src=a alt=x>" * 900)]
        path = tmp_path / f"{size}.warc.gz"
        pack(path, [record for n, site in enumerate(sites) for record in warc_records(site, n)])
        before = os.times()
        captions, lost = _read(path)
        monkeypatch.setattr(html, "_of_thread", threading.local())  # whose process ends, and another is begun
        assert captions == ["x"] * 900
        assert [why.rpartition(": ")[2] for why in lost] == ["parsing it took over 1 s"]
        return sum(os.times()[:4]) - sum(before[:4])

    assert seconds(200_000) < 3 * seconds(100_000)


def test_nothing_is_joined_with_a_long_base():
    base = BaseUrl("http://h.example/p", "a/" * 1_000_000)
    assert read_url("b.jpg", base) == ("", "long_url")
    assert read_url("/b.jpg", base) == ("http://h.example/b.jpg", "")


def test_charsets_are_those_of_html(tmp_path):
    """Names of Python's codecs that HTML does not have cost no page, whether a header or the page names them."""
    charsets = ("rot13", "zip", "idna", "unicode_escape", "undefined", "utf-7", "", "x" * 9999, "punycode")
    sites = [
        Site("http://h.example/", headers=headers, html=b"<meta charset=%b><img src=a alt=good>" % name.encode())
        for name in charsets
        for headers in ({"Content-Type": f"text/html; charset={name}"}, {"Content-Type": "text/html"})
    ]
    pack(tmp_path / "a.warc.gz", [record for n, site in enumerate(sites) for record in warc_records(site, n)])
    assert _read(tmp_path / "a.warc.gz") == (["good"] * len(sites), [])


@pytest.mark.thorough
def test_damage_at_the_border_of_a_span_is_told_once(tmp_path):
    """Spans with borders around damage report together what the whole file reports."""
    records = [info("x"), *(record for n, site in enumerate(draw_sites(60)) for record in wat_records(site, n))]
    path, chance = tmp_path / "a.wat.gz", random.Random(2)
    offsets = pack(path, records)
    whole = path.read_bytes()

    def read(start, stop):
        with path.open("rb") as file:
            pages = list(read_pages(Stream(file), start, stop))
        return [(type(page), page.start if isinstance(page, Lost) else page.offset) for page in pages]

    told = 0
    for _ in range(100):
        content, at = bytearray(whole), chance.choice(offsets[2:])
        damage = chance.choice(["flip", "cut", "drop"])
        if damage == "flip":
            content[at + chance.randrange(60)] ^= 0x55
        else:
            del content[at + chance.randrange(60) : None if damage == "cut" else at + chance.randrange(61, 300)]
        path.write_bytes(content)
        borders = {min(len(content) - 1, max(1, at + step)) for step in chance.sample(range(-400, 400), 3)}
        spans = itertools.pairwise(sorted({0, len(content), *borders}))
        expected = read(0, len(content))
        told += any(kind is Lost for kind, _ in expected)
        assert [page for span in spans for page in read(*span)] == expected
    assert told > 80  # a byte of a gzip header may say nothing
