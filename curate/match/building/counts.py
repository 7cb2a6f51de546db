"""Counts the words in a part, and writes the counts to files in the build's folder (see `CountFile`).

Each thread holds a block of text and its tables in memory, about 600 MB at most.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from curate.base.errors import RunError, reraised
from curate.base.process import groups
from curate.match.building.ngrams import WORDS, count_ngrams
from curate.match.building.parts import Part
from curate.match.building.tokens import Tokenizer
from curate.match.building.wikis import BuildSettings, Mode, normal_name
from curate.match.building.wikitext import read_texts
from curate.match.building.wordnets import name_order, read_wordnet

BLOCK = 1 << 25  # bytes of text counted at a time
_NAMES = ["project", "title", "views", "bytes"]
_BLOCK = 1 << 24
_LONGEST = 1 << 20  # bytes of a line
_HOURLY = 50  # MetaCLIP's minimum views


@dataclass
class Totals:
    """Totals over parts, with `add` and `merge` for `curate.run.units.Total`."""

    tokens: Counter[str] = field(default_factory=Counter)  # counted tokens, by wiki
    titles: Counter[str] = field(default_factory=Counter)  # with repeats across files
    names: Counter[str] = field(default_factory=Counter)  # of wordnets
    pages: Counter[str] = field(default_factory=Counter)  # texts
    octets: Counter[str] = field(default_factory=Counter)  # bytes of these
    broken: Counter[str] = field(default_factory=Counter)  # lines, by file of page views

    def add(self, other: "Totals") -> None:
        for name, numbers in vars(other).items():
            getattr(self, name).update(numbers)

    merge = add


class CountFile(NamedTuple):
    """A file with counts from a wiki.

    By kind: `words` (word large_string · count int64) of a block of text, with `pairs` (first, second int32: rows of
    words · count int64) in the file of `pairs_name`; `titles` (word · count) of a file of page views; `names` (word ·
    count 1, in order) of a wordnet.
    """

    wiki: str
    kind: str
    name: str
    order: int = 0  # of names within the wiki

    @property
    def pairs_name(self) -> str:
        return self.name.replace("words", "pairs")


class Counted(NamedTuple):
    """A part that was counted."""

    unit: Part
    files: tuple[CountFile, ...]
    totals: Totals


def count_part(_tables: object, part: Part, settings: BuildSettings) -> Counted:
    """Count a part, and store its tables in the folder. Raises RunError if its file is damaged."""
    files: list[CountFile] = []
    totals = Totals()

    def keep(kind: str, wiki: str, table: pa.Table, order: int = 0) -> CountFile:
        file = CountFile(wiki, kind, f"counts/{part.index:06}-{len(files)}-{kind}.parquet", order)
        settings.store.write_parquet(file.name, table)
        files.append(file)
        return file

    if part.kind == "views":
        counted, broken = count_views(part.path, settings.keys, settings.mode)
        for wiki, table in sorted(counted.items()):
            keep("titles", wiki, table.rename_columns(WORDS.names).cast(WORDS))
            totals.titles[wiki] = len(table)
        totals.broken.update({part.path: broken} if broken else {})
    elif part.kind == "wordnet":
        names = read_wordnet(part.path)
        table = pa.table({"word": names, "count": [1] * len(names)}, schema=WORDS)
        keep("names", part.wiki, table, name_order(part.path))
        totals.names[part.wiki] = len(names)
    else:
        tokenizer = Tokenizer(part.wiki, settings.mode is Mode.corrected)
        for texts in groups(map(tokenizer.encode, read_texts(part)), len, BLOCK):
            block = b"".join(texts)
            words, pairs = count_ngrams(block, tokenizer.classes)
            settings.store.write_parquet(keep("words", part.wiki, words).pairs_name, pairs)
            totals.tokens[part.wiki] += int(pc.sum(words["count"]).as_py() or 0)
            totals.pages[part.wiki] += len(texts)
            totals.octets[part.wiki] += len(block)
    return Counted(part, tuple(files), totals)


def count_views(path: str, wikis: Collection[str], mode: Mode) -> tuple[dict[str, pa.Table], int]:
    """Return the titles of each wiki with their views (title string · views int64) in Wikimedia's hourly page views.

    Also returns the number of broken lines. A title with ":" is not an article's; "_" is a space. MetaCLIP counts only
    the desktop site of English, and there only titles with at least 50 views in an hour. MetaCLIP 2 also counts mobile
    sites (de.m) and, by mistake, sister projects of the language (de.b are books); mode `corrected` leaves these out.

    Raises RunError.
    """
    lines = broken = 0

    def skip(row: csv.InvalidRow) -> Literal["skip"]:
        nonlocal broken
        broken += 1
        return "skip"

    counted: dict[str, list[pa.Table]] = {}
    kinds = pa.ArrowInvalid, EOFError, zlib.error, OSError
    damaged = reraised(RunError, f"{path}: damaged or cut off", *kinds, remedy="; download it again")
    with damaged, fsspec.open(path, "rb", compression="gzip" if path.endswith(".gz") else None) as file:
        while block := file.read(_BLOCK) + file.readline(_LONGEST):
            if len(block) > _BLOCK and len(block) - block.rfind(b"\n") > _LONGEST:
                raise RunError(f"{path}: has a line of more than {_LONGEST:,} bytes; accepted: hourly page views")
            good = _utf8_lines(block)
            broken += block.count(b"\n") - good.count(b"\n")
            if good.strip():
                table = _parse(good, skip)
                lines += len(table)
                broken += _count_block(table, wikis, mode, counted)
    if broken > lines:
        message = f"{broken:,} of its lines do not consist of project, title, views, and bytes"
        raise RunError(f"{path}: {message}; accepted: hourly page views, such as pageviews-20260101-000000.gz")
    return {wiki: _sum(pa.concat_tables(tables)) for wiki, tables in counted.items()}, broken


def _utf8_lines(block: bytes) -> bytes:
    """Return the lines that are UTF-8, because Arrow cannot skip others."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return b"\n".join(line for line in block.split(b"\n") if line.decode(errors="ignore").encode() == line)
    return block


