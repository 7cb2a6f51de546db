"""Extracts links to images from a page in a WARC file. The library lexbor parses the HTML as browsers do.

The URL of an `img` is the first valid one in this order: its lazy-loading attributes (if it has any, src is a
placeholder), its src, and the largest image in its srcset and in the sources of its `picture`. The charset is the one
in the HTTP header, or else in `<meta>`; if neither has one, it is detected. If a page has many attributes or unclosed
elements, lexbor takes quadratic time (90 s for 200,000). So a subprocess parses large pages, and a page that takes too
long is reported as lost.
"""

import itertools
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from curate.base.errors import reraised
from curate.base.isolate import EndedError, Subprocess
from curate.pool.crawl.links import IMAGES, PAGES, BaseUrl, Page, read_directives, read_text, read_url
from curate.pool.crawl.records import Record
from curate.pool.crawl.wat import read_date, read_facts

MAX_HTML = 1 << 25  # bytes, decoded
MAX_SECONDS = 10  # of CPU, for pages with more than _LARGE characters; smaller ones take at most about 2 s
_LARGE = 1 << 17
# OBELICS' list
LAZY = (
    *("data-src", "data-src-fg", "data-scroll-image", "data-lateloadsrc", "data-img-src", "data-original"),
    *("data-gt-lazy-src", "data-lazy", "data-lazy-src"),
)
_LAZY_SETS = ("data-srcset", "data-lazy-srcset")
_TYPES = ("text/html", "application/xhtml+xml")
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_META_BYTES = 4096
_MAX_SOURCES = 100  # nodes to search before an image in its `picture`, including text nodes
# A candidate in srcset has a URL, which may contain commas, and a width or density. _REST skips to the next comma. The
# patterns never backtrack
_CANDIDATE = re.compile(r"[\s,]*+(\S++)", re.ASCII)
_SIZE = re.compile(r"\s*+(\d++(?:\.\d++)?+)([wx])", re.ASCII)
_REST = re.compile("[^,]*+")
Value = TypeVar("Value")

_of_thread = threading.local()


def find_links(record: Record) -> Page | None:
    """Return a page's images; None if it is not HTML. Raises ValueError if it cannot be decoded or takes too long."""
    from fastwarc.warc import WarcRecord

    response = WarcRecord()
    response.set_bytes_content(record.content)
    response.is_http = True
    with reraised(ValueError, "the HTTP response cannot be decoded", OSError):
        response.parse_http(auto_decode="all")
        content_type = (response.http_content_type or record.headers.get("warc-identified-payload-type") or "").lower()
        if content_type not in _TYPES:
            return None
        body = response.reader.read(MAX_HTML + 1)
    if len(body) > MAX_HTML:
        raise ValueError(f"the page has more than {MAX_HTML:,} bytes; accepted: at most that")
    text, charset = _decode(body, response.http_charset)
    url, crawled, truncated = (record.headers.get(f"warc-{name}") for name in ("target-uri", "date", "truncated"))
    facts = {"page_url": url or "", "crawl_date": read_date(crawled), "charset": charset, "truncated": truncated}
    page = text, facts, list(response.http_headers or ())
    return read_links(*page) if len(text) <= _LARGE else call_isolated(MAX_SECONDS, read_links, *page)


def read_links(text: str, facts: dict[str, Any], headers: list[tuple[str, str]]) -> Page:
    """Return a page's images. `facts` and `headers` are what the WARC file records about the page."""
    from resiliparse.parse.html import HTMLTree

    document: Any = HTMLTree.parse(text).document
    links = Page()
    links.counts[PAGES] += 1
    base_element = document.query_selector("base[href]")
    base = BaseUrl(facts["page_url"], base_element and base_element.getattr("href"))
    for position, image in enumerate(_all(document, "img")):
        _add(links, base, image, position)
    if not links.images:
        return links
    metas = [(meta.getattr("name"), meta.getattr("content")) for meta in _all(document, "meta[name]")]
    root, title = document.query_selector("html"), document.query_selector("title")
    licences = [("href", link.getattr("href")) for link in _all(document, "a[rel~=license], link[rel~=license]")]
    licence = _first_url(licences, base)
    links.facts = {
        **facts,
        "page_title": read_text(title.text) if title is not None else None,
        "html_lang": read_text(root.getattr("lang")) if root is not None else None,
        **read_directives(metas, headers),
        "licence_url": licence and licence[1],
    }
    return links


