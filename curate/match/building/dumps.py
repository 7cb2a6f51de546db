"""Streams pages from Wikipedia's XML dumps, such as `DEwiki-DATE-pages-articles-multistream.xml.bz2`.

In: a file, and a range of its bytes. Out: the wikitext of its articles: pages of namespace 0 that are not redirects.

A multistream dump is a sequence of bzip2 streams; a part reads the streams that start in its byte range. A dump of one
stream, or of plain XML, is read as a whole by the part that contains its start. The XML is untrusted: pages have a
limit, and expat limits entities.
"""

import bz2
import re
from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import ParseError, XMLPullParser

from curate.base.errors import RunError, reraised

MAX_PAGE = 1 << 26  # bytes; MediaWiki's own limit is 2 MiB a page
_STREAM, _HEAD = re.compile(rb"BZh[1-9]1AY&SY"), 10  # start of a nonempty stream, and its length
_CHUNK = 1 << 20
_HINT = "download it again, and compare its checksum with the one on the page of the dump"


class Articles:
    """The articles in a part of a dump, and the dump's names for the file and category namespaces, in lower case."""

    def __init__(self, file: IO[bytes], path: str, start: int, stop: int) -> None:
        self._file, self._path, self._start, self._stop = file, path, start, stop
        self._is_last = False
        namespaces: set[str] = set()
        next(self._read(0, 1, namespaces), None)  # they precede the first page
        self.namespaces = frozenset(namespaces)

    def __iter__(self) -> Iterator[str]:
        return (text for text in self._read(self._start, self._stop, set()) if text is not None)

    def _read(self, start: int, stop: int, namespaces: set[str]) -> Iterator[str | None]:
        """Yield the pages in a part: an article's wikitext, or None for another page. Raises RunError.

        Adds names of the file and category namespaces to `namespaces`.
        """
        parser: Any = XMLPullParser(("start", "end"))
        if start:  # the root element is in the first part
            parser.feed(b"<mediawiki>")
        root: Any = None
        has_ended, size = False, 0  # bytes since the last page ended
        for chunk in self._chunks(start, stop):
            parser.feed(chunk)
            size += len(chunk)
            damage = f"{self._path}: damaged, or not the XML of a dump"
            with reraised(RunError, damage, ParseError, remedy=f"; {_HINT}"):
                for event, element in parser.read_events():
                    name = element.tag.rpartition("}")[2]
                    if event == "start" and root is None:
                        root = element
                        if name != "mediawiki":
                            error = f"the root of its XML is <{name[:40]}>; accepted: a dump, whose root is <mediawiki>"
                            raise RunError(f"{self._path}: {error}")
                    elif event == "end" and name == "page":
                        is_article = element.findtext("{*}ns") == "0" and element.find("{*}redirect") is None
                        yield (element.findtext("{*}revision/{*}text") or "") if is_article else None
                        element.clear()
                        root.clear()
                        size = 0
                    elif event == "end" and name == "namespace" and element.get("key") in ("-2", "6", "14"):
                        namespaces.add((element.text or "").lower())
                    elif event == "end":
                        has_ended |= element is root
            if size > MAX_PAGE:
                raise RunError(f"{self._path}: has a page that is too large; accepted: at most {MAX_PAGE:,} bytes")
        if self._is_last and not has_ended:
            raise RunError(f"{self._path}: is cut off: it ends without </mediawiki>; {_HINT}")

    def _chunks(self, start: int, stop: int) -> Iterator[bytes]:
        if self._path.lower().endswith(".bz2"):
            yield from self._unpack(start, stop)
        elif start == 0:
            self._file.seek(0)
            while chunk := self._file.read(_CHUNK):
                yield chunk
            self._is_last = True

    def _unpack(self, start: int, stop: int) -> Iterator[bytes]:
        at = _find_stream(self._file, start, stop)
        if at is None:
            if start == 0:
                raise RunError(f"{self._path}: has no bzip2 data; accepted: a dump, packed (.xml.bz2) or plain (.xml)")
            return
        self._file.seek(at)
        unread = b""
        while at < stop:
            unpacker = bz2.BZ2Decompressor()
            while not unpacker.eof:
                if unpacker.needs_input and not (unread := unread or self._file.read(_CHUNK)):
                    raise RunError(f"{self._path}: is cut off in the bzip2 stream at byte {at:,}; {_HINT}")
                damage = f"{self._path}: damaged in the bzip2 stream at byte {at:,}"
                with reraised(RunError, damage, OSError, remedy=f"; {_HINT}"):
                    chunk = unpacker.decompress(unread, _CHUNK)
                unread = b""
                if chunk:
                    yield chunk
            unread = unpacker.unused_data or self._file.read(_CHUNK)
            at = self._file.tell() - len(unread)
            if not unread:
                self._is_last = True
                return


def _find_stream(file: IO[bytes], start: int, stop: int) -> int | None:
    file.seek(start)
    before, at = b"", start
    while at < stop + _HEAD and (chunk := file.read(_CHUNK)):
        data = before + chunk
        if head := _STREAM.search(data):
            begin = at - len(before) + head.start()
            return begin if begin < stop else None
        before, at = data[1 - _HEAD :], at + len(chunk)
    return None
