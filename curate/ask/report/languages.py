"""Balancing by language of the metadata's entries: a line a language, and one language in detail.

In detail: its entries with the most rows, and the share of matches that entries up to a count have, from which t
follows, beside that of the language whose share it takes.
"""

from typing import Any

from curate.ask.library import find_query, report_sql
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Bar, Block, Cell, Figure, Figures, Section, Table
from curate.ask.report.charts import compare_lines, log_axis, mark_threshold
from curate.ask.report.entries import POINTS, TOP
from curate.ask.report.text import SHORT, clean, count, counts, names, percent
from curate.base.errors import RecipeError

MOST = 40  # lines of the table


def languages_section(run: OpenRun, chosen: str | None = None) -> Section | None:
    """Return a table of languages, and the chosen one in detail, by default the largest but that whose share is taken.

    None where entries are of one language or there are none. Raises RecipeError where there is no such language.
    """
    balanced = run.rows(find_query("language_balance").sql) if run.facts.recipe.get("match") else []
    rows = [row for row in balanced if row["entries"]]
    known = [row["language"] for row in rows]
    if chosen is not None and chosen not in known:
        raise RecipeError(f"--language {chosen}: entries have none such; accepted: {', '.join(known) or 'none'}")
    if len(rows) < 2:
        return None
    reference = next(iter(run.facts.t_by_language or {}), None)
    row = next(row for row in rows if row["language"] == chosen or (chosen is None and row["language"] != reference))
    reading = "A sample that matches entries of several languages counts in each."
    if reference is not None:
        reading += (
            f" Each language has a t of its own, by which its tail has the share of matches that the tail of "
            f"{clean(reference, SHORT)} has; entries with more samples than that are downsampled."
        )
    return Section("languages", "Languages of entries", [reading, _table(rows), *_detail(run, row, reference)])


def _table(rows: list[dict[str, Any]]) -> Table:
    """Return a line for each language, those with the most matches first."""
    longest = max(row["survivors"] for row in rows) or 1
    cells: list[list[Cell]] = []
    for row in rows[:MOST]:
        bar = Bar(count(row["kept"]), row["kept"] / longest)
        tail = "–" if row["tail_share"] is None else percent(row["tail_share"], 1)
        of_rows = counts(row, "samples", "matched", "survivors")
        of_entries = counts(row, "entries", "in_pool", "head", "tail", "t")
        rate = percent(row["kept"], row["survivors"])
        cells.append([*names(row, "language"), *of_rows, bar, rate, *of_entries, tail])
    more = f" {count(len(rows) - MOST)} more: curate sql DIR language_balance." if len(rows) > MOST else ""
    note = f"Samples by measured language; the other columns by language of entries. Tail: entries below t.{more}"
    heads = "language, samples, matched, at balance, kept, rate, entries, in the pool, head, tail, t, tail's share"
    return Table(heads.split(", "), cells, words=("language", "kept"), note=note)


def _detail(run: OpenRun, row: dict[str, Any], reference: str | None) -> list[Block]:
    language = row["language"]
    entries = run.rows(report_sql("language_entries"), language=language, top=TOP)
    if not entries:
        return [f"No sample that was left when balancing began matches an entry of {clean(language, SHORT)}."]
    longest = entries[0]["survivors"]
    cells: list[list[Cell]] = [
        [*names(entry, "entry"), Bar(count(entry["survivors"]), entry["survivors"] / longest, "pool"),
         Bar(count(entry["kept"]), entry["kept"] / longest), f"{entry['probability']:.3g}"]
        for entry in entries
    ]  # fmt: skip
    title = f"Entries of {clean(language, SHORT)} with the most samples"
    heads = ("entry", "at balance", "kept", "probability")
    curve = _curve(run, row, reference)
    table = Table(heads, cells, words=heads[:3], title=title, note="Another one: curate report DIR --language LANG.")
    return [*([Figures([curve])] if curve else []), table]


def _curve(run: OpenRun, row: dict[str, Any], reference: str | None) -> Figure | None:
    """Return the share of matches of entries up to a count, of a language and of the one whose share it takes."""
    series = {"kept": row["language"]}
    series |= {"before": reference} if reference is not None and reference != row["language"] else {}
    legend = [(key, clean(name, SHORT)) for key, name in series.items()]
    points = [
        point | {"series": key, "tooltip": f"{name}: {percent(point['share'], 1)} up to {count(point['rows'])}"}
        for key, name in legend
        for point in run.rows(report_sql("language_curve"), language=series[key], points=POINTS)
    ]
    if len(points) < 3:
        return None
    title = f"Share of matches that entries with up to so many samples have: {clean(row['language'], SHORT)}"
    x = log_axis("rows", "samples of the entry", points)
    y = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}, "title": None, "axis": {"format": "~%"}}
    axes, marks, t = {"x": x, "y": y}, [], row["t"]
    if t is not None and t <= x["scale"]["domain"][1]:
        values = {"rows": t, "share": 1, "label": f"t = {count(t)}"}
        marks = mark_threshold(values, {"x": x}, {"dx": 5, "dy": 8}, axes)
    wide, narrow = compare_lines(points, title, axes, *marks, interpolate="step-after")
    shown = [point for point in points if point["series"] == "kept"]
    cells: list[list[Cell]] = [
        [count(point["rows"]), percent(point["share"], 1)] for point in shown[:: max(1, len(shown) // 50)]
    ]
    table = Table(("samples of the entry", "share"), cells, folded=True)
    note = "Dashed: t of the language." if t is not None else ""
    return Figure(title, wide, table, narrow, legend, note)
