"""What `curate metadata build` says once it is done: of each language its sources, caps, and what can never match."""

from collections.abc import Iterator, Mapping, Sequence
from math import log2
from typing import Any

from curate.ask.output import Line, columns, heading, line
from curate.base.wording import format_bytes, pluralise
from curate.match.building.steps import report_name
from curate.match.building.wikis import Limits

_WORDS = Limits.words
_SHOWN = 4  # wikis of a language that have lines of their own
_UNITS = {"unigram": "count", "bigram": "PMI", "title": "views"}


def build_lines(report: Mapping[str, Any], out: str) -> Iterator[Line]:
    """Yield the lines of a report, as `curate.match.building.steps` writes it."""
    for language in report["languages"]:
        yield from _language_lines(report, language)
    if broken := report["read"]["broken"]:
        first, number = next(iter(broken.items()))
        others = f", and in {pluralise(len(broken) - 1, 'more file')}" if len(broken) > 1 else ""
        yield line(f"broken lines of page views were left out: {number:,} in {first}{others}")
    total = sum(language["entries"] for language in report["languages"])
    yield line(f"wrote {out}: {pluralise(total, 'entry', 'entries')}, and {report_name(out)}")


def _language_lines(report: Mapping[str, Any], language: Mapping[str, Any]) -> Iterator[Line]:
    read, wikis = report["read"], dict.fromkeys(source["wiki"] for source in language["sources"])
    pages, octets = (sum(read[name].get(wiki, 0) for wiki in wikis) for name in ("pages", "octets"))
    of_text = f"from {pluralise(pages, 'page')} of {format_bytes(octets)}" if pages else "from no text"
    count = pluralise(language["entries"], "entry", "entries")
    yield heading(language["language"], f"{count}, {of_text if wikis else 'as listed'}")
    by_wiki = {wiki: [source for source in language["sources"] if source["wiki"] == wiki] for wiki in wikis}
    if len(wikis) > _SHOWN:
        yield from columns([*_sums(list(by_wiki.values()))], right=[1])
    for wiki, sources in by_wiki.items() if len(wikis) <= _SHOWN else ():
        yield from [line(f"  {wiki}")] if len(wikis) > 1 else []
        yield from columns([*map(_row, sources)], right=[1], indent=4 if len(wikis) > 1 else 2)
    if any(source["source"] == "unigram" and (source["cap"] or _WORDS) < _WORDS for source in language["sources"]):
        share = f"the most frequent {Limits.words_percent} % of the different words, at most {_WORDS:,}"
        full = f"it takes {_WORDS * 100 // Limits.words_percent:,} different words, a Wikipedia of some GB, to fill it"
        yield line(f"  the cap of unigrams is MetaCLIP 2's: {share}; {full}", hang=4)
    words = max((read["tokens"].get(wiki, 0) for wiki in wikis), default=0)
    if words and log2(words) < report["pmi"]:
        why = f"no pair reaches PMI {report['pmi']:g}; most would be {log2(words):.1f}: see --pmi"
        yield line(f"  of {pluralise(words, 'word')} {why}", hang=4)
    if language["never_match"]:
        examples = ", ".join(map(repr, language["examples"]))
        yield line(f"  never match   {language['never_match']:,}: by the spacing rule, such as {examples}", hang=16)


def _sums(by_wiki: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each source of all wikis together."""
    for of_source in zip(*by_wiki, strict=True):
        entries, candidates = (sum(source[name] for source in of_source) for name in ("entries", "candidates"))
        yield of_source[0]["source"], f"{entries:,}", f"of {candidates:,} in {len(by_wiki)} wikis, some more than once"


def _row(source: Mapping[str, Any]) -> tuple[str, str, str]:
    unit = _UNITS.get(source["source"])
    text = f"of {source['candidates']:,}"
    if source["cut"]:
        text += f"; the cap of {source['cap']:,} cut {source['cut']:,}"
    if unit and source["last"]:
        value = source["last_value"]
        text += f"; the last is {source['last']!r}, {unit} {value:,.2f}".removesuffix(".00")
    return source["source"], f"{source['entries']:,}", text
