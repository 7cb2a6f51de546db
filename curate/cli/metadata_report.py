"""What `curate metadata build` says once it is done: of each language its sources, caps, and what can never match."""

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any

from curate.ask.output import Line, columns, heading, line
from curate.base.wording import format_bytes, pluralise
from curate.match.building.steps import report_name

_UNITS = {"unigram": "count", "bigram": "PMI", "title": "views"}


def build_lines(report: Mapping[str, Any], out: str) -> Iterator[Line]:
    """Yield the lines of a report, as `curate.match.building.steps` writes it."""
    read = report["read"]
    for language in report["languages"]:
        wikis = dict.fromkeys(source["wiki"] for source in language["sources"])
        pages, octets = (sum(read[name].get(wiki, 0) for wiki in wikis) for name in ("pages", "octets"))
        of_text = f"{pluralise(pages, 'page')} of {format_bytes(octets)}" if pages else "no text"
        count = pluralise(language["entries"], "entry", "entries")
        yield heading(language["language"], f"{count}, from {of_text}")
        many = len(wikis) > 1
        for wiki in wikis:
            rows = [_row(source) for source in language["sources"] if source["wiki"] == wiki]
            yield from [line(f"  {wiki}")] if many else []
            yield from columns(rows, right=[1], indent=4 if many else 2)
        for wiki in wikis:
            tokens = read["tokens"].get(wiki, 0)
            if tokens and log2(tokens) < report["pmi"]:
                why = f"of {tokens:,} words of {wiki} no pair reaches PMI {report['pmi']:g}"
                yield line(f"  {why}; most would be {log2(tokens):.1f}: see --pmi", hang=4)
        if language["never_match"]:
            examples = ", ".join(map(repr, language["examples"]))
            yield line(f"  never match   {language['never_match']:,}: by the spacing rule, such as {examples}", hang=16)
    if read["broken"]:
        first, number = next(iter(read["broken"].items()))
        others = f", and in {pluralise(len(read['broken']) - 1, 'more file')}" if len(read["broken"]) > 1 else ""
        yield line(f"broken lines of page views were left out: {number:,} in {first}{others}")
    total = sum(language["entries"] for language in report["languages"])
    yield line(f"wrote {out}: {pluralise(total, 'entry', 'entries')}, and {report_name(out)}")


def _row(source: Mapping[str, Any]) -> tuple[str, str, str]:
    unit = _UNITS.get(source["source"])
    text = f"of {source['candidates']:,}"
    if source["cut"]:
        text += f"; the cap of {source['cap']:,} cut {source['cut']:,}"
    if unit and source["last"]:
        value = source["last_value"]
        text += f"; the last is {source['last']!r}, {unit} {value:,.2f}".removesuffix(".00")
    return source["source"], f"{source['entries']:,}", text
