"""`curate diff`: samples that one run keeps and another does not, and why."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typer import Argument, Option

from curate.ask.diff import CHANGES, GAINED, LOST, NOT_IN_POOL, SAMPLES, Diff, changed_samples, diff_runs
from curate.ask.output import Line, Page, Part, Result, columns, line, named, section, tuples, write_json
from curate.base.errors import RecipeError
from curate.base.stages import KEPT, POOL
from curate.base.wording import pluralise
from curate.cli.common import Format, FormatOption, PageOption, open_output, print_lines, print_result, save_images

By = StrEnum("By", ["rule", "entry", "source", "language", "setting", "sample"])  # what the samples are compared by
Side = StrEnum("Side", ["lost", "gained"])
_TABLES = {by: "entries" if by == By.entry else f"{by}s" for by in By if by != By.sample}  # of `Diff`
_SHOWN = 50  # rows of a table for people, unless --limit says otherwise
_TOP = 10  # rows of a table of the summary that may be long
_VALUE = 120  # characters of a setting's value


def diff(
    first: Annotated[str, Argument(metavar="DIR_A", help="The folder of a finished run, local or remote.")],
    second: Annotated[str, Argument(metavar="DIR_B", help="The run to compare it with.")],
    by: Annotated[
        By | None, Option("--by", metavar="WHAT", help="rule, entry, source, language, setting or sample.")
    ] = None,
    limit: Annotated[int | None, Option(min=1, metavar="N", help="Rows, or samples per side; a table has 50.")] = None,
    side: Annotated[Side | None, Option(metavar="SIDE", help="Samples of one side: lost or gained.")] = None,
    images: Annotated[bool, Option("--images", help="Write a page of these samples with their images.")] = False,
    out: PageOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Compare two runs: samples gained and lost, and why.

    The summary counts them by rule, entry, source and language; --by prints one table, and --by sample every such
    sample. With --side these are of one side, also as a page with images.
    """
    if side is not None and by is None:
        by = By.sample
    if side is not None and by != By.sample:
        raise RecipeError(f"--side {side} lists samples; accepted: without --by, or with --by sample")
    if images and side is None:
        raise RecipeError("--images needs a side; accepted: --side lost or --side gained")
    if out is not None and not images:
        raise RecipeError("--out is the page that --images writes; accepted: --out with --images")
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
        print_result(Result.of(shown), format)
        if format == Format.table and len(shown) < len(table):
            print(f"of {len(table):,} rows; --limit shows more")
    elif format == Format.table:
        print_lines(*diff_page(comparison).lines)
    elif format == Format.csv:
        rows = [(kind.value, *row) for kind in tables if kind != By.setting for row in tuples(tables[kind])]
        print_result(Result(("by", *CHANGES.names), rows), Format.csv)
    else:
        sides = {"a": vars(comparison.a), "b": vars(comparison.b)}
        counts = {name: getattr(comparison, name) for name in ("lost", "gained", "shared", "repeated")}
        with open_output() as file:
            write_json(sides | counts | {_TABLES[kind]: table.to_pylist() for kind, table in tables.items()}, file)


def _print_samples(first: str, second: str, limit: int | None, side: Side | None, format: Format) -> None:
    """Print the changed samples batch by batch; for people only the first few."""
    for_people = format == Format.table
    shown = _SHOWN if limit is None and for_people else limit
    batches = changed_samples(first, second, shown, [side] if side else (LOST, GAINED))
    begin = list(batches if for_people else islice(batches, 1))  # errors are raised before the first line is printed
    rows = (row for batch in chain(begin, batches) for row in tuples(batch))
    print_result(Result(tuple(SAMPLES.names), rows), format)
    if for_people and limit is None:
        print(f"the first {_SHOWN} of each side by uid; --limit shows more, --format csv all")


def diff_page(diff: Diff) -> Page:
    """Return the summary: both runs, settings that differ, and the changes by rule, source, language and entry."""
    parts = [*_summary(diff), *_settings(diff)]
    if not diff.is_same:
        parts += [*_rules(diff), *_table("by source", diff.sources), *_languages(diff), *_entries(diff)]
        hint = "--by sample lists every sample, --by entry every entry; --format csv or json for programs"
        parts += [line(), line((hint, "dim"))]
    return Page(tuple(parts))


