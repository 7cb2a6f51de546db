"""Reads crawls: WAT and WARC files from Common Crawl. A row is a link to an image, with the text of the link.

A part is a span of a gzipped file, or a whole file that is not gzipped. An unreadable span becomes a failed row: its
status is `damaged_record`, and its key is the offset at which the span starts. To read kept rows again, curate seeks to
the offsets of their pages.
"""

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.core import split_protocol
from pydantic import Field

from curate.base import schema
from curate.base.numeric.arrays import whole
from curate.base.wording import one_line
from curate.pool.crawl import html, wat
from curate.pool.crawl.links import COLUMNS, MAX_OF_PAGE, OF_PAGE, ROWS, Page
from curate.pool.crawl.records import Lost, Record, Stream, read_records
from curate.pool.formats import input_format as interface
from curate.pool.formats.found_files import FoundFiles
from curate.pool.formats.input_format import Batches, InputPart, InputSample, PartRows, PlannedSource
from curate.read.columns import Columns
from curate.read.errors import InputError
from curate.read.listing import list_source
from curate.recipe.files import read_whole, unpack
from curate.recipe.source import Source

_SPAN = 1 << 26  # bytes per part: some 90,000 rows of a WAT
_ROW_BYTES = 750  # compressed bytes per row of a WAT: 300 MB have 405,232 links with an alt-text (cc2dataset's README)
_BATCH_ROWS = 1 << 14
_LISTS = (".paths", ".paths.gz")
_SERVER = "https://data.commoncrawl.org/"
_MAX_LIST = 1 << 28  # bytes
DAMAGED = "damaged_record"
_OF_ROW = [field for field in COLUMNS if field.name not in OF_PAGE.names]


_OTHER_TYPES = "request|metadata|warcinfo|revisit|resource|conversion|continuation"
_OTHER_TYPE = re.compile(rf'"WARC-Type"\s*:\s*"(?:{_OTHER_TYPES})"'.encode())


def read_pages(stream: Stream, start: int, stop: int) -> Iterator[Page | Lost]:
    """Yield the pages of a span, in order. Raises OSError if the file cannot be read."""
    if stream.has_members:
        yield from _pages(stream, start, stop)
    elif start == 0:
        yield from _pages(stream, start, sys.maxsize)


def _pages(stream: Stream, start: int, stop: int) -> Iterator[Page | Lost]:
    page: Page | None = None
    for item in read_records(stream, start):
        before, page = page, None
        lost, is_beyond = item if isinstance(item, Lost) else None, False
        try:
            if isinstance(item, Record) and not (before and _completes(before, item)):
                is_beyond = item.offset >= stop
                page = None if is_beyond else _read_page(item, stream.name)
        except (ValueError, RecursionError) as error:
            assert isinstance(item, Record)
            lost = Lost(item.offset, item.offset, one_line(error, 200))
        if before:
            yield before
        # If the damage begins at a member of the next span, that span reports it; otherwise, this span does
        if is_beyond or (isinstance(item, Lost) and item.start >= stop and stream.is_member(item.start)):
            return
        if lost:
            yield lost
    if page:
        yield page


def _read_page(record: Record, file: str) -> Page | None:
    if record.is_response:
        page = html.find_links(record)
        if page is None:
            return None
        page.facts |= {"warc_file": file, "warc_offset": record.offset}
        return replace(page, offset=record.offset, record_id=record.headers.get("warc-record-id"))
    content_type = record.headers.get("content-type")
    is_json = "json" in content_type if content_type else b"{" in record.content[:16]
    # Other types are not parsed. A record without a type may be a damaged response.
    if not is_json or (b'"response"' not in record.content and _OTHER_TYPE.search(record.content)):
        return None
    document = wat.read_json(record.content)
    kind = wat.read_header(document, "WARC-Type")
    if kind != "response":
        if kind and kind not in _OTHER_TYPES.split("|"):
            raise ValueError(f"it describes a record of type {kind[:50]!r}, which is not a type in WARC")
        return None
    record_id = wat.read_header(document, "WARC-Record-ID")
    return replace(wat.find_links(document), offset=record.offset, record_id=record_id)


def _completes(page: Page, record: Record) -> bool:
    """Add a metadata record to the page that it describes, and return whether it describes this page.

    Raises ValueError if the record is damaged.
    """
    if record.is_response or not page.images:
        return False
    if record.content[:1] != b"{":  # in a WARC, metadata are lines of fields
        is_its = record.headers.get("warc-concurrent-to") == page.record_id
        facts = html.page_facts(record) if is_its else {}
    elif b"WARC-Metadata-Metadata" in record.content:
        document = wat.read_json(record.content)
        is_its = wat.read_header(document, "WARC-Concurrent-To") == page.record_id
        facts = wat.page_facts(document) if is_its else {}
    else:
        return False
    if is_its and page.record_id:
        page.facts |= {name: value for name, value in facts.items() if page.facts.get(name) is None}
        return True
    return False


