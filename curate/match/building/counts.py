"""Counts of a part, kept in the build's folder, and sent on in buckets by word: Arrow tables as bytes.

Out, for each wiki: `words` (word large_string · count int64) and `pairs` (first, second int32: rows of words · count
int64) of each block; `titles` (word · count) of a file of page views; `names` (word · count 1, in order) of a wordnet.

Of pairs only those are sent that may still have a pointwise mutual information of the threshold: since n_xy is at most
n_x and n_y, log2(n_xy·N / (n_x·n_y)) is at most log2(N / max(n_x, n_y)). With 30, that is a pair in some hundred. In
memory are a block of text and its tables, some 600 MB at most, for each thread.
"""

import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from curate.base.errors import RunError
from curate.base.numeric.arrays import split_by, whole
from curate.base.schema import define
from curate.match.building.ngrams import PAIRS, WORDS, count_ngrams, hash_words
from curate.match.building.parts import Part
from curate.match.building.tokens import Tokeniser
from curate.match.building.wikis import BuildSettings, Mode, normal_name
from curate.match.building.wikitext import read_texts
from curate.match.building.wordnets import name_order, read_wordnet

BLOCK = 1 << 25  # bytes of text that are counted at a time
_OF_BUCKET = 20_000_000  # tokens, or a quarter as many titles
_MOST_BUCKETS = 1024
WHOLE = -1  # in place of a bucket: what the wiki has as a whole
_SLACK = 1 + 1e-9  # of what is compared in floating point
SENT_PAIRS = define(first=pa.large_string(), second=pa.large_string(), count=pa.int64())
_NAMES = ["project", "title", "views", "bytes"]
_BLOCK = 1 << 24
_LONGEST = 1 << 20  # bytes of a line
_HOURLY = 50  # views that MetaCLIP asks for


@dataclass
class Totals:
    """What parts held; `add` and `merge` as `curate.run.units.Total` has them."""

    tokens: dict[str, int] = field(default_factory=dict)  # that were counted, by wiki
    titles: dict[str, int] = field(default_factory=dict)  # with repeats in several files
    names: dict[str, int] = field(default_factory=dict)  # of wordnets
    pages: dict[str, int] = field(default_factory=dict)  # texts
    octets: dict[str, int] = field(default_factory=dict)  # bytes of these
    broken: dict[str, int] = field(default_factory=dict)  # lines, by file of page views

    def add(self, other: "Totals") -> None:
        for name, numbers in vars(other).items():
            totals = getattr(self, name)
            for key, number in numbers.items():
                totals[key] = totals.get(key, 0) + number

    merge = add

    def buckets(self, wiki: str) -> int:
        n = self.tokens.get(wiki, 0) // _OF_BUCKET + self.titles.get(wiki, 0) // (_OF_BUCKET // 4)
        return min(1 + n, _MOST_BUCKETS)

    def rarest(self, wiki: str, pmi: float) -> float:
        """Return how often a word may be there at most that is in a pair of so much mutual information."""
        return self.tokens.get(wiki, 0) * float(2.0**-pmi) * _SLACK


class Counted(NamedTuple):
    """A part that was counted: its files, as what they hold and of which wiki; and its totals."""

    unit: Part
    files: tuple[tuple[str, str, str], ...]
    totals: Totals


def count_part(_tables: object, part: Part, settings: BuildSettings) -> Counted:
    """Count a part, and keep its tables in the folder. Raises RunError where its file is damaged."""
    files: list[tuple[str, str, str]] = []
    totals = Totals()

    def keep(kind: str, wiki: str, table: pa.Table) -> str:
        name = f"counts/{part.index:06}-{len(files)}-{kind}.parquet"
        settings.store.write_parquet(name, table)
        files.append((kind, wiki, name))
        return name

    if part.kind == "views":
        counted, broken = count_views(part.path, settings.keys, settings.mode)
        for wiki, table in sorted(counted.items()):
            keep("titles", wiki, table.rename_columns(WORDS.names).cast(WORDS))
            totals.titles[wiki] = len(table)
        totals.broken = {part.path: broken} if broken else {}
    elif part.kind == "wordnet":
        names = read_wordnet(part.path)
        keep("names", part.wiki, pa.table({"word": names, "count": [1] * len(names)}, schema=WORDS))
        totals.names[part.wiki] = len(names)
    else:
        tokeniser = Tokeniser(part.wiki, settings.is_corrected)
        for block, pages in _blocks(part, tokeniser):
            words, pairs = count_ngrams(block, tokeniser.classes)
            keep("words", part.wiki, words)
            keep("pairs", part.wiki, pairs)
            tokens = int(pc.sum(words["count"]).as_py() or 0)
            totals.add(Totals({part.wiki: tokens}, pages={part.wiki: pages}, octets={part.wiki: len(block)}))
    return Counted(part, tuple(files), totals)


def _blocks(part: Part, tokeniser: Tokeniser) -> Iterator[tuple[bytes, int]]:
    block, pages = bytearray(), 0
    for text in read_texts(part):
        block += tokeniser.encode(text)
        pages += 1
        if len(block) >= BLOCK:
            yield bytes(block), pages
            block, pages = bytearray(), 0
    if pages:
        yield bytes(block), pages


