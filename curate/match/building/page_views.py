"""Counts the views of titles in Wikimedia's hourly page views: `pageviews-YYYYMMDD-HH0000.gz`.

In: lines `project title views bytes` of all projects. Out: title (string) · views (int64) for each wiki, and how many
lines were broken: such as have no four words, or a number of views that is none, or a title that is not UTF-8.

A title with ":" is not of an article; "_" is a space. MetaCLIP counts the desktop site of English alone, and there
what has at least 50 views in an hour. MetaCLIP 2 counts the mobile sites too (de.m), and by a fault the sister projects
of the language (de.b are its books); in the mode `corrected` they stay out.
"""

import zlib
from collections.abc import Callable, Collection
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from curate.base.errors import RunError
from curate.match.building.wikis import Mode, normal_name

_NAMES = ["project", "title", "views", "bytes"]
_BLOCK = 1 << 24
_LONGEST = 1 << 20  # bytes of a line
_HOURLY = 50  # views that MetaCLIP asks for


def count_views(path: str, wikis: Collection[str], mode: Mode) -> tuple[dict[str, pa.Table], int]:
    """Return the titles of each wiki with their views, and the number of broken lines. Raises RunError."""
    lines = broken = 0

    def skip(row: csv.InvalidRow) -> Literal["skip"]:
        nonlocal broken
        broken += 1
        return "skip"

    counted: dict[str, list[pa.Table]] = {}
    names: dict[bytes, str | None] = {}
    try:
        with fsspec.open(path, "rb", compression="gzip" if path.endswith(".gz") else None) as file:
            while block := file.read(_BLOCK) + file.readline(_LONGEST):
                if len(block) > _BLOCK and len(block) - block.rfind(b"\n") > _LONGEST:
                    raise RunError(f"{path}: has a line of more than {_LONGEST:,} bytes; accepted: hourly page views")
                good = _without_odd_lines(block)
                broken += block.count(b"\n") - good.count(b"\n")
                batch = _parse(good, skip)
                column: Any = batch["project"].combine_chunks()
                projects = column.dictionary.to_pylist()
                for project in projects:
                    if project not in names:
                        names[project] = _wiki_of(project, wikis, mode)
                wiki_of = pa.array([names[project] for project in projects], pa.string())
                of_rows = wiki_of.take(column.indices)
                broken += _count_batch(batch, of_rows, counted, mode)
                lines += len(batch)
    except pa.ArrowInvalid as error:
        raise RunError(f"{path}: cannot be read ({error})") from None
    except (EOFError, zlib.error, OSError) as error:
        raise RunError(f"{path}: damaged or cut off ({error}); download it again") from None
    if broken > lines:
        what = f"{broken:,} of its lines are not project, title, views and bytes"
        raise RunError(f"{path}: {what}; accepted: hourly page views, such as pageviews-20260101-000000.gz")
    return {wiki: _sum(pa.concat_tables(tables)) for wiki, tables in counted.items()}, broken


def _without_odd_lines(block: bytes) -> bytes:
    """Return lines without those that are broken and not UTF-8, which Arrow cannot skip."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return b"".join(line + b"\n" for line in block.splitlines() if line.count(b" ") == 3)
    return block


def _parse(lines: bytes, skip: Callable[[csv.InvalidRow], Literal["skip"]]) -> pa.Table:
    """Return project, title and views (binary) of lines; `skip` takes those that have no four words."""
    types = {"project": pa.dictionary(pa.int32(), pa.binary()), "title": pa.binary(), "views": pa.binary()}
    if not lines.strip():
        return pa.schema(types).empty_table()
    opened: Any = pa.BufferReader(lines)
    return csv.read_csv(
        opened,
        csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=_NAMES),
        csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, invalid_row_handler=skip),
        csv.ConvertOptions(check_utf8=False, column_types=types, include_columns=_NAMES[:3], strings_can_be_null=False),
    )


def _wiki_of(project: bytes, wikis: Collection[str], mode: Mode) -> str | None:
    """Return the wiki that a project's views count for."""
    name = project.decode("ascii", "replace")
    if mode is not Mode.worldwide:
        name = name.removesuffix(".m") if mode is Mode.corrected else name
        wiki = normal_name(name) if "." not in name else ""
    else:
        wiki = normal_name(name.replace(".m", "").partition(".")[0])
    if wiki == "en" and project != b"en":  # its list is MetaCLIP's
        return None
    return wiki if wiki in wikis else None


def _count_batch(batch: Any, of_rows: pa.Array, counted: dict[str, list[pa.Table]], mode: Mode) -> int:
    """Add the titles of a table that `_parse` returns; return how many lines of these wikis are broken."""
    table = pa.table({"wiki": of_rows, "title": batch["title"], "views": batch["views"]}).filter(of_rows.is_valid())
    rows: Any = table.filter(pc.match_substring_regex(table["views"], r"\A[0-9]{1,18}\z"))
    titles: Any = pc.replace_substring(_decode(rows["title"].combine_chunks()), "_", " ")
    views = rows["views"].cast(pa.string()).cast(pa.int64())
    least: Any = _HOURLY if mode is Mode.reference else pc.if_else(pc.equal(rows["wiki"], pa.scalar("en")), _HOURLY, 1)
    keep = pc.and_not(pc.greater_equal(views, least), pc.match_substring(titles, ":"))
    kept: Any = pa.table({"wiki": rows["wiki"], "title": titles, "views": views}).filter(keep)  # where it is null, not
    for wiki in pc.unique(kept["wiki"]).to_pylist():
        counted.setdefault(wiki, []).append(kept.filter(pc.equal(kept["wiki"], wiki)).select(["title", "views"]))
    return int(len(table) - len(rows) + titles.null_count)


def _decode(titles: pa.Array) -> pa.Array:
    """Return titles as large_string, null where they are not UTF-8."""
    try:
        return titles.cast(pa.large_string())
    except pa.ArrowInvalid:
        octets: Any = titles.to_pylist()
        texts = [title.decode("utf-8", "replace") for title in octets]
        whole = [text if text.encode() == title else None for text, title in zip(texts, octets, strict=True)]
        return pa.array(whole, pa.large_string())


def _sum(table: pa.Table) -> pa.Table:
    return table.group_by("title", use_threads=False).aggregate([("views", "sum")]).rename_columns(["title", "views"])