class CrawlSource(Source):
    """WAT and WARC files from Common Crawl: links to images with their texts. A second run downloads the images.

    Needs `pip install '.[crawl]'`. Each row has an image's URL and one text. The column `text_key` names the attribute
    that the text comes from: `alt` or `title`.

    - curate skips images without text. It also skips URLs that are not http or https, are longer than 2,048 characters,
      or have control characters. `curate sql RUN links` counts what it skipped.
    - From WARC files, curate also reads lazy-loading attributes, `srcset`, and `picture`. WAT files do not have them.
    - Columns such as `noai` have the page's robots directives. curate does not act on them unless you write a rule, as
      in the recipe `metaclip-crawl`.
    """

    example: ClassVar[Any] = {"name": "cc", "format": "commoncrawl", "path": "wat.paths.gz", "prefix": _SERVER}
    neutral_fields = frozenset({"prefix"})

    prefix: str = Field("", examples=[_SERVER, "s3://commoncrawl/"])
    """Text to put before each line of `path`, if `path` is a list of paths (`.paths`, `.paths.gz`)."""
    texts: Literal["alt", "alt+title"] = Field("alt", examples=["alt+title"])
    """HTML attributes whose texts become rows. With `alt+title`, an image whose two texts differ becomes two rows."""

    def row_fields(self) -> dict[str, Any]:
        return super().row_fields() | {"version": 2}  # version of the code: since 2, HTTP:// becomes lower case


class CommonCrawlInput(interface.InputFormat):
    """Links to images in WAT and WARC files."""

    key = "commoncrawl"
    section = CrawlSource
    suffixes = (".wat.gz", ".warc.gz", ".wat", ".warc", *_LISTS)
    opens_files = False

    def plan(self, source: CrawlSource, embeddings: interface.Embeddings, content: bool) -> PlannedSource:
        """List the files, including those in lists of paths, and split them into spans. This opens none of them."""
        interface.need_package(source, "resiliparse", "crawl")
        parts: list[InputPart] = []
        for file in list_source(source.model_copy(update={"path": _expand_lists(source)}), content):
            stops = range(_SPAN, file.size, _SPAN) if file.path.endswith(".gz") else ()
            for start, stop in itertools.pairwise([0, *stops, max(1, file.size)]):
                groups = start, stop
                # Do not open empty files: reading the kernel's log, whose size is 0, would block
                error = file.fault or (None if file.size else ("empty_file", "0 bytes"))
                parts.append(InputPart(file.path, stop - start, file.fingerprint, groups, fault=error))
        return PlannedSource(tuple(parts), (interface.FileColumns.of(COLUMNS, Columns()),))

    def recognize(self, listed: FoundFiles) -> interface.Recognized | None:
        recognized = super().recognize(listed)
        prefix = {"prefix": _SERVER} if listed.ending(*_LISTS) else {}
        return recognized and interface.Recognized(recognized.keys | prefix, recognized.files, "texts")

    def read(self, source: CrawlSource, part: InputPart, scores: pa.Schema, output: pa.Schema | None) -> Batches:
        assert part.groups is not None
        with_title = source.texts != "alt"
        pages: list[Page | Lost] = []
        rows = 0
        with _opened(source, part) as stream:
            for page in read_pages(stream, *part.groups):
                if isinstance(page, Lost) and page.start == 0 and page.stop >= stream.size:
                    raise InputError("not_warc", page.error)
                for piece in _pieces(page) if isinstance(page, Page) else (page,):
                    pages.append(piece)
                    rows += len(piece.images) if isinstance(piece, Page) else 1
                    if rows >= _BATCH_ROWS:
                        yield _make_batch(pages, with_title, scores)
                        pages, rows = [], 0
        yield _make_batch(pages, with_title, scores)

    def reread(self, source: CrawlSource, part: InputPart, rows: PartRows) -> Iterator[InputSample]:
        for fields in self.reread_table(source, part, rows, COLUMNS).to_pylist():
            yield InputSample([], fields)

    def reread_table(self, source: CrawlSource, part: InputPart, rows: PartRows, output: pa.Schema) -> pa.Table:
        wanted: dict[int, set[int]] = {}
        for offset, key in zip(*(rows.samples[name].to_pylist() for name in ("offset", "key")), strict=True):
            wanted.setdefault(offset, set()).add(int(key.split("-")[1]))
        pages = []
        with _opened(source, part) as stream:
            for offset, positions in sorted(wanted.items()):
                page = next(_pages(stream, offset, offset + 1), None)
                if isinstance(page, Page):
                    page.images = [image for image in page.images if image[3] in positions]
                    pages.append(page)
        table, _ = _make_table(pages, source.texts != "alt")
        table = table.take(pc.index_in(whole(rows.samples["key"]), whole(table["key"])))
        return pa.table(
            [table[f.name] if f.name in COLUMNS.names else pa.nulls(len(table), f.type) for f in output], schema=output
        )

    def missing_column(self, source: CrawlSource, name: str) -> str:
        return f"its columns: {', '.join(COLUMNS.names)}"

    def weight(self, part: InputPart, has_images: bool) -> int:
        return part.size // _ROW_BYTES + 1