def _parse(lines: bytes, skip: Callable[[csv.InvalidRow], Literal["skip"]]) -> pa.Table:
    types = {"project": pa.dictionary(pa.int32(), pa.string()), "title": pa.large_string(), "views": pa.string()}
    opened: Any = pa.BufferReader(lines)
    return csv.read_csv(
        opened,
        csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=_NAMES),
        csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False, invalid_row_handler=skip),
        csv.ConvertOptions(column_types=types, include_columns=_NAMES[:3], strings_can_be_null=False),
    )


def _count_block(lines: pa.Table, wikis: Collection[str], mode: Mode, counted: dict[str, list[pa.Table]]) -> int:
    """Add the titles of lines to their wikis; return the number of these wikis' lines without a number of views."""
    projects: Any = lines["project"].combine_chunks()
    names = pa.array([_wiki_of(project, wikis, mode) for project in projects.dictionary.to_pylist()], pa.string())
    table = lines.set_column(0, "wiki", names.take(projects.indices))
    table = table.filter(table["wiki"].is_valid())
    rows: Any = table.filter(pc.match_substring_regex(table["views"], r"\A[0-9]{1,18}\z"))
    titles, views = pc.replace_substring(rows["title"], "_", " "), rows["views"].cast(pa.int64())
    limit: Any = _HOURLY if mode is Mode.reference else pc.if_else(pc.equal(rows["wiki"], pa.scalar("en")), _HOURLY, 1)
    is_counted = pc.and_not(pc.greater_equal(views, limit), pc.match_substring(titles, ":"))
    kept: Any = pa.table({"wiki": rows["wiki"], "title": titles, "views": views}).filter(is_counted)
    for wiki in pc.unique(kept["wiki"]).to_pylist():
        counted.setdefault(wiki, []).append(kept.filter(pc.equal(kept["wiki"], wiki)).select(["title", "views"]))
    return len(table) - len(rows)


def _wiki_of(project: str, wikis: Collection[str], mode: Mode) -> str | None:
    name = project
    if mode is not Mode.worldwide:
        name = name.removesuffix(".m") if mode is Mode.corrected else name
        wiki = normal_name(name) if "." not in name else ""
    else:
        wiki = normal_name(name.replace(".m", "").partition(".")[0])
    if wiki == "en" and project != "en":  # English is counted as in MetaCLIP
        return None
    return wiki if wiki in wikis else None


def _sum(table: pa.Table) -> pa.Table:
    return table.group_by("title", use_threads=False).aggregate([("views", "sum")]).rename_columns(["title", "views"])
