"""Reads links to images from a record of a WAT file: JSON about a page, written by ia-web-commons for Common Crawl.

All of it is untrusted: any value may be missing, null, or of another type, and the case of names varies.
"""

import json
import re
from datetime import datetime
from typing import Any

import orjson

from curate.pool.crawl.links import IMAGES, PAGES, BaseUrl, Page, join_values, read_directives, read_text, read_url

_IMAGE = "IMG@/src"
_HEADER, _PAYLOAD = ("Envelope", "WARC-Header-Metadata"), ("Envelope", "Payload-Metadata")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
Json = Any


def read_json(content: bytes) -> Json:
    """Parse JSON, replacing lone surrogates. Raises ValueError if it is damaged."""
    try:
        return orjson.loads(content)
    except ValueError:
        return json.loads(_SURROGATE.sub("\ufffd", json.dumps(json.loads(content), ensure_ascii=False)))


def read_header(document: Json, name: str) -> str | None:
    """Return a header, such as WARC-Type, of the described record."""
    return _text(_dig(document, *_HEADER).get(name))


def find_links(document: Json) -> Page:
    """Return a page's images, from the record about its response."""
    header, container = _dig(document, *_HEADER), _dig(document, "Container")
    http = _dig(document, *_PAYLOAD, "HTTP-Response-Metadata")
    html = _dig(http, "HTML-Metadata")
    head = _dig(html, "Head")
    page_url = _text(header.get("WARC-Target-URI")) or ""
    links = Page()
    links.counts[PAGES] += 1
    base = BaseUrl(page_url, head.get("Base"))
    of_page = html.get("Links")
    images = [link for link in _list(of_page) if type(link) is dict and link.get("path") == _IMAGE]
    with_text = [(position, link) for position, link in enumerate(images) if link.get("alt") or link.get("title")]
    links.counts.update({IMAGES: len(images), "no_text": len(images) - len(with_text)})
    for position, link in with_text:
        alt, title = read_text(link.get("alt")), read_text(link.get("title"))
        url, reason = read_url(link.get("url"), base) if alt or title else ("", "no_text")
        if reason:
            links.counts[reason] += 1
        else:
            links.images.append((url, alt, title, position, "src", None))
    if not links.images:
        return links
    metas = [(meta.get("name"), meta.get("content")) for meta in map(_dig, _list(head.get("Metas")))]
    sent = ((key, value if isinstance(value, list) else [value]) for key, value in _dig(http.get("Headers")).items())
    related = map(_dig, [*_list(of_page), *_list(head.get("Link"))])
    licences = (link.get("url") for link in related if "license" in (_text(link.get("rel")) or "").lower().split())
    offset = _text(container.get("Offset")) or ""
    links.facts = {
        "page_url": page_url,
        "page_title": read_text(head.get("Title")),
        "crawl_date": read_date(_text(header.get("WARC-Date"))),
        "html_lang": join_values(metas, "html@/lang"),
        **read_directives(metas, [(key, value) for key, values in sent for value in values]),
        "licence_url": next(filter(None, (read_url(url, base)[0] for url in licences)), None),
        "warc_file": _text(container.get("Filename")),
        "warc_offset": int(offset) if offset.isdecimal() and len(offset) < 19 else None,
    }
    return links


def page_facts(document: Json) -> dict[str, Any]:
    """Return a page's languages and charset, from the metadata record after its response."""
    records = _list(_dig(document, *_PAYLOAD, "WARC-Metadata-Metadata").get("Metadata-Records"))
    values = [(_text(record.get("Name")), _text(record.get("Value"))) for record in map(_dig, records)]
    return read_facts([(name, value) for name, value in values if name and value])


def read_facts(fields: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a page's languages and charset, from the crawler's fields `charset-detected` and `languages-cld2`."""
    facts: dict[str, Any] = {}
    for name, value in fields:
        if name.lower() == "charset-detected":
            facts["charset"] = value.strip() or None
        elif name.lower() == "languages-cld2":
            try:
                detected = _dig(read_json(value.encode(errors="replace")))
            except ValueError:
                continue
            codes = (_text(language.get("code-iso-639-3")) for language in map(_dig, _list(detected.get("languages"))))
            facts["page_languages"] = ",".join(filter(None, codes)) or None
            reliable = detected.get("reliable")
            facts["page_languages_reliable"] = reliable if isinstance(reliable, bool) else None
    return facts


def read_date(text: str | None) -> datetime | None:
    """Return a WARC date (UTC), to the second."""
    try:
        date = datetime.fromisoformat(text) if text else None
        return date and (date - (date.utcoffset() or date - date)).replace(tzinfo=None, microsecond=0)
    except (ValueError, OverflowError):
        return None


def _dig(document: Json, *names: str) -> dict[str, Json]:
    """Return the object at a path of keys, or an empty one."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
