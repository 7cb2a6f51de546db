"""Chooses the entries of a language from its counts: numbers, wordnet, words, pairs of words, titles, in this order.

Within a source, words are ordered by count, titles by views, and pairs by mutual information and then count; ties are
ordered by their bytes in UTF-8. An entry belongs to its first source, and caps apply to new entries. Sources: MetaCLIP
(arXiv 2309.16671, section 3.1), MetaCLIP 2 (arXiv 2507.22062, section 3.1) and their published code, which was read,
not copied.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import RunError, reraised
from curate.base.numeric.arrays import whole
from curate.base.process import temporary_folder
from curate.base.schema import METADATA, define
from curate.match.building.counts import CountFile, Totals
from curate.match.building.ngrams import WORDS
from curate.match.building.tokens import MARKS
from curate.match.building.wikis import BuildSettings, Mode
from curate.match.characters import CORRECTED_MARKS, normalize
from curate.match.languages import KEYS_WITHOUT_SPACES
from curate.match.metadata import never_match
from curate.run.units import SideOutput

NUMBERS = tuple(map(str, range(100)))
SOURCES = {"words": "unigram", "pairs": "bigram", "titles": "title"}  # kind of count → source, in order
_MEASURES = {"words": "count", "pairs": "pmi", "titles": "count"}
NAMED_PAIRS = define(first=pa.large_string(), second=pa.large_string(), count=pa.int64())
_SLACK = 1 + 1e-9  # for floating-point comparisons
_PAIRS = """
CREATE TABLE pairs AS
WITH summed AS (SELECT first, second, sum(count)::BIGINT AS count FROM counted GROUP BY ALL),
scored AS (
    SELECT concat(first, $space, second) AS word, summed.count,
        summed.count * $tokens / (a.count * b.count::DOUBLE) AS ratio
    FROM summed JOIN words AS a ON a.word = first JOIN words AS b ON b.word = second
)
SELECT word, count, log2(ratio) AS pmi FROM scored WHERE ratio > $least OR ($or_equal AND ratio = $least)
"""


@dataclass
class SourceReport:
    """The result for a source of a wiki."""

    language: str
    wiki: str
    source: str
    candidates: int  # distinct words, pairs with enough mutual information, or titles
    entries: int = 0  # new entries that were added
    cap: int | None = None  # maximum new entries; None: all above a threshold
    cut: int = 0  # candidates after the last added one
    last: str = ""  # the last added one
    last_value: float | None = None  # its count, mutual information or views


@dataclass
class KeyReport:
    """The result for a language."""

    language: str
    entries: int
    sources: list[SourceReport] = field(default_factory=list)
    never_match: int = 0
    examples: list[str] = field(default_factory=list)  # some of these


def clean(entries: Any, wiki: str, settings: BuildSettings, limited: bool = True) -> Any:
    """Return candidates as entries (large_string), null if not accepted; `limited`: their length is limited, too."""
    if settings.is_first(wiki):
        unusable = pc.is_in(entries, pa.array(["", *string.punctuation], pa.large_string()))
        return pc.if_else(unusable, None, entries)
    entries = pc.utf8_trim_whitespace(entries)
    entries = normalize(entries) if settings.mode is Mode.corrected else entries
    marks = MARKS + (CORRECTED_MARKS if settings.mode is Mode.corrected else "")
    dropped = pc.equal(pc.utf8_trim(entries, marks), pa.scalar("", entries.type))
    if limited:
        dropped = pc.or_(dropped, pc.greater(pc.utf8_length(entries), pa.scalar(settings.limits.characters)))
    return pc.if_else(dropped, None, entries)


def choose_entries(key: str, files: list[CountFile], settings: BuildSettings, totals: Totals) -> Iterator[SideOutput]:
    """Write a key's entries, and yield its result. Raises RunError if its counts cannot be added up."""
    chosen: dict[str, str] = {}
    reports = []
    for wiki in sorted({file.wiki for file in files}):
        with reraised(RunError, f"{wiki}: its counts cannot be added up", duckdb.Error):
            of_wiki, sources = _choose(key, wiki, [file for file in files if file.wiki == wiki], settings, totals)
        for entry, source in of_wiki.items():
            chosen.setdefault(entry, source)
        reports += sources
    entries = pa.array(chosen, pa.string())
    constant = pa.repeat(pa.scalar(key), len(entries))
    ids = pa.array(np.arange(len(entries), dtype=np.int32))
    table = pa.table([ids, entries, pa.array(chosen.values(), pa.string()), constant], schema=METADATA)
    settings.store.write_parquet(entries_file(key), table)
    yield SideOutput(describe_key(key, table, reports, settings))


def describe_key(key: str, table: pa.Table, sources: list[SourceReport], settings: BuildSettings) -> KeyReport:
    """Return the result for a language whose entries are in the table."""
    entries = whole(table["entry"])
    never = entries.filter(never_match(entries, settings.mode.value))
    return KeyReport(key, len(entries), sources, len(never), list(map(str, never[:5].to_pylist())))


def entries_file(key: str) -> str:
    """Return the file name of a key's entries in the build's folder."""
    return f"entries/{key}.parquet"


