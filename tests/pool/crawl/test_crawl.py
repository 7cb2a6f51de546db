"""WAT files: rows equal those of a naive reader, in any packing, in pieces, and with damage."""

import gzip
import random

import pyarrow as pa
import pytest

from curate.base.errors import RecipeError
from curate.pool.crawl import format as crawl
from curate.pool.crawl.format import CommonCrawlInput, CrawlSource, Page, read_pages
from curate.pool.crawl.links import BaseUrl, read_url
from curate.pool.crawl.records import Lost, Stream
from curate.pool.formats.input_format import PartRows
from tests.kit.crawls import URLS, Site, draw_sites, image, info, naive_rows, naive_url, pack, wat_records

SITES = draw_sites(200)
RECORDS = [info("CC.warc.wat.gz"), *(record for n, site in enumerate(SITES) for record in wat_records(site, n))]
KIND = CommonCrawlInput()


def _source(path, **keys):
    return CrawlSource.model_validate({"name": "cc", "format": "commoncrawl", "path": str(path), **keys})


def _read(source):
    parts = KIND.plan(source, (), False).parts
    return [batch for part in parts for batch in KIND.read(source, part, pa.schema([("page_url", pa.string())]), None)]


def _rows(batches):
    columns = [(b.scores["page_url"], b.columns["url"], b.columns["caption"]) for b in batches]
    rows = [row for batch in columns for row in zip(*(column.to_pylist() for column in batch), strict=True)]
    return [row for row in rows if row[1] is not None]


@pytest.mark.parametrize("how", ["members", "plain"])
@pytest.mark.parametrize("texts", ["alt", "alt+title"])
def test_rows_equal_those_of_a_naive_reader(tmp_path, how, texts):
    path = tmp_path / ("a.wat.gz" if how == "members" else "a.wat")
    pack(path, RECORDS, how)
    batches = _read(_source(path, texts=texts))
    expected = naive_rows(SITES, with_title=texts != "alt")
    assert len(expected) > 200
    assert _rows(batches) == expected
    links = sum((batch.links for batch in batches), start=batches[0].links.__class__())
    images = [link for site in SITES for link in site.links or [] if isinstance(link, dict)]
    assert links["pages"] == len(SITES)
    assert links["images"] == sum(link.get("path") == "IMG@/src" for link in images)
    assert links["rows"] == len(expected)
    if texts == "alt":  # each image is a row, or has one reason
        assert links["images"] == links.total() - links["images"] - links["pages"]


