"""Writes WAT and WARC files as Common Crawl does, and reads them naively: what rows they have to give.

A `Site` is a page as its server sent it. `wat_records` and `warc_records` give the records about it, with the traps of
real ones where it asks for them; `pack` puts records into a file. `naive_rows` goes by the page itself, not the file.
"""

import gzip
import json
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

DATE = "2024-05-18T01:58:10Z"


@dataclass
class Site:
    """A page: its URL, HTTP headers, head and links as a WAT has them."""

    url: str
    links: Any = field(default_factory=list)
    head: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, Any] = field(default_factory=lambda: {"Content-Type": "text/html"})
    languages: str | None = '{"reliable":true,"languages":[{"code":"en","code-iso-639-3":"eng","text-covered":0.9}]}'
    charset: str | None = "UTF-8"
    has_metadata: bool = True
    html: bytes = b""


def image(url, alt=None, title=None, **more):
    """Return a link to an image, as a WAT has it."""
    link = {"path": "IMG@/src", "url": url, **more}
    return link | ({} if alt is None else {"alt": alt}) | ({} if title is None else {"title": title})


def _record(kind, content, content_type, *headers):
    lines = [("WARC-Type", kind), *headers, ("Content-Type", content_type), ("Content-Length", str(len(content)))]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + content + b"\r\n\r\n"


def info(name):
    """Return the record that a file begins with."""
    return _record("warcinfo", b"isPartOf: CC-MAIN-2024-22\r\n", "application/warc-fields", ("WARC-Filename", name))


def _urn(number, kind):
    return f"<urn:uuid:{number:08x}-0000-4000-8000-{kind:012x}>"


def wat_records(site, number):
    """Return the records of a WAT about a page: of its request, response and metadata."""

    def envelope(kind, place, payload, **more):
        header = {"WARC-Type": kind, "WARC-Date": DATE, "WARC-Record-ID": _urn(number, place), **more}
        document = {
            "Container": {"Filename": "CC.warc.gz", "Compressed": True, "Offset": str(1000 * number + place)},
            "Envelope": {
                "Payload-Metadata": payload,
                "Format": "WARC/1.0",
                "WARC-Header-Metadata": header | {"WARC-Target-URI": site.url},
            },
        }
        content = json.dumps(document, ensure_ascii=number % 2 == 0).encode()
        about = ("WARC-Target-URI", site.url.encode("ascii", "ignore").decode().split("\n")[0])
        return _record("metadata", content, "application/json", about, ("WARC-Date", "2024-05-31T01:17:49Z"))

    html = {"Head": site.head} | ({} if site.links is None else {"Links": site.links})
    response = {"Response-Message": {"Status": "200"}, "Headers": site.headers, "HTML-Metadata": html}
    request = {"HTTP-Request-Metadata": {"Request-Message": {"Method": "GET", "Path": "/"}}}
    fields = {"fetchTimeMs": "258", "charset-detected": site.charset, "languages-cld2": site.languages}
    records = [{"Name": name, "Value": value} for name, value in fields.items() if value is not None]
    of_metadata = {"WARC-Metadata-Metadata": {"Metadata-Records": records}}
    about = {"WARC-Concurrent-To": _urn(number, 2)}
    metadata = [envelope("metadata", 3, of_metadata, **about)] if site.has_metadata else []
    return [envelope("request", 1, request), envelope("response", 2, {"HTTP-Response-Metadata": response}), *metadata]


