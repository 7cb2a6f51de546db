"""`curate metadata`: entries to match against."""

import sys
from math import isfinite
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from typer import Argument, Option, Typer

from curate.ask.output import Line, columns, line
from curate.base.errors import RecipeError
from curate.base.wording import pluralise
from curate.cli import common
from curate.cli.common import print_lines
from curate.cli.examples import examples_of
from curate.match.building.wikis import Mode
from curate.match.metadata import ImportReport, read_metadata, write_metadata

app = Typer(help="Build, import and show metadata entries.", no_args_is_help=True)


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
    from curate.cli.metadata_report import build_lines
    from curate.cli.progress import show_counting
    from curate.match.building.parts import make_plan
    from curate.match.building.wikis import Limits
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
    """Return how many rows are of each language."""
    return ", ".join(f"{each['counts']:,} {each['values']}" for each in pc.value_counts(languages).to_pylist())


def _report(table: pa.Table, report: ImportReport) -> list[Line]:
    def row(name: str, entries: pa.Array, what: str) -> tuple[str, str, str]:
        examples = ", ".join(map(repr, entries[:5].to_pylist())) + (" …" if len(entries) > 5 else "")
        return name, f"{len(entries):,}", f"{what}: {examples}" if len(entries) else what

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