def _choose(
    key: str, wiki: str, files: Sequence[CountFile], settings: BuildSettings, totals: Totals
) -> tuple[dict[str, str], list[SourceReport]]:
    entries = dict.fromkeys(NUMBERS, "number")
    reports = [SourceReport(key, wiki, "number", len(NUMBERS), len(NUMBERS))]
    names = _read_names(wiki, files, settings)
    reports.append(SourceReport(key, wiki, "wordnet", len(names)))
    _add(entries, reports[-1], ((name, None) for name in clean(names, wiki, settings, limited=False).to_pylist()))
    limits = {"memory_limit": "400MB", "threads": 4}
    with temporary_folder() as folder, duckdb.connect(config=limits | {"temp_directory": folder}) as database:
        for kind, source in SOURCES.items():
            if kind == "pairs":
                _sum_pairs(database, wiki, files, settings, totals)
            else:
                _sum_words(database, kind, files, settings)
            total = database.execute(f"SELECT count(*) FROM {kind}").fetchall()[0][0]
            reports.append(SourceReport(key, wiki, source, total, cap=settings.cap(kind, total, wiki)))
            _add(entries, reports[-1], _candidates(database, kind, wiki, settings))
    return entries, reports


def _read_names(wiki: str, files: Sequence[CountFile], settings: BuildSettings) -> pa.Array:
    in_order = sorted((file.order, file.name) for file in files if file.kind == "names")
    tables = [settings.store.read_parquet(name) for _, name in in_order]
    names: pa.Array = whole(pa.concat_tables([WORDS.empty_table(), *tables])["word"])
    return names if wiki == "en" else pc.take(names, pc.sort_indices(names))


def _sum_words(database: Any, kind: str, files: Sequence[CountFile], settings: BuildSettings) -> None:
    names = [file.name for file in files if file.kind == kind]
    batches = (batch for name in names for batch in settings.store.read_parquet(name).to_batches())
    database.register("counted", pa.RecordBatchReader.from_batches(WORDS, batches))
    database.execute(f"CREATE TABLE {kind} AS SELECT word, sum(count)::BIGINT AS count FROM counted GROUP BY word")


def _sum_pairs(database: Any, wiki: str, files: Sequence[CountFile], settings: BuildSettings, totals: Totals) -> None:
    """Build the table `pairs` (word, count, pmi) of pairs with enough mutual information."""
    tokens, pmi = float(totals.tokens[wiki]), settings.limits.pmi
    batches = (batch for file in files if file.kind == "words" for batch in _rare_pairs(file, settings, tokens))
    database.register("counted", pa.RecordBatchReader.from_batches(NAMED_PAIRS, batches))
    space = "" if wiki in KEYS_WITHOUT_SPACES else " "
    values = {"space": space, "tokens": tokens, "least": 2.0**pmi, "or_equal": settings.is_first(wiki)}
    database.execute(_PAIRS, values)


def _rare_pairs(file: CountFile, settings: BuildSettings, tokens: float) -> Iterator[pa.RecordBatch]:
    """Yield the pairs of a block whose words are both rare enough for the mutual information.

    Because n_xy is at most n_x and n_y, log2(n_xy·N / (n_x·n_y)) is at most log2(N / max(n_x, n_y)). At 30, about one
    pair in a hundred remains.
    """
    words, pairs = settings.store.read_parquet(file.name), settings.store.read_parquet(file.pairs_name)
    is_rare = words["count"].to_numpy() <= tokens * 2.0**-settings.limits.pmi * _SLACK
    pairs = pairs.filter(is_rare[pairs["first"].to_numpy()] & is_rare[pairs["second"].to_numpy()])
    sides = [words["word"].take(pairs[side]) for side in ("first", "second")]
    yield from pa.table([*sides, pairs["count"]], schema=NAMED_PAIRS).to_batches()


def _candidates(database: Any, kind: str, wiki: str, settings: BuildSettings) -> Iterator[tuple[str, float]]:
    """Yield the candidates in order, each with its count or mutual information."""
    value = _MEASURES[kind]
    minimum = {"words": settings.limits.count, "titles": settings.limits.views}.get(kind, 0)
    where = f"WHERE count >= {minimum}" if settings.is_first(wiki) else ""
    query = f"SELECT word, {value} AS value FROM {kind} {where} ORDER BY value DESC, count DESC, word"
    for batch in database.sql(query).to_arrow_reader(10_000):
        entries = clean(batch["word"].cast(pa.large_string()), wiki, settings)
        for entry, number in zip(entries.to_pylist(), batch["value"].to_pylist(), strict=True):
            if entry is not None:
                yield entry, number


def _add(entries: dict[str, str], report: SourceReport, candidates: Iterable[tuple[str | None, float | None]]) -> None:
    """Add new candidates in order, up to the cap, and report it."""
    if report.cap == 0:
        report.cut = report.candidates
        return
    for number, (entry, value) in enumerate(candidates, 1):
        if entry is None or entry in entries:
            continue
        entries[entry] = report.source
        report.entries += 1
        report.last, report.last_value = entry, value
        if report.entries == report.cap:
            report.cut = report.candidates - number
            break