def send(_tables: object, state: Counted, settings: BuildSettings, totals: Totals) -> Iterator[tuple[Any, Any]]:
    """Yield a part's counts by (wiki, bucket): what they are of, their order, and a table as bytes."""
    words: Any = None
    counts: Any = None
    if state.unit.wiki:
        yield (state.unit.wiki, WHOLE), ("wiki", 0, b"")  # which has entries, even if it has no word
    for kind, wiki, name in state.files:
        table = settings.store.read_parquet(name)
        buckets = totals.buckets(wiki)
        if kind == "names":
            yield (wiki, WHOLE), (kind, name_order(state.unit.path), to_bytes(table))
            continue
        if kind == "pairs":
            table = _name_pairs(table, words, counts <= totals.rarest(wiki, settings.limits.pmi))
        else:
            words, counts = whole(table["word"]), table["count"].to_numpy()
        for bucket, rows in split_table(table, table.column_names[0], buckets):
            yield (wiki, bucket), (kind, 0, to_bytes(rows))


def split_table(table: pa.Table, by: str, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield each bucket that is not empty, and its rows, by the hash of a column."""
    if buckets == 1 and len(table):
        yield 0, table
        return
    numbers = (hash_words(whole(table[by])) % np.uint64(buckets)).astype(np.int64)
    for bucket, rows in enumerate(split_by(np.arange(len(table)), numbers, buckets)):
        if len(rows):
            yield bucket, table.take(rows)


def _name_pairs(pairs: pa.Table, words: pa.Array, is_rare: Any) -> pa.Table:
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    pairs = pairs.filter(is_rare[first] & is_rare[second])
    sides = [words.take(pairs[name].combine_chunks()) for name in PAIRS.names[:2]]
    return pa.table([*sides, pairs["count"]], schema=SENT_PAIRS)


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """Return the table of `to_bytes`."""
    return pa.ipc.open_stream(data).read_all()


def count_views(path: str, wikis: Collection[str], mode: Mode) -> tuple[dict[str, pa.Table], int]:
    """Return the titles of each wiki with their views (title string · views int64) in Wikimedia's hourly page views.

    And how many lines were broken. A title with ":" is not of an article; "_" is a space. MetaCLIP counts the desktop
    site of English alone, and there what has at least 50 views in an hour. MetaCLIP 2 counts the mobile sites too
    (de.m), and by a fault the sister projects of the language (de.b are its books), which stay out in mode `corrected`.

    Raises RunError.
    """
    lines = broken = 0

    def skip(row: csv.InvalidRow) -> Literal["skip"]:
        nonlocal broken
        broken += 1
        return "skip"

    counted: dict[str, list[pa.Table]] = {}
    try:
        with fsspec.open(path, "rb", compression="gzip" if path.endswith(".gz") else None) as file:
            while block := file.read(_BLOCK) + file.readline(_LONGEST):
                if len(block) > _BLOCK and len(block) - block.rfind(b"\n") > _LONGEST:
                    raise RunError(f"{path}: has a line of more than {_LONGEST:,} bytes; accepted: hourly page views")
                good = _utf8_lines(block)
                broken += block.count(b"\n") - good.count(b"\n")
                if good.strip():
                    table = _parse(good, skip)
                    lines += len(table)
                    broken += _count_block(table, wikis, mode, counted)
    except pa.ArrowInvalid as error:
        raise RunError(f"{path}: cannot be read ({error})") from None
    except (EOFError, zlib.error, OSError) as error:
        raise RunError(f"{path}: damaged or cut off ({error}); download it again") from None
    if broken > lines:
        message = f"{broken:,} of its lines are not project, title, views and bytes"
        raise RunError(f"{path}: {message}; accepted: hourly page views, such as pageviews-20260101-000000.gz")
    return {wiki: _sum(pa.concat_tables(tables)) for wiki, tables in counted.items()}, broken


def _utf8_lines(block: bytes) -> bytes:
    """Return the lines that are UTF-8: Arrow cannot skip others."""
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
    """Add the titles of lines to their wikis; return how many lines of these wikis have no number of views."""
    projects: Any = lines["project"].combine_chunks()
    names = pa.array([_wiki_of(project, wikis, mode) for project in projects.dictionary.to_pylist()], pa.string())
    table = lines.set_column(0, "wiki", names.take(projects.indices))
    table = table.filter(table["wiki"].is_valid())
    rows: Any = table.filter(pc.match_substring_regex(table["views"], r"\A[0-9]{1,18}\z"))
    titles, views = pc.replace_substring(rows["title"], "_", " "), rows["views"].cast(pa.int64())
    least: Any = _HOURLY if mode is Mode.reference else pc.if_else(pc.equal(rows["wiki"], pa.scalar("en")), _HOURLY, 1)
    is_counted = pc.and_not(pc.greater_equal(views, least), pc.match_substring(titles, ":"))
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
    if wiki == "en" and project != "en":  # its list is MetaCLIP's
        return None
    return wiki if wiki in wikis else None


def _sum(table: pa.Table) -> pa.Table:
    return table.group_by("title", use_threads=False).aggregate([("views", "sum")]).rename_columns(["title", "views"])