@pytest.mark.parametrize("span", [1, 500, 4096, 30_000])
def test_spans_have_all_rows_together(tmp_path, span, monkeypatch):
    pack(tmp_path / "a.wat.gz", RECORDS)
    size = (tmp_path / "a.wat.gz").stat().st_size
    monkeypatch.setattr(crawl, "_SPAN", span if span > 1 else size // 3)
    batches = _read(_source(tmp_path / "a.wat.gz"))
    assert _rows(batches) == naive_rows(SITES)


@pytest.mark.thorough
def test_each_member_may_be_damaged(tmp_path):
    """If a byte is damaged, cut, or missing, all other pages are read, and the lost span is reported."""
    path = tmp_path / "a.wat.gz"
    offsets = pack(path, RECORDS)
    whole, chance = path.read_bytes(), random.Random(1)
    for record in [0, 1, 2, 3, len(RECORDS) - 1, *chance.sample(range(4, len(RECORDS) - 1), 3)]:
        end = [*offsets, len(whole)][record + 1]
        for damage in ("flip", "magic", "drop", "checksum"):
            content = bytearray(whole)
            place = {"magic": offsets[record], "checksum": end - 7}.get(damage, (offsets[record] + end) // 2)
            if damage == "drop":
                del content[place]
            else:
                content[place] ^= 0x55
            path.write_bytes(content)
            _check_damage(path, RECORDS[record], (record, damage))


def _check_damage(path, record, about):
    pages = list(_pages(path))
    lost = [page for page in pages if isinstance(page, Lost)]
    assert len(lost) == 1, about
    kept = {page.facts["page_url"] for page in pages if isinstance(page, Page) and page.images}
    missing = {site.url for site in SITES if naive_rows([site], True)} - kept
    assert missing <= {site.url for n, site in enumerate(SITES) if record in wat_records(site, n)}, about


def _pages(path):
    with path.open("rb") as file:
        return list(read_pages(Stream(file), 0, path.stat().st_size))


@pytest.mark.parametrize("how", ["members", "plain"])
def test_a_cut_file_is_told(tmp_path, how):
    path = tmp_path / ("a.wat" if how == "plain" else "a.wat.gz")
    offsets = pack(path, RECORDS, how)
    whole = path.read_bytes()
    for cut in (9, 40, len(whole) - offsets[-1] - 3, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        pages = _pages(path)
        assert isinstance(pages[-1], Lost), cut
        assert sum(isinstance(page, Lost) for page in pages) == 1
    rows = _rows(_read(_source(path)))
    assert rows == naive_rows(SITES)[: len(rows)]


def test_columns_of_a_page(tmp_path):
    head = {
        "Base": "/deep/",
        "Title": " Ein\nTitel ",
        "Metas": [{"name": "HTML@/lang", "content": "de"}, {"name": "ROBOTS", "content": "NoAI"}, {"property": "og:image"}],
        "Link": [{"path": "LINK@/href", "rel": "license", "url": "by/4.0"}],
    }  # fmt: skip
    headers = {"x-ROBOTS-tag": ["bot: noimageai", "all"], "Tdm-Reservation": "1"}
    cld2 = '{"reliable":false,"languages":[{"code-iso-639-3":"deu"},{"code-iso-639-3":"eng"}]}'
    site = Site("http://h.example/p", [image("a.jpg", "ein Bild", "mehr")], head, headers, cld2, "ISO-8859-1")
    pack(tmp_path / "a.wat.gz", [info("x"), *wat_records(site, 1)])
    source = _source(tmp_path / "a.wat.gz")
    (part,) = KIND.plan(source, (), False).parts
    (batch,) = KIND.read(source, part, pa.schema([]), None)
    samples = pa.table({name: batch.columns[name] for name in ("key", "offset")})
    (row,) = KIND.reread_table(source, part, PartRows(pa.array([0]).to_numpy(), samples), crawl.COLUMNS).to_pylist()
    assert row == {
        "url": "http://h.example/deep/a.jpg", "caption": "ein Bild", "key": row["key"], "text_key": "alt",
        "alt": "ein Bild", "title": "mehr", "position": 0, "attribute": "src", "largest_url": None,
        "page_url": "http://h.example/p", "page_title": "Ein Titel", "crawl_date": row["crawl_date"],
        "page_languages": "deu,eng", "page_languages_reliable": False, "html_lang": "de", "charset": "ISO-8859-1",
        "robots_meta": "NoAI", "robots_header": "bot: noimageai, all", "tdm_reservation": "1", "noai": True,
        "noimageai": True, "licence_url": "http://h.example/deep/by/4.0", "truncated": None,
        "warc_file": "CC.warc.gz", "warc_offset": 1002,
    }  # fmt: skip
    assert row["crawl_date"].isoformat() == "2024-05-18T01:58:10"


def test_urls_equal_the_definition():
    chance = random.Random(2)
    pieces = [
        *["http://", "https://", "//", "/", "..", ".", "a", "b.jpg", "?", "#", ";", "%20", "[", "é", ":", "x@y"],
        " ",
        "\n",
    ]
    pages = [
        "http://h.example/dir/page.html?x#y",
        "https://h.example",
        "http://h.example/a/b/",
        "http://u@h.example:80/;x",
    ]
    drawn = ["".join(chance.choices(pieces, k=chance.randrange(7))) for _ in range(4000)]
    for url in [*(url.format(1) for url in URLS), *drawn]:
        for base in pages:
            if "[" not in url:
                assert (read_url(url, BaseUrl(base))[0] or None) == naive_url(url, base), (url, base)


def test_a_list_has_one_path_a_line(tmp_path):
    """White space in paths stays; blank lines and all kinds of line ends do not."""
    names = ["a b.wat.gz", " c.wat.gz", "d\u2028\t.wat.gz"]
    for n, file in enumerate(names):
        pack(tmp_path / file, wat_records(Site("http://h.example/", [image("a.jpg", f"x{n}")]), n))
    content = f"{names[0]}\r\n\n  \n{names[1]}\n{names[2]}".encode()
    for name, data in (("wat.paths", content), ("wat.paths.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        rows = _rows(_read(_source(tmp_path / name, prefix=f"{tmp_path}/")))
        assert [caption for *_, caption in rows] == ["x0", "x1", "x2"]
    for data in (b"\x1f\x8bnonsense", gzip.compress(b"a.wat.gz", mtime=0)[:12] + b"\xff" * 20):
        (tmp_path / "wat.paths.gz").write_bytes(data)
        with pytest.raises(RecipeError, match=r"damaged gzip: .*; accepted: a list with one path"):
            _read(_source(tmp_path / "wat.paths.gz", prefix=f"{tmp_path}/"))


def test_files_that_are_no_warc(tmp_path):
    """A file without bytes is not opened: it may be the kernel's messages (/proc/kmsg), whose read blocks."""
    (tmp_path / "a.wat.gz").write_bytes(b"hello" * 100)
    with pytest.raises(crawl.InputError, match="no WARC record") as caught:
        _read(_source(tmp_path / "a.wat.gz"))
    assert caught.value.reason == "not_warc"
    (tmp_path / "a.wat.gz").write_bytes(b"")
    (part,) = KIND.plan(_source(tmp_path / "a.wat.gz"), (), False).parts
    assert part.fault == ("empty_file", "0 bytes")


def test_a_scheme_in_capitals_is_lowered():
    """As `urljoin` in both published parsers on a page with the same scheme; so one URL has one uid."""
    for page in ("http://a.org/b/", "https://a.org/b/"):
        for url in ("HTTP://B.org/C.JPG", "hTTps://B.org/C.JPG"):
            scheme, _, rest = url.partition(":")
            assert read_url(url, BaseUrl(page)) == (f"{scheme.lower()}:{rest}", "")
