"""`curate diff`: samples that one of two runs keeps and the other does not, and the reasons."""

from enum import StrEnum
from itertools import chain, islice
from typing import Annotated

from typer import Argument, Option

from curate.ask.diff import CHANGES, GAINED, LOST, SAMPLES, changed_samples, diff_runs
from curate.ask.output import Result, tuples, write_json
from curate.base.errors import RecipeError
from curate.cli.common import Format, FormatOption, PageOption, open_output, print_page, print_result, save_images

By = StrEnum("By", ["rule", "entry", "source", "language", "setting", "sample"])  # tables of the comparison
Side = StrEnum("Side", ["lost", "gained"])
_TABLES = {by: "entries" if by == By.entry else f"{by}s" for by in By if by != By.sample}  # attributes of `Diff`
_SHOWN = 50  # default of --limit for tables


def diff(
    first: Annotated[str, Argument(metavar="DIR_A")],
    second: Annotated[str, Argument(metavar="DIR_B")],
    by: Annotated[By | None, Option(metavar="WHAT")] = None,
    limit: Annotated[int | None, Option(min=1, metavar="N")] = None,
    side: Annotated[Side | None, Option(metavar="SIDE")] = None,
    images: Annotated[bool, Option("--images")] = False,
    out: PageOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Compare two runs: which samples were gained and lost, and why."""
    if side is not None and by is None:
        by = By.sample
    if side is not None and by != By.sample:
        raise RecipeError(f"--side {side} lists samples, and --by {by} does not; accepted: no --by, or --by sample")
    if images and side is None:
        raise RecipeError("--images needs --side lost or --side gained")
    if out is not None and not images:
        raise RecipeError("--out names the page of --images; add --images, or remove --out")
    if limit is not None and by is None:
        raise RecipeError(f"--limit needs --by; accepted: {', '.join(f'--by {name}' for name in By)}")
    if images and side is not None:
        samples = (row for batch in changed_samples(first, second, limit, [side]) for row in tuples(batch))
        result = Result(tuple(SAMPLES.names), samples)
        keeper = first if side == LOST else second
        save_images(keeper, result, f"{side} from {first} to {second}", out or f"{side}.html")
        return
    if by == By.sample:
        _print_samples(first, second, limit, side, format)
        return
    comparison = diff_runs(first, second)
    tables = {kind: getattr(comparison, name) for kind, name in _TABLES.items()}
    if by is not None:
        table = tables[by]
        shown = table.slice(0, _SHOWN if limit is None and format == Format.table else limit)
        print_result(Result(tuple(shown.column_names), tuples(shown)), format)
        if format == Format.table and len(shown) < len(table):
            print(f"of {len(table):,} rows; print more with --limit")
    elif format == Format.table:
        print_page("diff", diff=comparison)
    elif format == Format.csv:
        rows = [(kind.value, *row) for kind in tables if kind != By.setting for row in tuples(tables[kind])]
        print_result(Result(("by", *CHANGES.names), rows), Format.csv)
    else:
        sides = {"a": vars(comparison.a), "b": vars(comparison.b)}
        counts = {name: getattr(comparison, name) for name in ("lost", "gained", "shared", "repeated")}
        with open_output() as file:
            write_json(sides | counts | {_TABLES[kind]: table.to_pylist() for kind, table in tables.items()}, file)


def _print_samples(first: str, second: str, limit: int | None, side: Side | None, format: Format) -> None:
    """Print the changed samples, batch by batch. A table shows only the first few."""
    for_people = format == Format.table
    shown = _SHOWN if limit is None and for_people else limit
    batches = changed_samples(first, second, shown, [side] if side else (LOST, GAINED))
    begin = list(batches if for_people else islice(batches, 1))  # so that errors are raised before anything is printed
    rows = (row for batch in chain(begin, batches) for row in tuples(batch))
    print_result(Result(tuple(SAMPLES.names), rows), format)
    if for_people and limit is None:
        print(f"these are the first {_SHOWN} of each side by uid; print more with --limit, or all with --format csv")
