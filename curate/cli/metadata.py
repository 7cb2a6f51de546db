"""`curate metadata`: entries to match against."""

from typing import Annotated

import typer

from curate.errors import RecipeError
from curate.metadata.sources import ImportReport, read_metadata, write_metadata

app = typer.Typer(help="Metadata entries: import and show.", no_args_is_help=True)


@app.command("import")
def import_(
    path: Annotated[
        str, typer.Argument(metavar="FILE", help="MetaCLIP's metadata.json (plain or gzipped), or a text file.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="The table to write.")] = "metadata.parquet",
    source: Annotated[str, typer.Option(help="What to call the source of the entries.")] = "import",
    language: Annotated[str, typer.Option(help="Their language.")] = "en",
) -> None:
    """Check a list of entries and write it as a table: entry_id, entry, source, language."""
    table, report = read_metadata(path, source, language)
    try:
        write_metadata(table, out)
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error}") from None
    print(_report(report))
    print(f"wrote {out}: {len(table):,} entries")


@app.command()
def show(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A list of entries, or an imported table.")],
    limit: Annotated[int, typer.Option(help="How many entries to print.")] = 20,
    find: Annotated[str, typer.Option(help="Only entries that hold this text.")] = "",
) -> None:
    """Print what a list of entries holds."""
    table, report = read_metadata(path)
    print(_report(report))
    rows = ((row["entry_id"], row["entry"]) for row in table.to_pylist() if find in row["entry"])
    for _, (entry_id, entry) in zip(range(limit), rows, strict=False):
        print(f"{entry_id:>8}  {entry!r}")


def _report(report: ImportReport) -> str:
    def examples(found: tuple[str, ...]) -> str:
        return f": {', '.join(map(repr, found[:5]))}" + (" …" if len(found) > 5 else "") if found else ""

    return "\n".join(
        [
            f"read         {report.read:>9,}",
            f"empty        {report.empty:>9,}  dropped",
            f"punctuation  {report.punctuation:>9,}  dropped{examples(report.punctuation_examples)}",
            f"duplicates   {report.duplicates:>9,}  dropped{examples(report.duplicate_examples)}",
            f"entries      {report.kept:>9,}",
            f"never match  {report.never_match:>9,}  kept, but no text can match them by the spacing rule"
            f"{examples(report.never_match_examples)}",
        ]
    )
