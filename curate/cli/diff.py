"""`curate diff`: samples that one run keeps and another does not, and why."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import Annotated, Any

import pyarrow as pa
import typer

from curate.ask.diff import CHANGES, SAMPLES, Diff, changed_samples, diff_runs
from curate.ask.diff_page import diff_page
from curate.ask.output import Result, write_json
from curate.cli.common import Format, FormatOption, open_output, print_page, print_result
from curate.errors import RecipeError

By = StrEnum("By", ["rule", "entry", "source", "language", "setting", "sample"])  # what the samples are compared by


_TABLES = {by: "entries" if by == By.entry else f"{by}s" for by in By if by != By.sample}  # of `Diff`
_SHOWN = 50  # rows of a table for people, unless --limit says otherwise


def diff(
    first: Annotated[str, typer.Argument(metavar="DIR_A", help="The folder of a finished run, local or remote.")],
    second: Annotated[str, typer.Argument(metavar="DIR_B", help="The run to compare it with.")],
    by: Annotated[
        By | None,
        typer.Option("--by", metavar="WHAT", help="rule, entry, source, language, setting or sample."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Rows, or samples per side; a table has 50."),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Compare two runs: samples gained and lost, and why.

    The summary counts them by rule, entry, source and language; --by prints one table, and --by sample every such sample.
    """
    if limit is not None and by is None:
        raise RecipeError(f"--limit needs --by; accepted: {', '.join(f'--by {name}' for name in By)}")
    if by == By.sample:
        _print_samples(first, second, limit, format)
        return
    found = diff_runs(first, second)
    if by is not None:
        _print_table(getattr(found, _TABLES[by]), limit, format)
    elif format == Format.table:
        print_page(diff_page(found))
    elif format == Format.csv:
        print_result(_stacked(found), Format.csv)
    else:
        with open_output() as file:
            write_json(_object(found), file)


def _print_table(table: pa.Table, limit: int | None, format: Format) -> None:
    limit = _SHOWN if limit is None and format == Format.table else limit
    shown = table.slice(0, limit)
    print_result(Result(tuple(table.column_names), list(_tuples(shown))), format)
    if format == Format.table and len(shown) < len(table):
        print(f"of {len(table):,} rows; --limit shows more")


def _print_samples(first: str, second: str, limit: int | None, format: Format) -> None:
    """Print the changed samples batch by batch; for people only the first few."""
    for_people = format == Format.table
    batches = changed_samples(first, second, _SHOWN if limit is None and for_people else limit)
    begin = list(batches if for_people else islice(batches, 1))  # errors are raised before the first line is printed
    rows = (row for batch in chain(begin, batches) for row in _tuples(batch))
    print_result(Result(tuple(SAMPLES.names), rows), format)
    if for_people and limit is None:
        print(f"the first {_SHOWN} of each side by uid; --limit shows more, --format csv all")


def _stacked(found: Diff) -> Result:
    """Return the tables below each other, with a column that names them."""
    tables = {kind: getattr(found, name) for kind, name in _TABLES.items() if kind != By.setting}
    rows = [(kind.value, *row) for kind, table in tables.items() for row in _tuples(table)]
    return Result(("by", *CHANGES.names), rows)


def _object(found: Diff) -> dict[str, Any]:
    """Return the comparison as plain data."""
    sides = {"a": vars(found.a), "b": vars(found.b)}
    counts = {"lost": found.lost, "gained": found.gained, "shared": found.shared, "repeated": found.repeated}
    return sides | counts | {name: getattr(found, name).to_pylist() for name in _TABLES.values()}


def _tuples(table: pa.Table | pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