def _decode(body: bytes, charset: str | None) -> tuple[str, str]:
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    if not charset and (meta := _META_CHARSET.search(body[:_META_BYTES])):
        charset = meta[1].decode("ascii", "replace")
    name = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    name = name or detect_encoding(body) or "utf-8"
    return bytes_to_str(body, name), name


def _add(links: Page, base: BaseUrl, image: Any, position: int) -> None:
    links.counts[IMAGES] += 1
    alt, title = read_text(image.getattr("alt")), read_text(image.getattr("title"))
    if alt is None and title is None:
        links.counts["no_text"] += 1
        return
    sets = [image.getattr(name) for name in ("srcset", *_LAZY_SETS)]
    if image.parent is not None and image.parent.tag == "picture":
        before = itertools.islice(_before(image), _MAX_SOURCES)
        sources = [node for node in before if node.tag == "source"][::-1]
        sets += [node.getattr(name) for node in sources for name in ("srcset", *_LAZY_SETS)]
    largest = _first_url([("srcset", url) for url in largest_first(sets)], base)
    candidates = [(name, image.getattr(name)) for name in (*LAZY, "src")]
    chosen = _first_url(candidates, base) or largest
    if chosen is None:
        _, reason = read_url(image.getattr("src"), base)
        links.counts[reason] += 1
        return
    links.images.append((chosen[1], alt, title, position, chosen[0], largest and largest[1]))


def _all(document: Any, selector: str) -> tuple[Any, ...]:
    """Return the matches of a selector. Iterating over lexbor's own collection searches the page at each step."""
    return document.query_selector_all(selector)[:]  # type: ignore[no-any-return]


def _before(node: Any) -> Iterator[Any]:
    while (node := node.prev) is not None:
        yield node


def _first_url(candidates: list[tuple[str, str | None]], base: BaseUrl) -> tuple[str, str] | None:
    """Return the attribute and the URL of the first valid candidate, or None."""
    for name, value in candidates:
        url, reason = read_url(value, base) if value else ("", "no_url")
        if not reason:
            return name, url
    return None


def largest_first(sets: list[str | None]) -> list[str]:
    """Return the URLs in srcset values, largest first: those with a width, then those with a density.

    Ties keep their order.
    """
    sizes = []
    for text in filter(None, sets):
        at = 0
        while match := _CANDIDATE.match(text, at):
            at, url, size = match.end(), match[1].rstrip(","), None
            if url == match[1]:
                size = _SIZE.match(text, at)
                at = _REST.match(text, at).end()  # type: ignore[union-attr]
            sizes.append((size[2] == "w", float(size[1]), url) if size else (False, 1.0, url))
    return [url for *_, url in sorted(sizes, key=lambda size: size[:2], reverse=True)]


def page_facts(record: Record) -> dict[str, Any]:
    """Return a page's languages and charset, from the metadata record after it."""
    lines = record.content.decode(errors="replace").splitlines()
    fields = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    return read_facts(fields)


def call_isolated(seconds: int, function: Callable[..., Value], *arguments: Any) -> Value:
    """Run a function in this thread's subprocess. Raises ValueError if the function does, or if the subprocess dies."""
    if not hasattr(_of_thread, "process"):
        _of_thread.process = Subprocess("parse pages", resource.setrlimit, resource.RLIMIT_CORE, (0, 0))
    try:
        error, value = _of_thread.process.ask(_call, seconds, function, arguments)
    except EndedError as ended:
        reason = f"took over {seconds} s" if ended.status == -signal.SIGXCPU else str(ended)
        raise ValueError(f"parsing it {reason}") from None
    if error:
        raise error
    return value  # type: ignore[no-any-return]


def _call(_: None, seconds: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    user, system, *_rest = resource.getrusage(resource.RUSAGE_SELF)
    hardest = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(user + system) + seconds + 1, hardest))
    try:
        return None, function(*arguments)
    except ValueError as error:
        return error, None
