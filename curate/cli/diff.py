"""`curate diff`: what one run keeps and another does not, and why."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import IO, Annotated, Any

import pyarrow as pa
import typer

from curate.ask.diff import CHANGES, SAMPLES, Diff, changed_samples, diff_runs
from curate.ask.diff_page import diff_page
from curate.ask.output import Result, write_json, write_result
from curate.cli.sql import Format
from curate.cli.standard_output import open_output
from curate.errors import RecipeError


class By(StrEnum):
    """What is compared."""

    rule = "rule"
    entry = "entry"
    source = "source"
    language = "language"
    setting = "setting"
    sample = "sample"


_TABLES = {
    By.rule: "rules",
    By.entry: "entries",
    By.source: "sources",
    By.language: "languages",
    By.setting: "settings",
}
_SHOWN = 50  # rows of a table for people, unless --limit says otherwise


def diff(
    first: Annotated[str, typer.Argument(metavar="DIR_A", help="The folder of a finished run, local or remote.")],
    second: Annotated[str, typer.Argument(metavar="DIR_B", help="The run to compare it with.")],
    by: Annotated[
        By | None, typer.Option("--by", help="One table instead of the summary; sample: every sample gained or lost.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many rows (of samples: of each side). For people 50, else all."),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="For people, for spreadsheets, for programs.")
    ] = Format.table,
) -> None:
    """Compare two runs: samples gained and lost, by rule, entry, source and language."""
    if limit is not None and by is None:
        raise RecipeError(f"--limit needs --by; accepted: {', '.join(f'--by {name}' for name in By)}")
    if by == By.sample:
        _print_samples(first, second, limit, format)
        return
    found = diff_runs(first, second)
    with open_output() as file:
        if by is not None:
            _print_table(getattr(found, _TABLES[by]), limit, format, file)
        elif format == Format.table:
            diff_page(found).write(file)
        elif format == Format.csv:
            write_result(_stacked(found), "csv", file)
        else:
            write_json(_object(found), file)


def _print_table(table: pa.Table, limit: int | None, format: Format, file: IO[str]) -> None:
    limit = _SHOWN if limit is None and format == Format.table else limit
    shown = table.slice(0, limit)
    write_result(Result(tuple(table.column_names), list(_tuples(shown))), format.value, file)
    if format == Format.table and len(shown) < len(table):
        print(f"of {len(table):,}; --limit shows more", file=file)


def _print_samples(first: str, second: str, limit: int | None, format: Format) -> None:
    """Batch by batch, but for people, who get a few."""
    for_people = format == Format.table
    batches = changed_samples(first, second, _SHOWN if limit is None and for_people else limit)
    begin = list(
        batches if for_people else islice(batches, 1)
    )  # what is wrong with the runs is told before the first line
    rows = (row for batch in chain(begin, batches) for row in _tuples(batch))
    with open_output() as file:
        write_result(Result(tuple(SAMPLES.names), rows), format.value, file)
        if for_people and limit is None:
            print(f"of each side the first {_SHOWN} by uid; --limit shows more, --format csv all", file=file)


def _stacked(found: Diff) -> Result:
    """The tables below each other, with a column that says which."""
    tables = {kind: getattr(found, name) for kind, name in _TABLES.items() if kind != By.setting}
    rows = [(kind.value, *row) for kind, table in tables.items() for row in _tuples(table)]
    return Result(("by", *CHANGES.names), rows)


def _object(found: Diff) -> dict[str, Any]:
    """All of it as plain data."""
    sides = {"a": vars(found.a), "b": vars(found.b)}
    counts = {"lost": found.lost, "gained": found.gained, "shared": found.shared}
    return sides | counts | {name: getattr(found, name).to_pylist() for name in _TABLES.values()}


def _tuples(table: pa.Table | pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
