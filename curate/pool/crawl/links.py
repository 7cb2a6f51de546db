"""Cleans the links to images in a page, and their texts, or returns the reason why it refuses a link.

Most images on the web have no text. So refused links do not become rows: they are only counted, by reason (`REFUSED`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import pyarrow as pa

from curate.base.schema import define

MAX_URL = 2048  # characters
MAX_OF_PAGE = 2048  # characters in a text about the page, which each of its rows repeats; the rest is cut off
_MAX_BASE = 1 << 14  # characters: longer bases are not joined, because each link would copy them
IMAGES, PAGES, ROWS = "images", "pages", "rows"  # counted besides the refused links
REFUSED = {
    "no_text": "no text, or only white space",
    "no_url": "no URL, or an empty one",
    "data_url": "a data: URL, which contains the image itself",
    "other_scheme": "neither http nor https",
    "long_url": f"over {MAX_URL:,} characters",
    "control_character": "a control character in the URL",
    "invalid_url": "cannot be read as a URL, or has no host",
}
_TEXT, _BOOL = pa.string(), pa.bool_()
_OF_IMAGE = define(
    url=_TEXT,
    caption=_TEXT,
    key=_TEXT,
    text_key=_TEXT,  # source of the caption: alt or title
    alt=_TEXT,
    title=_TEXT,
    position=pa.int32(),  # of the image among the page's images, from 0
    attribute=_TEXT,  # source of the URL: src, srcset, or a lazy-loading attribute
    largest_url=_TEXT,  # in srcset and picture
)
OF_PAGE = define(
    page_url=_TEXT,
    page_title=_TEXT,
    crawl_date=pa.timestamp("s"),
    page_languages=_TEXT,  # ISO 639-3, most frequent first, separated by commas
    page_languages_reliable=_BOOL,
    html_lang=_TEXT,
    charset=_TEXT,
    robots_meta=_TEXT,
    robots_header=_TEXT,
    tdm_reservation=_TEXT,
    noai=_BOOL,
    noimageai=_BOOL,
    licence_url=_TEXT,
    truncated=_TEXT,  # why the crawler truncated the page; WARC only
    warc_file=_TEXT,  # its name, without a folder
    warc_offset=pa.int64(),  # of the page's record, in bytes
)
COLUMNS = define(*_OF_IMAGE, *OF_PAGE)

_ENDS = "".join(map(chr, range(0x21)))  # characters that browsers strip from a URL's ends
_WITHIN = re.compile(r"[\t\r\n]")  # characters that browsers remove from within a URL
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
_SIMPLE_PATH = re.compile(r"/(?!/)(?:[^.?#;]|(?<!/)\.)*\Z")  # joining leaves such a path as it is
_PLAIN = re.compile(r"https?://[^/?#\[\x00-\x20\x7f-\x9f](?:[^\[\x00-\x1f\x7f-\x9f]*[^\[\x00-\x20\x7f-\x9f])?\Z")
_HOST = re.compile(r"https?://[^/?#]", re.IGNORECASE)


@dataclass
class Page:
    """A page's images that have a text and a URL, in page order, and facts about the page."""

    offset: int = 0  # of its record in the file
    record_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # columns of OF_PAGE; empty if there are no images
    # URL, alt and title (one of them may be None), position, attribute, largest URL
    images: list[tuple[str, str | None, str | None, int, str, str | None]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # PAGES, IMAGES, and reasons in REFUSED


class BaseUrl:
    """The base of relative URLs: the page's URL, or its `base` element."""

    def __init__(self, page: str, base: Any = None) -> None:
        self.url = page
        if isinstance(base, str) and base.strip(_ENDS):
            with suppress(ValueError):  # a host such as http://[x
                self.url = urljoin(page, base.strip(_ENDS))
        begin = self.url.find("/", 8) if _ABSOLUTE.match(self.url) else -1
        self.url = self.url[: _MAX_BASE + 1]
        origin = self.url[:begin] if begin > 0 else ""
        is_plain = origin.startswith(("http://", "https://")) and not _CONTROL.search(origin) and "?" not in origin
        self._origin = origin if is_plain else ""

    def join(self, url: str) -> str:
        """Return the absolute URL. Raises ValueError if it is invalid.

        If the base is too long, this returns the base, which `read_url` then refuses as too long.
        """
        # HTTP:// becomes lower case, as `urljoin` does if the page has the same scheme
        if scheme := _ABSOLUTE.match(url):
            return scheme[0].lower() + url[scheme.end() :]
        if self._origin and _SIMPLE_PATH.match(url):
            return self._origin + url
        return self.url if len(self.url) > _MAX_BASE else urljoin(self.url, url)


def read_url(url: Any, base: BaseUrl) -> tuple[str, str]:
    """Return an absolute URL, cleaned as browsers do, and no reason; or an empty URL and a reason from REFUSED."""
    if type(url) is str and len(url) <= MAX_URL and _PLAIN.match(url):  # most URLs
        return url, ""
    reason = ""
    if not isinstance(url, str) or not (url := _WITHIN.sub("", url.strip(_ENDS))):
        reason = "no_url"
    elif url[:5].lower() == "data:":
        reason = "data_url"
    else:
        try:
            url = base.join(url)
            is_plain = _HOST.match(url) and "[" not in url
            has_host = is_plain or urlsplit(url).netloc or not _ABSOLUTE.match(url)
        except ValueError:
            has_host = None
        if not has_host:
            reason = "invalid_url"
        elif not _ABSOLUTE.match(url):
            reason = "other_scheme"
        elif len(url) > MAX_URL:
            reason = "long_url"
        elif _CONTROL.search(url):
            reason = "control_character"
    return ("", reason) if reason else (url, "")


def read_text(text: Any) -> str | None:
    """Return a text on one line, without white space at its ends (MetaCLIP 2); None if nothing is left."""
    return (text.replace("\n", " ").replace("\r", " ").strip() or None) if isinstance(text, str) else None


def join_values(pairs: Iterable[tuple[Any, Any]], name: str) -> str | None:
    """Return the joined values of a header or `<meta>` name, ignoring case; None if there is none."""
    values = (read_text(value) for key, value in pairs if isinstance(key, str) and key.strip().lower() == name)
    return ", ".join(filter(None, values)) or None


def read_directives(metas: Sequence[tuple[Any, Any]], headers: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Return the columns of OF_PAGE for robots directives, from `<meta>` and headers."""
    robots, robots_header = join_values(metas, "robots"), join_values(headers, "x-robots-tag")
    reservation = join_values(headers, "tdm-reservation") or join_values(metas, "tdm-reservation")
    columns = {"robots_meta": robots, "robots_header": robots_header, "tdm_reservation": reservation}
    words = set(re.split(r"[\s,:;]+", f"{robots} {robots_header}".lower()))  # for any robot
    return columns | {"noai": "noai" in words, "noimageai": "noimageai" in words}
