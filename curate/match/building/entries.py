"""Chooses the entries of a language out of its counts: numbers, wordnet, words, pairs of words, titles, in this order.

Within a source the order is by count, of titles by views, of pairs by mutual information and then count; of equal ones
by the bytes of UTF-8. The first source has an entry, and caps are of new entries. Sources: MetaCLIP (arXiv 2309.16671,
section 3.1), MetaCLIP 2 (arXiv 2507.22062, section 3.1) and their published code, which is read, not copied.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import whole
from curate.base.schema import METADATA
from curate.match.building.counts import from_bytes
from curate.match.building.ngrams import WORDS
from curate.match.building.tokens import MARKS
from curate.match.building.wikis import BuildSettings
from curate.match.characters import CORRECTED_MARKS, normalise
from curate.match.languages import KEYS_WITHOUT_SPACES
from curate.match.metadata import never_match

NUMBERS = tuple(map(str, range(100)))
SOURCES = {"words": "unigram", "pairs": "bigram", "titles": "title"}  # of what is counted, in their order
_MEASURES = {"words": "count", "pairs": "pmi", "titles": "count"}


@dataclass
class SourceReport:
    """What became of a source of a wiki."""

    language: str
    wiki: str
    source: str
    candidates: int  # in all: different words; pairs of enough mutual information; titles
    entries: int = 0  # that came in, being new
    cap: int | None = None  # of these; None: all that reach a threshold
    cut: int = 0  # candidates behind the last that came in
    last: str = ""  # the last that came in,
    last_value: float | None = None  # and its count, mutual information or views


@dataclass
class KeyReport:
    """What became of a language."""

    language: str
    entries: int
    sources: list[SourceReport] = field(default_factory=list)
    never_match: int = 0
    examples: list[str] = field(default_factory=list)  # some of these


def joined(first: pa.Array, second: pa.Array, wiki: str) -> pa.Array:
    """Return pairs of words as entries: with a space where the language has some."""
    space = "" if wiki in KEYS_WITHOUT_SPACES else " "
    sides: list[Any] = [first, second, pa.scalar(space, first.type)]  # the last joins
    both: pa.Array = pc.binary_join_element_wise(*sides)
    return both


def clean(entries: Any, wiki: str, settings: BuildSettings, limited: bool = True) -> Any:
    """Return entries as they come in (large_string), null where they do not; `limited`: in their length, too."""
    if settings.is_first(wiki):
        unusable = pc.is_in(entries, pa.array(["", *string.punctuation], pa.large_string()))
        return pc.if_else(unusable, None, entries)
    entries = pc.utf8_trim_whitespace(entries)
    entries = normalise(entries) if settings.is_corrected else entries
    marks = MARKS + (CORRECTED_MARKS if settings.is_corrected else "")
    dropped = pc.equal(pc.utf8_trim(entries, marks), pa.scalar("", entries.type))
    if limited:
        dropped = pc.or_(dropped, pc.greater(pc.utf8_length(entries), pa.scalar(settings.limits.characters)))
    return pc.if_else(dropped, None, entries)


def choose_entries(
    key: str, values: Sequence[tuple[str, Any]], settings: BuildSettings, totals: Mapping[tuple[str, str], int]
) -> Iterator[KeyReport]:
    """Write a key's entries, and yield what became of it; `totals` are how many words and titles each wiki has."""
    chosen: dict[str, str] = {}
    reports = []
    for wiki in sorted({wiki for wiki, _ in values}):
        parts = [value for name, value in values if name == wiki]
        of_wiki, sources = _choose(key, wiki, parts, settings, totals)
        for entry, source in of_wiki.items():
            chosen.setdefault(entry, source)
        reports += sources
    entries = pa.array(chosen, pa.string())
    constant = pa.repeat(pa.scalar(key), len(entries))
    ids = pa.array(np.arange(len(entries), dtype=np.int32))
    table = pa.table([ids, entries, pa.array(chosen.values(), pa.string()), constant], schema=METADATA)
    settings.store.write_parquet(entries_file(key), table)
    never = entries.filter(never_match(entries, settings.mode.value))
    yield KeyReport(key, len(entries), reports, len(never), list(map(str, never[:5].to_pylist())))


def entries_file(key: str) -> str:
    """Return the name of a key's entries in the build's folder."""
    return f"entries/{key}.parquet"


def _choose(
    key: str, wiki: str, values: Sequence[Any], settings: BuildSettings, totals: Mapping[tuple[str, str], int]
) -> tuple[dict[str, str], list[SourceReport]]:
    entries = dict.fromkeys(NUMBERS, "number")
    reports = [SourceReport(key, wiki, "number", len(NUMBERS), len(NUMBERS))]
    names = _read_names(wiki, [(order, data) for kind, order, data in values if kind == "names"])
    fresh = clean(names, wiki, settings, limited=False)
    reports.append(_add(entries, SourceReport(key, wiki, "wordnet", len(names)), fresh))
    for kind, source in SOURCES.items():
        total = totals.get((wiki, kind), sum(number for name, number, _ in values if name == f"{kind} in all"))
        tables = [from_bytes(data) for name, _, data in values if name == kind]
        report = SourceReport(key, wiki, source, total, cap=settings.cap(kind, total, wiki))
        if tables:
            order: Any = [(_MEASURES[kind], "descending"), ("count", "descending"), ("word", "ascending")]
            table = pa.concat_tables(tables).sort_by(list(dict(order).items()))
            _add(entries, report, whole(table["word"]), whole(table[_MEASURES[kind]]))
        reports.append(report)
    return entries, reports


def _read_names(wiki: str, parts: Sequence[tuple[int, bytes]]) -> pa.Array:
    tables = [from_bytes(data) for _, data in sorted(parts)]
    names: pa.Array = whole(pa.concat_tables(tables or [WORDS.empty_table()])["word"])
    return names if wiki == "en" else pc.take(names, pc.sort_indices(names))


def _add(
    entries: dict[str, str], report: SourceReport, candidates: pa.Array, values: pa.Array | None = None
) -> SourceReport:
    """Add what is new of the candidates, in order, up to the cap; say so in the report."""
    last = -1
    for i, entry in enumerate(candidates if report.cap != 0 else ()):
        text = entry.as_py()
        if text is not None and text not in entries:
            entries[text] = report.source
            report.entries, last = report.entries + 1, i
            if report.entries == report.cap:
                break
    if last >= 0:
        report.last = candidates[last].as_py()
        report.last_value = None if values is None else values[last].as_py()
    report.cut = report.candidates - (last + 1) if report.cap is not None and report.entries >= report.cap else 0
    return report
