"""Pages of a WAT or WARC file: a response, the record of metadata behind it, and the page's images with their texts.

A span of a file of gzip members has the pages that begin in it; of any other file, the first span has all.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from curate.base.wording import one_line
from curate.pool.crawl import html, wat
from curate.pool.crawl.links import PageLinks
from curate.pool.crawl.records import Lost, Record, Stream, read_records

_OTHER_TYPES = "request|metadata|warcinfo|revisit|resource|conversion|continuation"
_OTHER_TYPE = re.compile(rf'"WARC-Type"\s*:\s*"(?:{_OTHER_TYPES})"'.encode())


@dataclass
class Page:
    """A page, and the record that it is of; languages and charset are known where it has images."""

    offset: int  # of the record in its file
    links: PageLinks
    record_id: str | None


def read_pages(stream: Stream, start: int, stop: int) -> Iterator[Page | Lost]:
    """Yield the pages of a span, in order. Raises OSError where the file cannot be read."""
    if stream.has_members:
        yield from _pages(stream, start, stop)
    elif start == 0:
        yield from _pages(stream, start, sys.maxsize)


def read_page(stream: Stream, offset: int) -> Page | None:
    """Return the page whose record begins at a place. Raises OSError where the file cannot be read."""
    page = next(_pages(stream, offset, offset + 1), None)
    return page if isinstance(page, Page) else None


def _pages(stream: Stream, start: int, stop: int) -> Iterator[Page | Lost]:
    page: Page | None = None
    for item in read_records(stream, start):
        damage = ""
        try:
            completes = page is not None and isinstance(item, Record) and _completes(page, item)
        except (ValueError, RecursionError) as error:
            completes, damage = True, one_line(error, 200)
        if page:
            yield page
            page = None
        if isinstance(item, Record) and not completes and item.offset < stop:
            try:
                page = _read_page(item)
                if page and item.is_response:  # a WAT says it itself
                    page.links.page |= {"warc_file": stream.name, "warc_offset": item.offset}
            except (ValueError, RecursionError) as error:
                damage = one_line(error, 200)
        elif isinstance(item, Record) and not completes and item.offset >= stop:
            return
        elif isinstance(item, Lost) and item.start >= stop and stream.is_member(item.start):
            return  # the next span begins with it; of what else is lost behind the last record it sees nothing
        if isinstance(item, Lost):
            yield item
        elif damage:
            yield Lost(item.offset, item.offset, damage)
    if page:
        yield page


def _read_page(record: Record) -> Page | None:
    if record.is_response:
        of_html = html.find_links(record)
        return None if of_html is None else Page(record.offset, of_html, record.headers.get("warc-record-id"))
    content_type = record.headers.get("content-type")
    is_json = "json" in content_type if content_type else b"{" in record.content[:16]
    # Of another type, which it names: not parsed. One that names none may be a damaged response.
    if not is_json or (b'"response"' not in record.content and _OTHER_TYPE.search(record.content)):
        return None
    document = wat.read_json(record.content)
    kind = wat.read_header(document, "WARC-Type")
    if kind != "response":
        if kind and kind not in _OTHER_TYPES.split("|"):
            raise ValueError(f"it is about a record of type {kind[:50]!r}, which WARC does not have")
        return None
    return Page(record.offset, wat.find_links(document), wat.read_header(document, "WARC-Record-ID"))


def _completes(page: Page, record: Record) -> bool:
    """Return whether a record is the metadata of a page, which then has them. Raises ValueError if it is damaged."""
    if record.is_response or not page.links.images:
        return False
    if record.content[:1] != b"{":  # of a WARC: lines of fields
        is_its = record.headers.get("warc-concurrent-to") == page.record_id
        facts = html.page_facts(record) if is_its else {}
    elif b"WARC-Metadata-Metadata" in record.content:
        document = wat.read_json(record.content)
        is_its = wat.read_header(document, "WARC-Concurrent-To") == page.record_id
        facts = wat.page_facts(document) if is_its else {}
    else:
        return False
    if is_its and page.record_id:
        page.links.page |= {name: value for name, value in facts.items() if page.links.page.get(name) is None}
        return True
    return False
