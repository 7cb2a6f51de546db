"""`curate whatif`: computes how many samples a finished run would keep with other rules, deduplication or balance."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from typer import Option

from curate.ask.output import Result, line, tuples
from curate.ask.whatif.answer import WhatIf, answer
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import Point, check_plot, points_table, search, sweep, write_plot
from curate.ask.whatif.swept_number import SEARCHED, SweptNumber, parse_swept_number
from curate.base.errors import RecipeError
from curate.base.wording import pluralize
from curate.cli import common
from curate.cli.common import Format, print_page
from curate.recipe.recipe import Recipe

_LANGUAGES = 12  # number of rows in a printed table
_BAR = 24  # characters of the longest bar
_SEEN = "seen_each"  # how often training sees each kept row
_COLUMNS = ("pool", "run", "run_expected", "whatif", "change", "error")


def whatif(
    directory: common.RunArgument,
    overrides: common.SetOption = [],  # noqa: B006
    sweep_of: Annotated[str | None, Option("--sweep", metavar="KEY={A..B}")] = None,
    points: Annotated[int, Option(min=2, max=1000, metavar="N")] = 12,
    plot: Annotated[str | None, Option(metavar="FILE")] = None,
    rows: Annotated[int | None, Option(min=1, metavar="N")] = None,
    share: Annotated[float | None, Option("--tail-share", metavar="X")] = None,
    by: Annotated[str | None, Option(metavar="KEY")] = None,
    seen: common.SeenOption = None,
    format: common.FormatOption = Format.table,
) -> None:
    """Compute the yield with other settings, without running again."""
    _check(sweep_of, plot, rows, by, share)
    swept = sweep_of or by
    number = parse_swept_number(swept, *((SEARCHED,) if by else ())) if swept else None
    run = open_finished(directory)
    number = number and number.with_value_of(run.facts.recipe, run.facts.t)
    if rows is not None and by is None:
        overrides = [*overrides, f"{_size_key(run.changed(overrides))}={rows}"]
    if share is not None:
        overrides = [*overrides, f"balance.tail_share={share:f}"]
    if number and rows is not None:
        overrides = [*overrides, search(run, overrides, number, rows)]
    if sweep_of and number:
        swept_points = list(_show_progress(sweep(run, overrides, number, points), len(number.values(points))))
        if plot:
            write_plot(plot, swept_points, number, sum(int(state.surviving.sum()) for state in run.states))
            print(f"wrote {plot}", file=sys.stderr)
        is_sampled = run.changed(overrides).sample is not None and number.rule is not None
        table = _sweep_result(swept_points, number, format, "survivors" if is_sampled else "expected", seen)
        common.print_result(table, format)
        if format is Format.table:
            print_page("whatif", part="sweep", number=number, points=len(swept_points), columns=table.names)
        return
    result = answer(run, overrides)
    if seen is not None:
        each = [seen / kept if kept else None for kept in (run.facts.kept, result.expected)]
        row = pa.Table.from_pylist([{"fact": _SEEN, "run": each[0], "whatif": each[1]}], result.facts.schema)
        result = replace(result, facts=pa.concat_tables([result.facts, row]))
    _print_answer(result, run.changed(overrides), number, rows, seen, format)


def _size_key(recipe: Recipe) -> str:
    """Return the key that determines the size, in the recipe's selection or in one that the recipe could use."""
    if recipe.selection and recipe.selector.sizes_of:
        return f"{recipe.selector.key}.{recipe.selector.sizes_of[0]}"
    if recipe.selection and recipe.selection[0] not in ("balance", "sample"):
        reason = f"--rows: {recipe.selection[0]} has no setting that determines the number of rows"
        raise RecipeError(f"{reason}; add --by to search a rule's number, or remove --rows")
    return "balance.rows" if recipe.match else "sample.rows"


def _check(sweep_of: str | None, plot: str | None, rows: int | None, by: str | None, share: float | None) -> None:
    if share is not None and (rows is not None or sweep_of is not None):
        raise RecipeError("--tail-share, --rows and --sweep each set t; accepted: one of them")
    if plot is not None and sweep_of is None:
        raise RecipeError("--plot needs --sweep, such as --sweep 'balance.t={1000..100000}'")
    if by is not None and rows is None:
        raise RecipeError("--by needs --rows, the target size")
    if sweep_of is not None and rows is not None:
        raise RecipeError("--sweep and --rows cannot be combined; accepted: --sweep with --set balance.rows=N")
    if plot is not None:
        check_plot(plot)