def warc_records(site, number):
    """Return the records of a WARC of a page: its request, response and metadata."""
    pairs = [
        (name, one) for name, value in site.headers.items() for one in (value if isinstance(value, list) else [value])
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    response = b"HTTP/1.1 200 OK\r\n" + head.encode() + f"Content-Length: {len(site.html)}\r\n\r\n".encode() + site.html
    fields = {"fetchTimeMs": "258", "charset-detected": site.charset, "languages-cld2": site.languages}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    where = ("WARC-Target-URI", site.url), ("WARC-Date", DATE)
    records = [
        _record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request", *where),
        _record(
            "response", response, "application/http; msgtype=response", *where, ("WARC-Record-ID", _urn(number, 2))
        ),
    ]
    about = *where, ("WARC-Record-ID", _urn(number, 3)), ("WARC-Concurrent-To", _urn(number, 2))
    if site.has_metadata:
        records.append(_record("metadata", lines.encode(), "application/warc-fields", *about))
    return records


def pack(path, records, how="members"):
    """Write records to a file, and return where each begins: gzip `members`, `whole` (one gzip), or `plain`."""
    parts = [gzip.compress(record, 6, mtime=0) if how == "members" else record for record in records]
    offsets = [sum(map(len, parts[:n])) for n in range(len(parts))] if len(parts) < 5000 else []
    content = b"".join(parts)
    if how == "whole":
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    return offsets


def naive_rows(sites, with_title=False):
    """Return page, URL and text of each row that the WATs of some pages have, in order, by the definition."""
    rows = []
    for site in sites:
        base = site.url
        if isinstance(site.head.get("Base"), str) and site.head["Base"].strip():
            with suppress(ValueError):
                base = urljoin(site.url, site.head["Base"].strip())
        for link in site.links or []:
            if not isinstance(link, dict) or link.get("path") != "IMG@/src":
                continue
            url = naive_url(link.get("url"), base)
            texts = [link.get("alt"), *([link.get("title")] if with_title else [])]
            texts = [text.replace("\n", " ").replace("\r", " ").strip() for text in texts if isinstance(text, str)]
            rows += [(site.url, url, text) for text in dict.fromkeys(filter(None, texts)) if url]
    return rows


def naive_url(url, base):
    """Return the URL of an image as a row has it, or None."""
    if not isinstance(url, str):
        return None
    url = "".join(c for c in url.strip("".join(map(chr, range(33)))) if c not in "\t\r\n")
    if not url or url.lower().startswith("data:"):
        return None
    try:
        joined = url if url.lower().startswith(("http://", "https://")) else urljoin(base, url)
    except ValueError:
        return None
    scheme, _, rest = joined.partition("://")
    good = scheme.lower() in ("http", "https") and rest[:1] not in ("", "/", "?", "#") and len(joined) <= 2048
    bad = any(ord(c) < 32 or 127 <= ord(c) < 160 for c in joined) or ("[" in rest and not rest.startswith("[::1]"))
    return f"{scheme.lower()}://{rest}" if good and not bad else None


WORDS = ("red", "house", "by", "the", "sea", "with", "two", "small", "boats", "under", "grey", "clouds", "winter")
URLS = (
    *("http://images.example.org/{}.jpg", "https://cdn.example.com/a/b/{}.png?w=300", "/img/{}.jpg", "thumbs/{}.jpg"),
    *("//static.example.net/{}.webp", "../up/{}.gif", "data:image/gif;base64,R0lGOD{}", "./x/../{}.jpg", "?q={}", ""),
    *("ftp://old.example.org/{}.jpg", "http://[x/{}.jpg", "http:///{}.jpg", " /pad{}.jpg\n", "/a\tb{}.jpg", "#f{}"),
    *("javascript:void({})", "/ctl\x01{}.jpg", "HTTP://UPPER.example.org/{}.JPG", "/" + "long" * 600 + "{}", "/a;b?{}"),
)


def draw_sites(number, seed=0, images=12):
    """Return drawn pages, with all that goes wrong in real ones."""
    chance = random.Random(seed)
    sites = []
    for page in range(number):
        links = []
        for place in range(chance.randrange(images)):
            alt = chance.choice(
                [None, "", "  ", " ".join(chance.choices(WORDS, k=5)), "zwei\nZeilen\r", "日本の写真", 7]
            )
            title = chance.choice([None, None, alt, f"Titel {place}"])
            links.append(image(chance.choice(URLS).format(f"{page}-{place}"), alt, title))
            other = [None, {}, {"path": "A@/href", "url": "/x", "text": "y"}, {"path": "IMG@/longdesc"}, []]
            links.append(chance.choice(other))
        links.append({"path": "A@/href", "url": "/licence", "rel": "License nofollow"} if page % 5 == 0 else None)
        robots = chance.choice([None, "noindex", "noai, noimageai", ["all", "otherbot: noimageai"]])
        headers = {"content-type": "text/html"} | ({"x-robots-tag": robots} if robots else {})
        base = chance.choice([None, None, "/base/", "http://base.example.org/x/", "http://[bad", "", 3])
        head = {
            "Title": f"Seite {page}\n",
            "Metas": [{"name": "HTML@/lang", "content": "de"}, None, {"name": "Robots"}],
        }
        sites.append(
            Site(
                f"https://site{page % 7}.example.org/dir/page{page}.html",
                links if page % 11 else None,
                head | ({} if base is None else {"Base": base}),
                headers,
                has_metadata=page % 4 != 1,
                languages=chance.choice([Site("").languages, None, "{broken", '{"languages":null}']),
            )
        )
    return sites
