"""`curate metadata`: entries to match against."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, log2
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from typer import Argument, Option, Typer

from curate.ask.output import Line, columns, heading, line
from curate.base.errors import RecipeError
from curate.base.wording import format_bytes, pluralise
from curate.cli import common
from curate.cli.common import examples_of, print_lines
from curate.match.building.wikis import Limits, Mode
from curate.match.metadata import ImportReport, read_metadata, write_metadata

app = Typer(help="Build, import and show metadata entries.", no_args_is_help=True)
_WORDS = Limits.words
_SHOWN = 4  # wikis of a language that have lines of their own
_UNITS = {"unigram": "count", "bigram": "PMI", "title": "views"}


@app.command(epilog=examples_of("metadata build"))
def build(
    wiki: Annotated[list[str], Option(metavar="PATH", help="Texts: dumps, Parquet, JSON lines.")],
    beam_options: common.BeamArgument = None,
    views: Annotated[list[str], Option(metavar="PATH", help="Wikimedia's hourly page views.")] = [],  # noqa: B006
    wordnet: Annotated[list[str], Option(metavar="PATH", help="Wordnets: a folder or files.")] = [],  # noqa: B006
    language: Annotated[str, Option(metavar="KEYS", help="Languages, such as de,ja; else all of --wiki.")] = "",
    mode: Annotated[Mode, Option(metavar="MODE", help="reference, worldwide or corrected.")] = Mode.corrected,
    pmi: Annotated[float, Option(metavar="X", help="Mutual information of pairs.")] = 30.0,
    english: Annotated[
        str | None, Option(metavar="FILE", help="English entries, such as MetaCLIP's metadata.json.")
    ] = None,
    out: Annotated[str, Option("--out", "-o", metavar="FILE", help="The table to write.")] = "metadata.parquet",
    on: common.OnOption = None,
) -> None:
    """Build entries of any language from what you have downloaded.

    Modes: as MetaCLIP (reference), as MetaCLIP 2 (worldwide), or the latter without its known faults (corrected). Paths
    may be folders, globs or URLs, and be repeated. Beside the table is a report, FILE.report.json.
    """
    options = common.prepare_beam(beam_options, on, "options, with globs in quotes")
    if not isfinite(pmi):
        raise RecipeError(f"--pmi {pmi}: found no finite number; accepted: one, such as 25")
    from curate.cli.progress import show_counting
    from curate.match.building.parts import make_plan
    from pipelines.metadata import run_build, work_folder

    chosen = language.replace(",", " ").split()
    with common.say_if_slow("planning: files are listed"):
        plan = make_plan(wiki, views, wordnet, chosen, mode, listed=["en"] if english else [])
    if plan.unnamed:
        many = pluralise(len(plan.unnamed), "file")
        print(f"left out {many} without a language in the name, such as {plan.unnamed[0]}", file=sys.stderr)
    with show_counting(work_folder(out), len(plan.parts)):
        report = run_build(plan, out, mode, Limits(pmi=pmi), options, on, english)
    print_lines(*build_lines(report, out))


@app.command("import", epilog=examples_of("metadata import"))
def import_(
    path: Annotated[str, Argument(metavar="FILE", help="MetaCLIP's metadata.json (plain or gzipped), or a text file.")],
    out: Annotated[str, Option("--out", "-o", metavar="FILE", help="The table to write.")] = "metadata.parquet",
    source: Annotated[str, Option(metavar="NAME", help="Name of the entries' source.")] = "import",
    language: Annotated[str, Option(metavar="CODE", help="Language of the entries.")] = "en",
) -> None:
    """Check a list of entries, and write it as a table.

    Its columns are entry_id, entry, source and language.
    """
    table, report = read_metadata(path, source, language)
    write_metadata(table, out)
    print_lines(*_report(table, report), line(f"wrote {out}: {pluralise(len(table), 'entry', 'entries')}"))


@app.command(epilog=examples_of("metadata show"))
def show(
    path: Annotated[str, Argument(metavar="FILE", help="A list of entries, or an imported table.")],
    limit: Annotated[int, Option(metavar="N", help="Entries to print.")] = 20,
    find: Annotated[str, Option(metavar="TEXT", help="Only entries that contain this text.")] = "",
    language: Annotated[str, Option(metavar="KEY", help="Only entries of this language.")] = "",
    mode: Annotated[
        Mode | None, Option(metavar="MODE", help="That of match; else corrected for several languages.")
    ] = None,
) -> None:
    """Print counts and the first entries of a list.

    The counts say how many entries no text can match.
    """
    table, report = read_metadata(path, mode=mode)
    keys = list(map(str, table["language"].unique().to_pylist()))
    entries = table.filter(pc.match_substring(table["entry"], find))
    if language:
        if language not in keys:
            raise RecipeError(f"--language {language}: found no entry of it in {path}; it has: {', '.join(keys)}")
        entries = entries.filter(pc.equal(entries["language"], pa.scalar(language)))
    shown = entries.slice(0, limit).to_pylist()
    rows = [(str(row["entry_id"]), *([row["language"]] if len(keys) > 1 else []), repr(row["entry"])) for row in shown]
    none = [] if len(entries) else [line(f"no entry {f'of {language} ' if language else ''}contains {find!r}")]
    print_lines(*_report(table, report), *columns(rows, right=[0]), *none)


def _count(languages: Any) -> str:
    return ", ".join(f"{each['counts']:,} {each['values']}" for each in pc.value_counts(languages).to_pylist())


def _report(table: pa.Table, report: ImportReport) -> list[Line]:
    def row(name: str, entries: pa.Array, note: str) -> tuple[str, str, str]:
        examples = ", ".join(map(repr, entries[:5].to_pylist())) + (" …" if len(entries) > 5 else "")
        return name, f"{len(entries):,}", f"{note}: {examples}" if len(entries) else note

    languages, never = "", f"kept, but no text can match them by the spacing rule of mode {report.mode}"
    if pc.count_distinct(table["language"]).as_py() > 1:
        languages, of_never = map(_count, (table["language"], table["language"].filter(report.is_never)))
        never += f" ({of_never})" if of_never else ""
    rows = [
        ("read", f"{report.read:,}", ""),
        ("empty", f"{len(report.empty):,}", "dropped"),
        row("punctuation", report.punctuation, "dropped"),
        row("duplicates", report.duplicates, "dropped"),
        ("entries", f"{len(table):,}", languages),
        row("never match", report.never_match, never),
    ]
    return columns(rows, right=[1], indent=0)


def build_lines(report: Mapping[str, Any], out: str) -> Iterator[Line]:
    """Yield the lines of a report, as `curate.match.building.steps` writes it."""
    from curate.match.building.steps import report_name

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
        reason = f"no pair reaches PMI {report['pmi']:g}; most would be {log2(words):.1f}: see --pmi"
        yield line(f"  of {pluralise(words, 'word')} {reason}", hang=4)
    if language["never_match"]:
        examples = ", ".join(map(repr, language["examples"]))
        yield line(f"  never match   {language['never_match']:,}: by the spacing rule, such as {examples}", hang=16)


def _sums(by_wiki: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, str, str]]:
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