def _show_progress(points: Iterator[Point], total: int) -> Iterator[Point]:
    for count, point in enumerate(points, 1):
        if point.fault:
            print(f"curate: {point.fault}", file=sys.stderr)
        if sys.stderr.isatty():
            end = "" if count < total else "\r\n"
            print(f"\r{count} of {total} points", end=end, file=common.plain(sys.stderr), flush=True)
        yield point


def _sweep_result(points: list[Point], number: SweptNumber, format: Format, bars: str, seen: int | None) -> Result:
    table = points_table(points)
    if seen is not None:
        each = [seen / point.expected if point.expected else None for point in points]
        table = table.append_column(_SEEN, pa.array(each, pa.float64()))
    if format is not Format.table:
        return _result(table)
    hidden = {"t"} if number.key == "balance.t" else set()  # it is the same as the value
    shown = [name for name in table.column_names if table[name].null_count < len(table) and name not in hidden]
    sizes = [(point.survivors if bars == "survivors" else point.expected) or 0 for point in points]
    maximum = max(sizes, default=0) or 1
    for name in {"expected", "error"} & set(shown):
        table = table.set_column(table.column_names.index(name), name, pc.round(table[name]))
    lengths = [max(1, round(_BAR * size / maximum)) if size else 0 for size in sizes]
    marks = ["  ← the run" if point.value == number.of_run else "" for point in points]
    drawn = pa.array(["█" * length + mark for length, mark in zip(lengths, marks, strict=True)])
    return _result(table.select(shown).append_column(f"bars of {bars}", drawn))


def _print_answer(
    result: WhatIf, recipe: Recipe, number: SweptNumber | None, rows: int | None, seen: int | None, format: Format
) -> None:
    """Print one table after the other. As CSV or JSON, print a single table that has a column `section`."""
    if format is not Format.table:
        common.print_result(Result(("section", "name", *_COLUMNS), list(_long(result))), format)
        return
    lists = {"facts": result.facts.to_pylist(), "funnel": result.funnel.to_pylist()}
    print_page("whatif", part="answer", result=result, recipe=recipe, number=number, rows=rows, seen=seen, **lists)
    languages = result.languages
    is_known = pc.or_(pc.is_valid(result.facts["run"]), pc.is_valid(result.facts["whatif"]))
    tables = [_rounded(result.funnel).drop_columns(["position", "kind", "error"]), _rounded(result.sources)]
    tables += [_rounded(languages.slice(0, _LANGUAGES))] if len(languages) else []
    for table in [*tables, result.facts.filter(is_known)]:
        common.print_result(_result(table), format)
        common.print_lines(line())
    if len(languages) > _LANGUAGES:
        common.print_lines(line(f"{pluralize(len(languages) - _LANGUAGES, 'more language')}; for all, --format csv"))


def _rounded(table: pa.Table) -> pa.Table:
    """Return counts as integers (0 if a recipe does not have the rule), and changes between rounded counts."""
    counts = {name: table[name].fill_null(0) for name in ("run", "run_expected", "whatif")}  # type: ignore[arg-type]
    shown = {name: pc.round(numbers) for name, numbers in counts.items()}
    shown["change"] = pc.subtract(shown["whatif"], shown["run_expected"])
    for name, numbers in shown.items():
        table = table.set_column(table.column_names.index(name), name, numbers.cast(pa.int64()))
    return table


def _long(result: WhatIf) -> Iterator[tuple[Any, ...]]:
    for section, name in (("funnel", "rule"), ("sources", "source"), ("languages", "language"), ("facts", "fact")):
        for row in getattr(result, section).to_pylist():
            yield section, row[name], *(_plainly(row.get(column)) for column in _COLUMNS)
    for rule, threshold in result.thresholds.items():
        yield "thresholds", rule, *(threshold if column == "whatif" else None for column in _COLUMNS)
    yield from (("changes", override, *[None] * len(_COLUMNS)) for override in result.changes)


def _result(table: pa.Table) -> Result:
    return Result(tuple(table.column_names), [tuple(map(_plainly, row)) for row in tuples(table)])


def _plainly(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
