"""`curate metadata`: builds, imports and shows lists of entries that captions are matched with."""

import sys
from collections import Counter
from collections.abc import Mapping
from math import isfinite, log2
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from typer import Argument, Option, Typer

from curate.base.errors import RecipeError
from curate.base.wording import pluralize
from curate.cli import common
from curate.cli.common import HelpCommand, print_page
from curate.match.building.wikis import Limits, Mode
from curate.match.metadata import ImportReport, read_metadata, write_metadata

app = Typer(no_args_is_help=True)
_SHOWN = 4  # number of wikis per language that get their own lines
_UNITS = {"unigram": "count", "bigram": "PMI", "title": "views"}


@app.command(cls=HelpCommand)
def build(
    wiki: Annotated[list[str], Option(metavar="PATH")],
    beam_options: common.BeamArgument = None,
    views: Annotated[list[str], Option(metavar="PATH")] = [],  # noqa: B006
    wordnet: Annotated[list[str], Option(metavar="PATH")] = [],  # noqa: B006
    language: Annotated[str, Option(metavar="KEYS")] = "",
    mode: Annotated[Mode, Option(metavar="MODE")] = Mode.corrected,
    pmi: Annotated[float, Option(metavar="X")] = 30.0,
    english: Annotated[str | None, Option(metavar="FILE")] = None,
    out: Annotated[str, Option("--out", "-o", metavar="FILE")] = "metadata.parquet",
    on: common.OnOption = None,
) -> None:
    """Build entries in any language from downloaded files."""
    options = common.prepare_beam(beam_options, on, "options, with globs in quotes")
    if not isfinite(pmi):
        raise RecipeError(f"--pmi {pmi}: accepted: a finite number, such as 25")
    from curate.cli.progress import show_counting
    from curate.match.building.parts import make_plan
    from curate.match.building.steps import report_name
    from pipelines.metadata import run_build, work_folder

    chosen = language.replace(",", " ").split()
    with common.say_if_slow("planning: files are listed"):
        plan = make_plan(wiki, views, wordnet, chosen, mode, listed=["en"] if english else [])
    if plan.unnamed:
        many = pluralize(len(plan.unnamed), "file")
        print(f"skipped {many} whose names contain no language, such as {plan.unnamed[0]}", file=sys.stderr)
    with show_counting(work_folder(out), len(plan.parts)):
        report = run_build(plan, out, mode, Limits(pmi=pmi), options, on, english)
    languages = [_describe_language(report, language) for language in report["languages"]]
    facts = {"report": report, "languages": languages, "out": out, "report_path": report_name(out)}
    print_page("metadata", part="build", few=_SHOWN, limits=Limits(), units=_UNITS, **facts)


@app.command("import", cls=HelpCommand)
def import_(
    path: Annotated[str, Argument(metavar="FILE")],
    out: Annotated[str, Option("--out", "-o", metavar="FILE")] = "metadata.parquet",
    source: Annotated[str, Option(metavar="NAME")] = "import",
    language: Annotated[str, Option(metavar="CODE")] = "en",
) -> None:
    """Check a list of entries and write it as a table."""
    table, report = read_metadata(path, source, language)
    write_metadata(table, out)
    _print_list(table, report, shown=(), searched=None, written=out)


@app.command(cls=HelpCommand)
def show(
    path: Annotated[str, Argument(metavar="FILE")],
    limit: Annotated[int, Option(metavar="N")] = 20,
    find: Annotated[str, Option(metavar="TEXT")] = "",
    language: Annotated[str, Option(metavar="KEY")] = "",
    mode: Annotated[Mode | None, Option(metavar="MODE")] = None,
) -> None:
    """Print counts and the first entries of a list."""
    table, report = read_metadata(path, mode=mode)
    keys = list(map(str, table["language"].unique().to_pylist()))
    entries = table.filter(pc.match_substring(table["entry"], find))
    if language:
        if language not in keys:
            raise RecipeError(f"--language {language}: {path} has no entry in it; accepted: {', '.join(keys)}")
        entries = entries.filter(pc.equal(entries["language"], pa.scalar(language)))
    searched = {"found": len(entries), "language": language, "text": find}
    _print_list(table, report, shown=entries.slice(0, limit).to_pylist(), searched=searched, written="")


def _print_list(table: pa.Table, report: ImportReport, **facts: Any) -> None:
    """Print the counts of a list, and the `shown` entries, or the path of the table that was `written`."""
    languages = table["language"]
    counts = {"languages": _count(languages), "never_match": _count(languages.filter(report.is_never))}
    print_page("metadata", part="list", report=report, **counts, **facts)


def _count(values: Any) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}


def _describe_language(report: Mapping[str, Any], language: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a build for one language, with sums over its wikis."""
    read, wikis, sums = report["read"], dict[str, list[Any]](), dict[str, Counter[str]]()
    for source in language["sources"]:
        wikis.setdefault(source["wiki"], []).append(source)
        amounts = {name: source[name] for name in ("entries", "candidates")}
        sums.setdefault(source["source"], Counter()).update(amounts)
    words = max((read["tokens"].get(wiki, 0) for wiki in wikis), default=0)
    caps = [source["cap"] or Limits.words for source in language["sources"] if source["source"] == "unigram"]
    return language | {
        "wikis": wikis,
        "pages": sum(read["pages"].get(wiki, 0) for wiki in wikis),
        "octets": sum(read["octets"].get(wiki, 0) for wiki in wikis),
        "sums": sums,
        "words": words,
        "highest_pmi": log2(words) if words and log2(words) < report["pmi"] else None,
        "is_capped": any(cap < Limits.words for cap in caps),
    }
