"""Entries of the metadata before and after balancing (MetaCLIP's figure), which gained and lost, and their languages.

Before: the rows left when balancing began, or the pool where the run does not balance. Shares are of all matches: a
caption that matches three entries counts in three.
"""

from curate.ask.library import find_query
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import SHORT, Figure, Section, Table, clean
from curate.ask.report.charts import count_integers, describe_bins, draw_lines, render_svg
from curate.ask.report.distributions import LEGEND
from curate.base.errors import RecipeError

POINTS = 250  # of each curve
TOP = 15  # entries in a list
_MANY = 30  # entries in a caption, from where all count together
_LANGUAGES = 40  # lines of their table


def entries_section(run: OpenRun) -> Section | None:
    """Return the figure, key numbers, matches per caption, and the entries that changed most; None without `match`."""
    if not run.facts.recipe.get("match"):
        return None
    [counts] = run.report("entries", balanced=run.balanced)
    per_text = run.rows(find_query("matches_per_text").sql)
    figures = [figure for figure in (_ranks(run), _per_text(run)) if figure]
    changed = {
        name: run.report("entries_changed", balanced=run.balanced, gained=name == "gained", top=TOP)
        for name in ("gained", "lost")
    }
    facts = {"counts": counts, "per_text": per_text, "figures": figures, "changed": changed}
    return Section("entries", "Entries", facts | {"lost": run.report("entries_lost"), "is_balanced": run.balanced})


def _ranks(run: OpenRun) -> Figure | None:
    rows = run.report("entry_ranks", balanced=run.balanced, points=POINTS)
    if not any(row["rank"] > 1 for row in rows):
        return None
    title = "Samples per entry by rank, before and after balancing" if run.balanced else "Samples per entry by rank"
    t = run.facts.t if run.balanced and not run.facts.t_by_language else None
    charts = draw_lines(rows, f"{title}, both axes logarithmic", t, is_share=False)
    note = "Both axes are logarithmic; entries are ranked by their count in each set. Dashed: t." if t else ""
    legend = (("before", "before balancing" if run.balanced else "pool"), ("kept", "kept"))
    shown = [{"set": row["series"], "rank": row["rank"], "samples": row["rows"]} for row in rows[::5]]
    return Figure(title, charts[0], Table.of(shown, folded=True), charts[1], legend, note)


def _per_text(run: OpenRun) -> Figure | None:
    rows = run.report("entries_per_text", longest=_MANY)
    if not any(row["before"] for row in rows):
        return None
    title = "Entries per caption"
    spec, table = describe_bins(
        count_integers(rows, _MANY, shift=0.5), "entries per caption", {"format": "d", "tickMinStep": 1}
    )
    svg = render_svg(spec, f"{title}: shares of the pool and of the kept set")
    return Figure(title, svg, table, legend=LEGEND)


# ---- languages of entries


def languages_section(run: OpenRun, chosen: str | None = None) -> Section | None:
    """Return a table of languages, and the chosen one in detail, by default the largest but that whose share is taken.

    None where entries are of one language or there are none. Raises RecipeError where there is no such language.
    """
    rows = run.report("languages") if run.facts.recipe.get("match") else []
    names = [row["language"] for row in rows]
    if chosen is not None and chosen not in names:
        raise RecipeError(f"--language {chosen}: entries have none such; accepted: {', '.join(names) or 'none'}")
    if len(rows) < 2:
        return None
    reference = next(iter(run.facts.t_by_language or {}), None)
    language = chosen or next(name for name in names if name != reference)
    entries = run.report("language_entries", language=language, top=TOP)
    curve = _curve(run, language, rows[names.index(language)]["t"], reference) if entries else None
    facts = {"rows": rows, "most": _LANGUAGES, "language": language, "reference": reference}
    return Section("languages", "Languages of entries", facts | {"entries": entries, "curve": curve})


def _curve(run: OpenRun, language: str, t: int | None, reference: str | None) -> Figure | None:
    """Return the share of matches of entries up to a count, of a language and of the one whose share it takes."""
    series = {"kept": language} | ({"before": reference} if reference not in (None, language) else {})
    legend = [(key, clean(name, SHORT)) for key, name in series.items()]
    points = [
        point | {"series": key}
        for key, name in legend
        for point in run.report("language_curve", language=series[key], label=name, points=POINTS)
    ]
    if len(points) < 3:
        return None
    title = f"Share of matches that entries with up to so many samples have: {clean(language, SHORT)}"
    wide, narrow = draw_lines(points, title, t, is_share=True)
    shown = [{"samples of the entry": p["rows"], "share": p["share"]} for p in points if p["series"] == "kept"]
    table = Table.of(shown[:: max(1, len(shown) // 50)], folded=True)
    return Figure(title, wide, table, narrow, legend, "Dashed: t of the language." if t is not None else "")
