"""Reads pages out of Wikipedia's XML dumps, as a stream: `DEwiki-DATE-pages-articles-multistream.xml.bz2` and the like.

In: a file, and which of its bytes. Out: the wikitext of its articles: pages of namespace 0 that are no redirects.

A multistream dump is bzip2 streams one behind another, of some hundred pages each; a part of it is the streams that
begin among some bytes, so that parts are read side by side. A dump of one stream, or of plain XML, is read by the part
that has its beginning. In memory are a page and a few megabytes. The XML is untrusted: it may have no DOCTYPE, so no
entities, no page of more than MAX_PAGE characters, and nothing nested deeper than MAX_DEPTH.
"""

import bz2
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from curate.base.errors import RunError

MAX_PAGE, MAX_DEPTH = 1 << 26, 16  # MediaWiki's own limit is 2 MiB a page
_STREAM = b"1AY&SY"  # behind BZh1 to BZh9: how a stream begins that holds anything
_HEAD = 4 + len(_STREAM)
_CHUNK = 1 << 20
_HINT = "download it again, and compare its checksum with the one on the page of the dump"


class Articles:
    """The articles of a part of a dump, as an iterator of wikitext.

    `namespaces` are the names of its files, media and categories, in lower case, from the head of the file.
    """

    def __init__(self, file: IO[bytes], path: str, start: int, stop: int) -> None:
        """Read the streams of `file` that begin at bytes `start` to `stop`; `path` is for messages."""
        self._file, self._path, self._start, self._stop = file, path, start, stop
        self._is_packed = path.lower().endswith(".bz2")
        self._is_last = False
        self.pages = 0  # that were read so far, of any kind
        head = _Parser(path, is_first=True)
        for chunk in self._chunks(0, 1):
            head.feed(chunk)
            if head.has_namespaces or head.pages:
                break
        self.namespaces = frozenset(head.namespaces)

    def __iter__(self) -> Iterator[str]:
        """Yield wikitext. Raises RunError where the file is damaged, cut, or no dump."""
        parser = _Parser(self._path, is_first=self._start == 0)
        for chunk in self._chunks(self._start, self._stop):
            parser.feed(chunk)
            self.pages += len(parser.pages)
            yield from (text for text in parser.pages if text is not None)
            parser.pages.clear()
        if self._is_last and not parser.has_ended:
            raise RunError(f"{self._path}: is cut off: it ends without </mediawiki>; {_HINT}")

    def _chunks(self, start: int, stop: int) -> Iterator[bytes]:
        return self._unpack(start, stop) if self._is_packed else self._read_plain(start)

    def _read_plain(self, start: int) -> Iterator[bytes]:
        self._file.seek(0)
        while start == 0 and (chunk := self._file.read(_CHUNK)):
            yield chunk
        self._is_last = start == 0

    def _unpack(self, start: int, stop: int) -> Iterator[bytes]:
        at = _find_stream(self._file, start, stop)
        if at is None:
            if start == 0:
                raise RunError(f"{self._path}: holds no bzip2; accepted: a dump, packed (.xml.bz2) or plain (.xml)")
            return
        self._file.seek(at)
        unread = b""
        while at < stop:
            unpacker = bz2.BZ2Decompressor()
            while not unpacker.eof:
                if unpacker.needs_input and not (unread := unread or self._file.read(_CHUNK)):
                    raise RunError(f"{self._path}: is cut off in the bzip2 stream at byte {at:,}; {_HINT}")
                try:
                    chunk = unpacker.decompress(unread, _CHUNK)
                except OSError as error:
                    what = f"damaged in the bzip2 stream at byte {at:,} ({error})"
                    raise RunError(f"{self._path}: {what}; {_HINT}") from None
                unread = b""
                if chunk:
                    yield chunk
            unread = unpacker.unused_data or self._file.read(_CHUNK)
            at = self._file.tell() - len(unread)
            if not unread:
                self._is_last = True
                return


def _find_stream(file: IO[bytes], start: int, stop: int) -> int | None:
    """Return where the first stream begins that begins at `start` or later, and before `stop`."""
    file.seek(start)
    before, at = b"", start
    while at < stop + _HEAD and (chunk := file.read(_CHUNK)):
        data, place = before + chunk, 0
        while (place := data.find(_STREAM, place)) >= 0:
            head = data[max(0, place - 4) : place]
            if len(head) == 4 and head[:3] == b"BZh" and head[3:] in b"123456789":
                begin = at - len(before) + place - 4
                return begin if begin < stop else None
            place += 1
        before, at = data[1 - _HEAD :], at + len(chunk)
    return None


class _Parser:
    """Parses XML as it comes; `pages` are those that have ended: an article's wikitext, None for another page."""

    def __init__(self, path: str, is_first: bool) -> None:
        self._path = path
        self.pages: list[str | None] = []
        self.namespaces: set[str] = set()
        self.has_ended = self.has_namespaces = False
        self._elements: list[str] = []
        self._text: list[str] = []  # of the element that is read
        self._size = 0
        self._page: dict[str, str | None] = {}
        self._key = ""
        self._parser = expat.ParserCreate("UTF-8")
        self._parser.buffer_text, self._parser.buffer_size = True, 1 << 16
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._begin, self._end
        self._parser.CharacterDataHandler = None
        self._parser.StartDoctypeDeclHandler = self._refuse
        if not is_first:  # the element around all is in the first part
            self._parser.Parse(b"<mediawiki>")

    def feed(self, data: bytes) -> None:
        """Parse more. Raises RunError where it is no XML of a dump."""
        if self.has_ended and not data.strip():
            return
        try:
            self._parser.Parse(data)
        except expat.ExpatError as error:
            where = f"line {error.lineno:,} of the part"
            raise RunError(f"{self._path}: damaged or no XML of a dump, at {where}: {error}; {_HINT}") from None

    def _refuse(self, *_: object) -> None:
        raise RunError(f"{self._path}: its XML has a DOCTYPE, which no dump has; accepted: a dump of Wikipedia's")

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self._elements and name != "mediawiki":
            raise RunError(f"{self._path}: its XML is of <{name[:40]}>; accepted: a dump, which is of <mediawiki>")
        self._elements.append(name)
        if len(self._elements) > MAX_DEPTH:
            raise RunError(f"{self._path}: its XML is nested over {MAX_DEPTH} deep; accepted: a dump of Wikipedia's")
        if name == "page":
            self._page, self._size = {}, 0
        elif name == "redirect":
            self._page["redirect"] = ""
        elif name in ("ns", "text", "namespace"):
            self._key, self._text = attributes.get("key", ""), []
            self._parser.CharacterDataHandler = self._add

    def _add(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_PAGE:
            raise RunError(f"{self._path}: a page of over {MAX_PAGE:,} characters; accepted: at most that")
        self._text.append(text)

    def _end(self, name: str) -> None:
        self._elements.pop()
        self.has_ended = not self._elements
        self.has_namespaces |= name == "namespaces"
        if name in ("ns", "text", "namespace"):
            self._parser.CharacterDataHandler = None
            text = "".join(self._text)
            if name != "namespace":
                self._page[name] = text
            elif self._key in ("-2", "6", "14"):
                self.namespaces.add(text.lower())
        elif name == "page":
            is_article = self._page.get("ns") == "0" and "redirect" not in self._page
            self.pages.append(self._page.get("text") or "" if is_article else None)
            self._page = {}