def _summary(diff: Diff) -> Iterator[Line]:
    runs: list[list[Part]] = [
        [name, side.name, f"{side.pool:,} in the pool", (f"{side.kept:,} kept", "bold"), side.url]
        for name, side in (("A", diff.a), ("B", diff.b))
    ]
    yield from (*columns(runs, right=(2, 3), indent=0), line())
    if diff.is_same:
        yield line((f"Both keep the same {pluralise(diff.a.kept, 'sample')}.", "bold green"))
    else:
        lost, gained = (f"lost {diff.lost:,}", "bold red"), (f"gained {diff.gained:,}", "bold green")
        yield line(lost, ", ", gained, f", {diff.shared:,} in both")
        if diff.shares_no_pool:
            yield line("No sample kept by one run is in the pool of the other: their pools have nothing in common.")
        elif not diff.lost:
            yield line("B keeps all that A keeps, and more.")
        elif not diff.gained:
            yield line("A keeps all that B keeps, and more.")
    if any(side.uids != side.kept for side in (diff.a, diff.b)):
        differ = f"; repeats differ for {pluralise(diff.repeated, 'sample')} in both" if diff.repeated else ""
        yield line(f"uids.npy: {diff.a.uids:,} → {diff.b.uids:,} uids{differ}")


def _settings(diff: Diff) -> Iterator[Line]:
    rows = diff.settings.to_pylist()
    yield from section("settings that differ", "A → B" if rows else "none")
    margin = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        texts = ["–" if row[side] is None else row[side] for side in ("a", "b")]
        old, new = (text if len(text) <= _VALUE else f"{text[:_VALUE]}…" for text in texts)
        yield named(row["key"], margin, (old, "red"), " → ", (new, "green"))


def _rules(diff: Diff) -> Iterator[Line]:
    yield from section("by rule", "lost: dropped by it in B; gained: dropped by it in A")
    rows = [row for row in diff.rules.to_pylist() if any(row[name] for name in ("a", "b", "lost", "gained"))]
    yield from _columns(rows, funnel=True)
    if any(side.failed for side in (diff.a, diff.b)) and any(row["name"] == NOT_IN_POOL for row in rows):
        yield line((f"  a sample that could not be read has no uid and counts as {NOT_IN_POOL}", "dim"))


def _table(title: str, table: pa.Table) -> Iterator[Line]:
    note = f"the {_TOP} most frequent of {len(table):,}" if len(table) > _TOP else ""
    yield from section(title, note)
    yield from _columns(table.slice(0, _TOP).to_pylist())


def _languages(diff: Diff) -> Iterator[Line]:
    """Yield the table where both runs measured languages, or which one did not."""
    named = diff.languages.filter(diff.languages["name"].is_valid())
    without = [name for name in ("a", "b") if not pc.sum(named[name]).as_py() and getattr(diff, name).kept]
    if not without:
        yield from _table("by language", diff.languages)
    elif len(without) == 1:
        yield from section("by language", f"{without[0].upper()} measured no language")


def _entries(diff: Diff) -> Iterator[Line]:
    table = diff.entries
    if not len(table):
        return
    a, b = (np.nan_to_num(table[name].to_numpy()) for name in ("a", "b"))  # null is 0
    counts = {
        "lost": (a > 0) & (b == 0),
        "new": (a == 0) & (b > 0),
        "with fewer": (b < a) & (b > 0),
        "with more": (b > a) & (a > 0),
    }
    changed = ", ".join(f"{mask.sum():,} {name}" for name, mask in counts.items())
    yield from section("by entry", f"{changed}; the {min(_TOP, len(table))} that changed most")
    yield from _columns(table.slice(0, _TOP).to_pylist())


def _columns(rows: list[dict[str, Any]], funnel: bool = False) -> list[Line]:
    """Return rows of CHANGES with a head: a funnel's counts are rows dropped; others have the relative change too."""
    head: list[Part] = [(name, "dim") for name in ("", "A", "B", "lost", "gained", "" if funnel else "change")]
    body: list[list[Part]] = [
        [
            "unknown" if row["name"] is None else row["name"],
            *(_count(row[name], funnel and row["name"] not in (POOL, KEPT)) for name in ("a", "b")),
            (_count(row["lost"]), "red" if row["lost"] else "dim"),
            (_count(row["gained"]), "green" if row["gained"] else "dim"),
            "" if funnel or not row["a"] or row["b"] is None else f"{row['b'] / row['a'] - 1:+.1%}".replace("-", "−"),
        ]
        for row in rows
    ]
    return columns([head, *body], right=range(1, 6))


def _count(value: int | None, minus: bool = False) -> str:
    return "" if value is None else f"{'−' if minus and value else ''}{value:,}"