def _expand_lists(source: CrawlSource) -> tuple[str, ...]:
    paths: list[str] = []
    for path in source.paths:
        if not path.endswith(_LISTS):
            paths.append(path)
            continue
        try:
            is_beside = not source.prefix or split_protocol(path)[0] == split_protocol(source.prefix)[0]
            storage = source.storage if is_beside else {}  # otherwise, the options are for the file system of the files
            content = unpack(read_whole(path, _MAX_LIST, storage), _MAX_LIST)
            lines = [line for line in content.decode().replace("\r\n", "\n").split("\n") if line.strip()]
        except (OSError, ValueError, ImportError) as error:
            accepted = "accepted: a list with one path per line, plain or gzipped"
            raise source.error(f"{path}: {one_line(error, 200)}; {accepted}") from None
        if not lines:
            raise source.error(f"{path}: the list of paths is empty")
        paths += [f"{source.prefix}{line}" for line in lines]
    return tuple(paths)


@contextmanager
def _opened(source: CrawlSource, part: InputPart) -> Iterator[Stream]:
    with fsspec.open(part.path, "rb", **source.storage) as file:
        yield Stream(file, part.path.rpartition("/")[2])


def _make_table(pages: Sequence[Page], with_title: bool) -> tuple[pa.Table, Counter[str]]:
    """Return the pages' rows, each with its page's offset (int64), and the counts."""
    counts: Counter[str] = Counter()
    rows: list[tuple[Any, ...]] = []  # page number, and the columns in `_OF_ROW`
    images = 0
    for number, page in enumerate(pages):
        counts.update(page.counts)
        images += len(page.images)
        for url, alt, title, position, attribute, largest in page.images:
            of_image = alt, title, position, attribute, largest
            if alt is not None:
                rows.append((number, url, alt, f"{page.offset}-{position}", "alt", *of_image))
            if with_title and title is not None and title != alt:
                rows.append((number, url, title, f"{page.offset}-{position}-title", "title", *of_image))
    numbers, *values = zip(*rows, strict=True) if rows else [()] * (1 + len(_OF_ROW))
    columns = {f.name: pa.array(column, f.type) for f, column in zip(_OF_ROW, values, strict=True)}
    for field in OF_PAGE:
        of_pages: list[Any] = [page.facts.get(field.name) for page in pages]
        if field.type == pa.string():
            of_pages = [value and value[:MAX_OF_PAGE] for value in of_pages]
        columns[field.name] = pa.array(of_pages, field.type).take(pa.array(numbers, pa.int64()))
    counts[ROWS] += len(rows)
    if not with_title:  # then an image that has only a title does not become a row
        counts["no_text"] += images - len(rows)
    table = pa.table([columns[name] for name in COLUMNS.names], schema=COLUMNS)
    offsets = pa.array([page.offset for page in pages], pa.int64()).take(pa.array(numbers, pa.int64()))
    return table.append_column("offset", offsets), counts


def _pieces(page: Page) -> Iterator[Page]:
    """Yield a page in pieces with at most a batch of images; the first piece has the counts."""
    for start in range(0, max(1, len(page.images)), _BATCH_ROWS):
        counts = Counter() if start else page.counts
        yield replace(page, images=page.images[start : start + _BATCH_ROWS], counts=counts)


def _make_batch(pages: Sequence[Page | Lost], with_title: bool, scores: pa.Schema) -> interface.Batch:
    table, counts = _make_table([page for page in pages if isinstance(page, Page)], with_title)
    errors = None
    if lost := [page for page in pages if isinstance(page, Lost)]:
        status = np.repeat([schema.OK, DAMAGED], [len(table), len(lost)])
        errors = pa.array(status, pa.string()), pa.array([*[None] * len(table), *map(str, lost)], pa.string())
        starts = pa.array([span.start for span in lost], pa.int64())
        failed = pa.table({"key": starts.cast(pa.string()), "offset": starts})
        table = pa.concat_tables([table, failed], promote_options="default")
    columns = {name: whole(table[name]) for name in ("url", "caption", "key", "offset")}
    return interface.Batch(columns, errors, scores={name: table[name] for name in scores.names}, links=counts)
