"""Dumps are read stream by stream; damaged, incomplete, and other files are refused."""

import bz2
import io

import pytest

from curate.base.errors import RunError
from curate.match.building import dumps
from curate.match.building.dumps import Articles
from tests.kit.wikis import draw_dump

HEAD = (
    '<mediawiki><siteinfo><namespaces><namespace key="6">Datei</namespace><namespace key="0" /></namespaces></siteinfo>'
)
BOMB = '<!ENTITY e0 "aaaaaaaaaaaaaaaa">' + "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(8))


def read(data, name="x.xml.bz2", start=0, stop=None):
    return list(Articles(io.BytesIO(data), name, start, len(data) if stop is None else stop))


def pieces(size, count):
    for part in range(count):
        yield part * size // count, (part + 1) * size // count


@pytest.mark.parametrize("count", [1, 3, 400])
def test_parts_have_each_article_once(count):
    data, texts = draw_dump("de", 50)
    articles = [Articles(io.BytesIO(data), "x.xml.bz2", start, stop) for start, stop in pieces(len(data), count)]
    assert [text for part in articles for text in part] == texts
    assert {part.namespaces for part in articles} == {frozenset({"datei", "kategorie"})}


def test_a_dump_of_one_stream_and_plain_xml_are_read_whole():
    data, texts = draw_dump("ja", 30)
    plain = bz2.decompress(data)
    assert read(plain, "x.xml") == texts
    packed = bz2.compress(plain)
    parts = [read(packed, "x.xml.bz2", start, stop) for start, stop in pieces(len(packed), 5)]
    assert parts[0] == texts and not any(parts[1:])


def test_the_head_of_a_stream_within_one_is_not_taken_for_one(monkeypatch):
    monkeypatch.setattr(dumps, "_CHUNK", 5)  # so that chunks split heads of streams
    data, texts = draw_dump("de", 20)
    parts = [read(data, "x.xml.bz2", start, stop) for start, stop in pieces(len(data), 7)]
    assert [text for part in parts for text in part] == texts


DUMP = draw_dump("de", 50)[0]
LAST, MIDDLE = DUMP.rindex(b"BZh9"), len(DUMP) // 2
DAMAGED = DUMP[:MIDDLE] + bytes([DUMP[MIDDLE] ^ 255]) + DUMP[MIDDLE + 1 :]


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("x.xml.bz2", DUMP[:LAST], "ends without </mediawiki>"), ("x.xml.bz2", DUMP[:200], "cut off"),
        ("x.xml.bz2", DUMP[: LAST + 30], "is cut off in the bzip2 stream"),
        ("x.xml", bz2.decompress(DUMP)[:-20], "ends without </mediawiki>"),
        ("x.xml.bz2", DAMAGED, r"x\.xml\.bz2: damaged in the bzip2 stream at byte [\d,]+: .*; download it again"),
        ("x.xml.bz2", b"<mediawiki>", "has no bzip2 data; accepted: a dump"),
        ("x.xml.bz2", DUMP + b"more", "damaged in the bzip2"),
        ("x.xml", f"<!DOCTYPE a [{BOMB}]><mediawiki>&e8;</mediawiki>".encode(), "limit on input amplification factor"),
        ("x.xml", b"<html></html>", "is <html>; accepted: a dump"), ("x.xml", b"", "without </mediawiki>"),
        ("x.xml", b"<mediawiki><page><ns>0</page>", "not the XML of a dump: mismatched tag: line 1"),
        ("x.xml", b"<mediawiki>&b;</mediawiki>", "undefined entity"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_cut_damaged_or_no_dump_is_refused(name, data, what):
    with pytest.raises(RunError, match=what):
        read(data, name)


def test_a_page_has_a_limit(monkeypatch):
    monkeypatch.setattr(dumps, "MAX_PAGE", 1000)
    page = "<page><title>{0}</title><ns>0</ns><revision><text>{0}</text></revision></page>"
    assert read(f"{HEAD}{page.format('a' * 1001)}</mediawiki>".encode(), "x.xml") == ["a" * 1001]
    with pytest.raises(RunError, match="a page that is too large; accepted: at most 1,000 bytes"):
        read(f"{HEAD}{page.format('a' * 1001).removesuffix('</page>')}".encode(), "x.xml")


def test_pages_of_other_kinds_are_left_out(tmp_path):
    page = '<page><title>t</title><ns>{}</ns>{}<revision><text xml:space="preserve">{}</text></revision></page>'
    kinds = (0, "", "one &lt;ref&gt;"), (0, '<redirect title="a" />', "two"), (14, "", "three")
    pages = [page.format(*kind) for kind in kinds]
    empty = "<page><ns>0</ns><revision><text deleted='deleted' /></revision></page>"
    assert read(f"{HEAD}{''.join(pages)}{empty}</mediawiki>\n".encode(), "x.xml") == ["one <ref>", ""]
